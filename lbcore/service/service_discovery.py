"""`/sd`: the services as Prometheus's HTTP service discovery wants them, which is what the `http_sd` source reads too.

Every endpoint is a target of its own with its labels (`lbcore.sources.http_sd_labels`); those at unix sockets are left
out, because nobody can reach them from elsewhere. Source: Prometheus docs, http_sd.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from lbcore.snapshot import ServiceSnapshot
from lbcore.sources.http_sd import TargetGroup
from lbcore.sources.http_sd_labels import labels_of

__all__ = ["targets_json"]


def targets_json(services: Iterable[ServiceSnapshot]) -> bytes:
    """The list of targets."""
    return msgspec.json.encode(list(_groups(services)))


def _groups(services: Iterable[ServiceSnapshot]) -> Iterator[TargetGroup]:
    for service in services:
        for endpoint in service.endpoints:
            if not endpoint.address.startswith("unix:"):
                yield TargetGroup([endpoint.address], labels_of(service.name, endpoint))
