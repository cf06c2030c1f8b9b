"""The registry: services announce themselves here, under leases, and nothing that they said is lost.

`table` decides (pure, by an injected clock), `journal` remembers on disk, `feed` tells readers, `publishing` tells the
Directory; `embedded` joins them into the registry of one process.
"""
