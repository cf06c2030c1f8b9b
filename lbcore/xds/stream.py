"""One gRPC stream: carries requests into a `Session` and its responses out.

The handler's own task reads. What is due is written by a second task that lives only while there is something to write:
an idle stream costs one task, and a client that does not read has one response pending while the newest state waits in
the session.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Generic

import grpc
import grpc.aio

from lbcore.xds.resources import Catalog
from lbcore.xds.session import ProtocolError, Session
from lbcore.xds.subscription import RequestT

__all__ = ["Context", "Stream"]

Context = grpc.aio.ServicerContext[bytes, bytes]

_log = logging.getLogger(__name__)


class Stream(Generic[RequestT]):
    """A stream while it is open.

    Arguments:
        read: reads a request off the wire; raises `ProtocolError`.
    """

    def __init__(self, session: Session[RequestT], read: Callable[[bytes], RequestT], context: Context) -> None:
        self._session = session
        self._read = read
        self._context = context
        self._reader: asyncio.Task[None] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._draining = False

    async def serve(self, requests: AsyncIterator[bytes]) -> None:
        """Serves until the client half-closes, goes away, or sends what cannot be read (INVALID_ARGUMENT)."""
        self._reader = asyncio.current_task()
        try:
            async for message in requests:
                self._session.receive(self._read(message))
                self._flush()
        except ProtocolError as error:
            await self._context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except asyncio.CancelledError:
            if not self._draining:
                raise
            await self._context.abort(grpc.StatusCode.UNAVAILABLE, "draining: this server is about to stop")
        finally:
            if self._writer is not None:
                self._writer.cancel()

    def advance(self, catalog: Catalog) -> None:
        """The resources are now these; writes what is due because of that."""
        self._session.advance(catalog)
        self._flush()

    def drain(self) -> None:
        """Ends the stream with UNAVAILABLE, after the response that is being sent: grpc cannot end it in the middle."""
        self._draining = True
        if self._writer is None and self._reader is not None:
            self._reader.cancel()

    def _flush(self) -> None:
        if self._writer is None and (message := self._session.next_response()) is not None:
            self._writer = asyncio.create_task(self._write(message))

    async def _write(self, message: bytes | None) -> None:
        try:
            while message is not None:
                await self._context.write(message)
                message = None if self._draining else self._session.next_response()
        except grpc.aio.BaseError:
            pass  # the client has gone; reading ends as well
        except Exception:
            _log.exception("stream of %s ends", self._context.peer())
            await self._context.abort(grpc.StatusCode.INTERNAL, "the server failed to make a response")
        finally:
            self._writer = None
            if self._draining and self._reader is not None:
                self._reader.cancel()
