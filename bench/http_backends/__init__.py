"""Latencies of real HTTP backends, some of them ill, through an embedded `Cluster` and through Envoy, side by side."""
