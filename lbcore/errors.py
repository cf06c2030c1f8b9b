"""The error hierarchy. One base, `LbError`; each error is also the builtin that a caller would expect to catch."""

__all__ = ["ConfigError", "InvalidSetting", "LbError", "NoEndpointAvailable"]


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
