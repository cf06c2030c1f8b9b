"""What a worker's xDS server tells, gathered: metrics are kept where they are asked for, in the process that builds."""

from __future__ import annotations

from collections.abc import Callable

from lbcore.service.workers.messages import Counts, Refused
from lbcore.xds.observer import XdsObserver

__all__ = ["Tally"]


class Tally(XdsObserver):
    """Counts, until they are `take`n; NACKs go to `refused` at once, because people wait for them."""

    def __init__(self, refused: Callable[[Refused], None]) -> None:
        self._refused = refused
        self._counts = Counts()

    def take(self) -> Counts:
        """What has happened since it was last taken."""
        counts, self._counts = self._counts, Counts()
        return counts

    def stream_opened(self, method: str) -> None:
        _add(self._counts.opened, method)

    def stream_closed(self, method: str) -> None:
        _add(self._counts.closed, method)

    def stream_refused(self, method: str) -> None:
        _add(self._counts.turned_away, method)

    def response_sent(self, node: str, type_url: str, resources: int, size: int) -> None:  # noqa: ARG002
        _add(self._counts.responses, type_url)
        _add(self._counts.response_bytes, type_url, size)

    def acked(self, node: str, type_url: str, version: str) -> None:  # noqa: ARG002
        _add(self._counts.acks, type_url)

    def nacked(self, node: str, type_url: str, version: str, message: str, nonce: str) -> None:
        self._refused(Refused(node, type_url, version, message, nonce))


def _add(counts: dict[str, int], key: str, number: int = 1) -> None:
    counts[key] = counts.get(key, 0) + number
