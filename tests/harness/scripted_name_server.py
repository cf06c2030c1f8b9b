"""A DNS server over UDP that answers what a test says: what a real one would not do, or seldom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

__all__ = ["Answer", "answer", "scripted_name_server"]

Answer: TypeAlias = "dns.message.Message | bytes | None"


def answer(query: dns.message.Message, *records: str, authority: str = "", rcode: str = "NOERROR") -> Answer:
    """A response with records as in a zone file: `web.internal. 30 IN A 10.0.0.1`."""
    response = dns.message.make_response(query)
    response.flags |= dns.flags.RA
    response.set_rcode(dns.rcode.from_text(rcode))
    for section, lines in ((response.answer, records), (response.authority, [authority] if authority else [])):
        for line in lines:
            name, ttl, kind, record_type, value = line.split(maxsplit=4)
            section.append(dns.rrset.from_text(name, int(ttl), kind, record_type, value))
    return response


@asynccontextmanager
async def scripted_name_server(reply: Callable[[dns.message.Message, str, str], Answer]) -> AsyncIterator[str]:
    """Where it listens. `reply` gets each query with its name and type, and says nothing by None."""

    class Server(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
            self._transport = transport

        def datagram_received(self, data: bytes, sender: tuple[str, int]) -> None:
            query = dns.message.from_wire(data)
            [question] = query.question
            said = reply(query, question.name.to_text(), dns.rdatatype.to_text(question.rdtype))
            if said is not None:
                self._transport.sendto(said if isinstance(said, bytes) else said.to_wire(), sender)

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Server, local_addr=("127.0.0.1", 0))
    try:
        host, port = transport.get_extra_info("sockname")
        yield f"{host}:{port}"
    finally:
        transport.close()
