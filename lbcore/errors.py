"""The error hierarchy. One base, `LbError`; each error is also the builtin that a caller would expect to catch."""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = [
    "ConfigError",
    "DeadlineExceeded",
    "InvalidSetting",
    "LbError",
    "Mistake",
    "NoEndpointAvailable",
    "NotPermitted",
    "NotReady",
    "Overloaded",
    "RemoteFailure",
    "RequestTimedOut",
    "ServiceUnreachable",
    "SourceTimedOut",
    "StoreFailed",
    "UnknownLease",
    "UnknownService",
    "path_text",
]


class LbError(Exception):
    """Base of every error that lbcore raises on purpose."""


class Mistake(NamedTuple):
    """One thing wrong in a value: where in it, and what.

    Fields:
        path: fields and indices from the value down to the mistake, as in `("endpoints", 2, "weight")`.
        what: the field, the value given and what is allowed.
        see: path of another place that the mistake is about, such as the first of two equal addresses.
    """

    path: tuple[str | int, ...]
    what: str
    see: tuple[str | int, ...] = ()


class InvalidSetting(LbError, ValueError):
    """A value outside its allowed range; `mistakes` holds everything that is wrong with it.

    The message names the field, the value given and what is allowed.
    """

    def __init__(self, *mistakes: Mistake | str) -> None:
        self.mistakes = tuple(each if isinstance(each, Mistake) else Mistake((), each) for each in mistakes)
        super().__init__(*self.mistakes)

    def __str__(self) -> str:
        return "; ".join(_in_full(mistake) for mistake in self.mistakes)


def _in_full(mistake: Mistake) -> str:
    # A field of the value itself is named by `what` already; a deeper one needs its path.
    where = f"{path_text(mistake.path)}: " if len(mistake.path) > 1 else ""
    return f"{where}{mistake.what}" + (f" (see {path_text(mistake.see)})" if mistake.see else "")


def path_text(path: tuple[str | int, ...]) -> str:
    """A path as people write it. A part that is not plain is quoted, so that none can pass for another.

    >>> path_text(("services", "web", "endpoints", 2, "weight"))
    'services.web.endpoints[2].weight'
    >>> path_text(("localities", "eu/a.b"))
    "localities['eu/a.b']"
    """
    written = ""
    for part in path:
        if isinstance(part, str) and re.fullmatch(r"[\w/-]+", part):
            written += f".{part}" if written else part
        else:
            written += f"[{part!r}]"
    return written


class ConfigError(LbError, ValueError):
    """A configuration file with mistakes; `mistakes` lists them all, each with file, line and field path."""

    def __init__(self, mistakes: tuple[str, ...]) -> None:
        super().__init__(mistakes)
        self.mistakes = mistakes

    def __str__(self) -> str:
        return "\n".join(self.mistakes)


class NoEndpointAvailable(LbError, LookupError):
    """No endpoint may be picked; the message says why (the cluster is empty, or which states its endpoints are in)."""


class UnknownService(LbError, LookupError):
    """The directory has no service of that name; the message names those with a near one."""


class UnknownLease(LbError, LookupError):
    """The registry has no such lease, or not any more: what was under it is to be announced anew."""


class StoreFailed(LbError, OSError):
    """The registry cannot keep what it was told, and the message says why: it is not done, and may be tried again."""


class NotReady(LbError, RuntimeError):
    """The picker service has not heard from all of its sources yet, or is draining: another replica may answer."""


class NotPermitted(LbError, PermissionError):
    """The caller may not do that; the message says why, and nothing of what it may not see."""


class Overloaded(LbError, RuntimeError):
    """A limit is reached, of a cluster's circuit breakers or of the service itself; the message says which.

    `limit` is the setting's name, such as `max_requests`; empty where it is none.
    """

    def __init__(self, message: str, limit: str = "") -> None:
        super().__init__(message)
        self.limit = limit


class ServiceUnreachable(LbError, ConnectionError):
    """The picker service does not answer at its address."""


class RequestTimedOut(LbError, TimeoutError):
    """The picker service did not answer in time."""


class DeadlineExceeded(LbError, TimeoutError):
    """A call, or one attempt of it, has taken longer than it may; the message says which."""


class SourceTimedOut(LbError, TimeoutError):
    """A source has not said in time who belongs to its service; the message bears its last failure."""


class RemoteFailure(LbError, RuntimeError):
    """The picker service failed in a way that it does not document; the message bears the gRPC status."""
