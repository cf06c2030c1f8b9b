"""Damping: an endpoint that comes and goes again and again is shown as usable only when it has stayed so for a while.

What gets worse is shown at once, always; only returns wait. So clients are spared the changes and the requests that an
endpoint in a crash loop would fail, and nothing that was said is lost. Where nothing else of a service is usable the
publisher shows it all the same. The idea is that of BGP's route flap damping (RFC 2439), with a count in a window
instead of a decaying penalty.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping

from lbcore.model import Endpoint, Health
from lbcore.registration import Key

__all__ = ["Damping", "usable"]

_WINDOW = 3.0  # times the hold: how long a change for the worse is remembered
_USABLE = (Health.UNKNOWN, Health.HEALTHY, Health.DEGRADED)


def usable(endpoint: Endpoint | None) -> bool:
    """Whether an endpoint is there and gets requests."""
    return endpoint is not None and endpoint.health in _USABLE


class Damping:
    """After `max_flaps` changes for the worse within three times `hold` seconds, a return waits for `hold` seconds.

    `held` has what is not shown yet. A hold of 0 damps nothing.

    >>> damping, key, well = Damping(1, 10.0, lambda: 0.0), Key("web", "10.0.0.1:80"), Endpoint("10.0.0.1:80")
    >>> damping.shown(key, well, None) is None
    True
    >>> damping.shown(key, None, well) is None, list(damping.held)
    (True, [Key(service='web', address='10.0.0.1:80')])
    """

    def __init__(self, max_flaps: int, hold: float, clock: Callable[[], float]) -> None:
        self._max_flaps = max_flaps
        self._hold = hold
        self._clock = clock
        self._flaps: dict[Key, deque[float]] = {}
        self._purged = 0  # how many were left when those that are long ago were last forgotten
        self._held: dict[Key, tuple[Endpoint, float]] = {}

    @property
    def held(self) -> Mapping[Key, tuple[Endpoint, float]]:
        """By registration, what will be shown, and when."""
        return self._held

    def shown(self, key: Key, before: Endpoint | None, said: Endpoint | None) -> Endpoint | None:
        """What is to be shown of an endpoint that was shown as `before`, now that the registry says this."""
        if not self._hold or (not (self._held or self._flaps) and usable(said)):
            return said
        held = self._held.pop(key, None)
        if not usable(said):
            if held is not None or usable(before):
                self._note(key)
            return said
        if usable(before) or not self._flaps_often(key):
            return said
        assert said is not None
        self._held[key] = (said, self._clock() + self._hold if held is None else held[1])
        return before

    def due(self) -> Iterator[tuple[Key, Endpoint]]:
        """Takes out what has waited long enough."""
        now = self._clock()
        for key in [key for key, (_, due) in self._held.items() if due <= now]:
            yield key, self._held.pop(key)[0]

    def release(self, service: str) -> Iterator[tuple[Key, Endpoint]]:
        """Takes out all of a service."""
        for key in [key for key in self._held if key.service == service]:
            yield key, self._held.pop(key)[0]

    def clear(self) -> None:
        """Takes out all, unshown."""
        self._held.clear()

    def _flaps_often(self, key: Key) -> bool:
        flaps = self._flaps.get(key)
        if not flaps:
            return False
        since = self._clock() - _WINDOW * self._hold
        return sum(at > since for at in flaps) >= self._max_flaps

    def _note(self, key: Key) -> None:
        now = self._clock()
        self._flaps.setdefault(key, deque(maxlen=self._max_flaps)).append(now)
        if len(self._flaps) > 2 * self._purged + 1000:
            since = now - _WINDOW * self._hold
            self._flaps = {key: flaps for key, flaps in self._flaps.items() if flaps[-1] > since}
            self._purged = len(self._flaps)
