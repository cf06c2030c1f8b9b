"""`EventLog`: events as lines of JSON, appended to a file; and what Envoy's events have in common."""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

__all__ = ["EventLog", "timestamp"]

LOG = logging.getLogger(__name__)


def timestamp(seconds: float) -> str:
    """A moment of the wall clock, seconds since 1970, as protobuf's JSON writes it.

    >>> timestamp(1.5)
    '1970-01-01T00:00:01.500Z'
    """
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class EventLog:
    """Appends events to a file. What cannot be written is logged once, and then given up: events stop nothing else.

    Args:
        path: of the file, which is opened when the first event comes.
        what: the events, for the message that there are no more of them.
    """

    def __init__(self, path: str, what: str) -> None:
        self._path = path
        self._what = what
        self._file: TextIO | None = None
        self._broken = False

    def append(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Appends a line for each event."""
        if self._broken:
            return
        try:
            if self._file is None:
                self._file = open(self._path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 - kept open
            self._file.writelines(json.dumps(event) + "\n" for event in events)
        except OSError as error:
            self._broken = True
            LOG.error("no more %s: %s: %s", self._what, self._path, error.strerror)

    def close(self) -> None:
        """Closes the file; the next event opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None
