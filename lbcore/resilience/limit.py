"""What may refuse a call before it is made: the `Limit` protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["Limit"]


class Limit(Protocol):
    """A limit on calls."""

    def admit(self) -> Callable[[bool | None], None]:
        """Lets one call in, and returns what is to be told, once, how it ended: well, badly, or None: cancelled.

        Raises `Overloaded` where there is no room.
        """
