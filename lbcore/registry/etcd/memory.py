"""What etcd said last, in a file: what a server that starts while etcd is away serves, as possibly out of date.

Without it such a server could only wait, or answer as if nothing were registered, which clients take for a removal.
What is older than the longest lease says nothing any more and counts as not known. The loss of the file costs nothing
but that: every failure to use it is told once and then passed over.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from lbcore.errors import InvalidSetting
from lbcore.model import Endpoint
from lbcore.registration import Announcement, Key, check_announcement
from lbcore.registry.encoding import EndpointFields, endpoint_fields, endpoint_of
from lbcore.registry.etcd.view import View

__all__ = ["RegistryMemory"]

logger = logging.getLogger(__name__)


_SOONEST = 1.0  # seconds between two writes
_PAUSE = 30.0  # times as long as the last write took
_STILL_TRUE = 60.0  # seconds after which it is written too that nothing has changed


class RegistryMemory:
    """Keeps the registrations of the etcd `source` at `path`. `keep` and `recall` take as long as the disk does."""

    def __init__(self, path: Path, source: str, max_age: float, wall_clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._source = source
        self._max_age = max_age
        self._wall_clock = wall_clock
        self._told = False
        self._heard = self._changed = False

    def heard(self, *, changed: bool) -> None:
        """Notes that etcd has been heard of since the last write."""
        self._heard = True
        self._changed |= changed

    async def keep_for_ever(self, view: View) -> None:
        """Writes what the view has, in a thread, seldom enough to cost little."""
        written, took = 0.0, 0.0
        while True:
            await asyncio.sleep(max(_SOONEST, _PAUSE * took))
            begun = time.monotonic()
            if not (self._changed or (self._heard and begun - written > _STILL_TRUE)):
                continue
            self._heard = self._changed = False
            members = [(key, record.shown) for key, record in view.records.items() if not record.withdrawn]
            await asyncio.to_thread(self.keep, members)
            written, took = begun, time.monotonic() - begun

    def keep(self, members: Iterable[tuple[Key, Endpoint]]) -> None:
        """Replaces what is kept."""
        said = [_Member(service=key.service, address=key.address, **endpoint_fields(each)) for key, each in members]
        content = msgspec.json.encode(_Content(self._source, self._wall_clock(), said))
        new = self.path.with_name(f"{self.path.name}.new")
        try:
            new.write_bytes(content)
            os.replace(new, self.path)
        except OSError as wrong:
            if not self._told:
                self._told = True
                what = "%s: %s; a server that starts while etcd is away will know nothing of what is registered"
                logger.warning(what, self.path, wrong.strerror)

    def recall(self) -> tuple[float, list[tuple[str, Endpoint]]] | None:
        """How many seconds old it is, and the endpoints with their services; None where nothing is known."""
        try:
            content = msgspec.json.decode(self.path.read_bytes(), type=_Content)
            age = self._wall_clock() - content.at
            if content.source != self._source or not 0.0 <= age <= self._max_age:
                return None
            return age, [_member(each) for each in content.members]
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, InvalidSetting, ValueError) as wrong:
            logger.warning("%s cannot be read: %s", self.path, wrong)
            return None


class _Member(EndpointFields, kw_only=True, omit_defaults=True, gc=False):
    service: str
    address: str


class _Content(msgspec.Struct):
    source: str
    at: float  # seconds since 1970
    members: list[_Member]


def _member(said: _Member) -> tuple[str, Endpoint]:
    announcement = Announcement(said.service, endpoint_of(said.address, said))
    check_announcement(announcement)
    return announcement
