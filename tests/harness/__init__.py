"""The real parts that tests talk to: processes, Envoy, HTTP and gRPC backends.

Loopback only, ports chosen by the kernel. Each part is a context manager that ends what it started, by the id of
its own process.
"""
