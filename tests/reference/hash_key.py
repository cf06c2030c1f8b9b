"""Which text of an endpoint is hashed to place it on a ring or in a table: Envoy thread_aware_lb_impl.h `hashKey`.

Departure: with `use_hostname_for_hashing` an endpoint without a hostname is placed by its address (Envoy hashes the
empty string, so that all such endpoints would fall onto the same points).
"""

from __future__ import annotations

from lbcore.model import Endpoint


def hash_key(endpoint: Endpoint, use_hostname: bool = False) -> bytes:
    by_metadata = endpoint.metadata.get("hash_key")
    if isinstance(by_metadata, str) and by_metadata:
        return by_metadata.encode()
    if use_hostname and endpoint.hostname:
        return endpoint.hostname.encode()
    address = endpoint.address
    return (address[len("unix:") :] if address.startswith("unix:") else address).encode()
