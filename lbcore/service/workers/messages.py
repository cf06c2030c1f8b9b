"""What the process that builds and its workers say to each other, over a pair of sockets that they alone have.

A message is its length in 8 bytes and a pickle: both ends are one program, and nobody else can write there.
"""

from __future__ import annotations

import asyncio
import pickle
import struct
from dataclasses import dataclass, field

from lbcore.access import Grant, ServerTls
from lbcore.delivery import XdsDelivery
from lbcore.service.binding import Binding
from lbcore.xds.feed import Change
from lbcore.xds.status import ClientStatus

__all__ = [
    "AskClients",
    "Clients",
    "Counts",
    "Drain",
    "Feed",
    "Refused",
    "Settings",
    "Start",
    "Started",
    "pack",
    "receive",
]

_LENGTH = struct.Struct("!Q")


@dataclass(frozen=True)
class Settings:
    """What a worker needs of the configuration."""

    xds: XdsDelivery
    tls: ServerTls | None
    access: tuple[Grant, ...]


@dataclass(frozen=True)
class Start:
    """The first message to a worker: where it listens, and where all goes that it does not serve itself."""

    binding: Binding
    forward_to: str
    settings: Settings


@dataclass(frozen=True)
class Started:
    """A worker's answer: it listens."""


@dataclass(frozen=True)
class Feed:
    """To a worker: the resources are now these."""

    change: Change


@dataclass(frozen=True)
class AskClients:
    """To a worker: how far are your clients?"""

    number: int


@dataclass(frozen=True)
class Clients:
    """The answer to the question of that number."""

    number: int
    clients: list[ClientStatus]


@dataclass(frozen=True)
class Drain:
    """To a worker: end."""


@dataclass(frozen=True)
class Refused:
    """A NACK, told at once: the arguments of `XdsObserver.nacked`."""

    node: str
    type_url: str
    version: str
    message: str
    nonce: str


@dataclass
class Counts:
    """What has happened since the last message: by method, and by type URL."""

    opened: dict[str, int] = field(default_factory=dict)
    closed: dict[str, int] = field(default_factory=dict)
    turned_away: dict[str, int] = field(default_factory=dict)
    responses: dict[str, int] = field(default_factory=dict)
    response_bytes: dict[str, int] = field(default_factory=dict)
    acks: dict[str, int] = field(default_factory=dict)
    access_refused: int = 0

    def __bool__(self) -> bool:
        return any(self.__dict__.values())


def pack(message: object) -> bytes:
    """A message as it travels."""
    content = pickle.dumps(message, protocol=5)
    return _LENGTH.pack(len(content)) + content


async def receive(reader: asyncio.StreamReader) -> object:
    """The next message. Raises `asyncio.IncompleteReadError` when the other end has gone."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    return pickle.loads(await reader.readexactly(length))
