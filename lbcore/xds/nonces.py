"""Nonces, and messages that streams share to the byte because they share those too.

A nonce has to be unique on its stream alone (xds_protocol.rst, "ACK/NACK and resource type instance version"). So the
responses of a process are numbered, and streams that are owed the same are sent one message with one nonce: no copy is
made for each, and what clients answer is the same as well. The numbers that a stream is sent only grow. Where a message
has a lower one, because the stream has been sent it before or is younger than it, the stream gets a copy with a number
of its own: so what a client repeats from an earlier stream is never taken for an answer on this one.
"""

from __future__ import annotations

import itertools
import secrets

from lbcore.xds.wire import with_nonce

__all__ = ["Nonces", "SharedMessage"]

_PROCESS = secrets.token_hex(4)  # other processes number their responses as well
_numbers = itertools.count(1)


class SharedMessage:
    """A response with a nonce that it has on most streams; `body` is all of it but the nonce."""

    __slots__ = ("_length", "message", "nonce", "number")

    def __init__(self, body: bytes) -> None:
        self.number = next(_numbers)
        self.nonce = _nonce(self.number)
        self.message = with_nonce(body, self.nonce)
        self._length = len(body)

    @property
    def body(self) -> memoryview:
        return memoryview(self.message)[: self._length]


class Nonces:
    """The nonces of one stream."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = next(_numbers)

    def give(self, shared: SharedMessage) -> tuple[str, bytes]:
        """A nonce that is new on this stream, and the message with it."""
        if shared.number > self._last:
            self._last = shared.number
            return shared.nonce, shared.message
        self._last = next(_numbers)
        nonce = _nonce(self._last)
        return nonce, with_nonce(shared.body, nonce)


def _nonce(number: int) -> str:
    return f"{_PROCESS}-{number}"
