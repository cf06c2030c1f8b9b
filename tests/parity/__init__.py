"""lbcore beside the real thing: Envoy and gRPC clients are the oracle."""
