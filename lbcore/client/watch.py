"""What a watch of endpoints remembers between messages, and over lost connections. No I/O.

The invariant: what a watch has told and the service no longer has is told as removed, even where the removal happened
while the connection was lost.
"""

from __future__ import annotations

from dataclasses import replace

from lbcore.client.messages import EndpointsUpdate, update_of
from lbcore.errors import LbError, NotReady, ServiceUnreachable
from lbcore.service.proto import picker_pb2 as pb

__all__ = ["WatchState"]

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 2.0  # seconds before a lost watch is opened again, doubling each time


class WatchState:
    """The state of one watch."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._ever_received = False
        self._reopened = False
        self._wait = _FIRST_WAIT

    def received(self, message: pb.WatchEndpointsResponse) -> EndpointsUpdate:
        """Takes the next message."""
        update = update_of(message)
        names = {service.name for service in update.services}
        if self._reopened:
            update = replace(update, removed=tuple(sorted(self._told - names)))
        self._told = (self._told | names) - set(update.removed)
        self._ever_received, self._reopened, self._wait = True, False, _FIRST_WAIT
        return update

    def broken(self, error: LbError) -> float:
        """The stream has ended: returns how many seconds to wait before it is opened again.

        Raises the error where waiting is no cure, or where nothing has been received yet.
        """
        if not self._ever_received or not isinstance(error, ServiceUnreachable | NotReady):
            raise error
        self._reopened = True
        wait = self._wait
        self._wait = min(2 * wait, _LONGEST_WAIT)
        return wait
