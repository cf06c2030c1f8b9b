"""What the caller of the method that runs may do: set by the `Guard` around each call, asked by the methods.

A context variable, because what is asked lies deep below the method, and tasks that the method starts inherit it.
Without a guard everything is permitted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from lbcore.access import Action, Permit
from lbcore.errors import NotPermitted
from lbcore.registration import Announcement, Key

__all__ = ["check_announcements", "check_keys", "current_permit", "permitted", "sees"]

_permit: ContextVar[Permit | None] = ContextVar("permit", default=None)


def current_permit() -> Permit | None:
    """What the caller may do; None is everything."""
    return _permit.get()


@contextmanager
def permitted(permit: Permit | None) -> Iterator[None]:
    """Within, this is what the caller may do; None is everything."""
    token = _permit.set(permit)
    try:
        yield
    finally:
        _permit.reset(token)


def sees(service: str, action: Action) -> bool:
    """Whether the caller may do this with the service; where not, the service is to be as one that does not exist."""
    permit = _permit.get()
    return permit is None or permit.sees(service, action)


def check_announcements(announcements: Iterable[Announcement]) -> None:
    """Raises `NotPermitted` for the first that the caller may not make."""
    permit = _permit.get()
    for index, each in enumerate(announcements if permit is not None else ()):
        assert permit is not None
        if not permit.announces(each.service, each.endpoint.address):
            raise NotPermitted(
                f"announcements[{index}]: {each.endpoint.address!r} of service {each.service!r} is not granted"
            )


def check_keys(keys: Iterable[Key]) -> None:
    """Raises `NotPermitted` for the first whose service the caller may not touch."""
    for key in keys:
        if not sees(key.service, "register"):
            raise NotPermitted(f"service {key.service!r} is not granted")
