"""Single fields of protobuf messages, serialised by hand where that spares a message.

Numbers are below 16 throughout, so that a key is one byte. Source: protobuf encoding guide.
"""

from __future__ import annotations

from functools import lru_cache

__all__ = ["field_tag", "message_field", "number_field", "text_field", "varint"]


def text_field(number: int, value: str) -> bytes:
    """A field of type string."""
    return message_field(number, value.encode())


def message_field(number: int, payload: bytes) -> bytes:
    """A field whose payload is a serialised message."""
    return field_tag(number, len(payload)) + payload


def number_field(number: int, value: int) -> bytes:
    """A field of an unsigned or enumerated type; nothing where it is 0, which is what is not said."""
    return bytes((number << 3,)) + varint(value) if value else b""


@lru_cache(maxsize=4096)
def field_tag(number: int, length: int) -> bytes:
    """Key and length of a length-delimited field (wire type 2)."""
    return bytes((number << 3 | 2,)) + varint(length)


def varint(value: int) -> bytes:
    """An unsigned number, seven bits a byte.

    >>> varint(300)
    b'\\xac\\x02'
    """
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
