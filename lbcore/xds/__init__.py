"""The endpoint-discovery service: the `Directory` spoken as xDS v3 to Envoy and to gRPC clients."""
