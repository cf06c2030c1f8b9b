"""The error hierarchy. One base, `LbError`; each error is also the builtin that a caller would expect to catch."""

__all__ = [
    "ConfigError",
    "InvalidSetting",
    "LbError",
    "NoEndpointAvailable",
    "NotReady",
    "Overloaded",
    "RemoteFailure",
    "RequestTimedOut",
    "ServiceUnreachable",
    "UnknownService",
]


class LbError(Exception):
    """Base of every error that lbcore raises on purpose."""


class InvalidSetting(LbError, ValueError):
    """A value outside its allowed range. The message names the field, the value given and what is allowed."""


class ConfigError(LbError, ValueError):
    """A configuration file with mistakes; `mistakes` lists them all, each with file, line and field path."""

    def __init__(self, mistakes: "tuple[str, ...]") -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class NoEndpointAvailable(LbError, LookupError):
    """No endpoint may be picked; the message says why (the cluster is empty, or which states its endpoints are in)."""


class UnknownService(LbError, LookupError):
    """The directory has no service of that name; the message names those with a near one."""


class NotReady(LbError, RuntimeError):
    """The picker service has not heard from all of its sources yet, or is draining: another replica may answer."""


class Overloaded(LbError, RuntimeError):
    """A limit of the service itself is reached, and the message says which."""


class ServiceUnreachable(LbError, ConnectionError):
    """The picker service does not answer at its address."""


class RequestTimedOut(LbError, TimeoutError):
    """The picker service did not answer in time."""


class RemoteFailure(LbError, RuntimeError):
    """The picker service failed in a way that it does not document; the message bears the gRPC status."""
