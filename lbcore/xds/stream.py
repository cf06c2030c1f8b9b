"""One gRPC stream: carries requests into a `Session` and its responses out.

The handler's own task reads. A write needs none: it begins where the response is made, in the same turn of the event
loop, and the next one when gRPC has taken it. So an idle stream costs one task, a push none, and a client that does not
read has one response pending while the newest state waits in the session.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Generic

import grpc
import grpc.aio
from grpc.aio import EOF  # type: ignore[attr-defined]  # grpc-stubs lacks it

from lbcore.access import Permit
from lbcore.errors import NotPermitted
from lbcore.xds.resources import Catalog
from lbcore.xds.session import ProtocolError, Session
from lbcore.xds.status import ClientStatus
from lbcore.xds.subscription import RequestT
from lbcore.xds.write import Write

__all__ = ["Access", "Context", "Stream"]

Context = grpc.aio.ServicerContext[bytes, bytes]

Access = Callable[[Context], Permit | None]
"""What the client of a call may see, None for everything; raises `NotPermitted` if that is nothing."""

_log = logging.getLogger(__name__)


class Stream(Generic[RequestT]):
    """A stream while it is open.

    Arguments:
        read: reads a request off the wire; raises `ProtocolError`.
    """

    __slots__ = ("_alarm", "_context", "_ending", "_read", "_reader", "_session", "_write")

    def __init__(self, session: Session[RequestT], read: Callable[[bytes], RequestT], context: Context) -> None:
        self._session = session
        self._read = read
        self._context = context
        self._reader: asyncio.Task[None] | None = None
        self._write: Write | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._ending: tuple[grpc.StatusCode, str] | None = None

    async def serve(self) -> None:
        """Serves until the client half-closes or goes away.

        Ends the stream with INVALID_ARGUMENT at what cannot be read, with PERMISSION_DENIED at a node that the client
        may not be, with INTERNAL at a failure of our own.
        """
        self._reader = asyncio.current_task()
        try:
            while (message := await self._context.read()) is not EOF:
                self._receive(message)
                self._flush()
        except ProtocolError as error:
            await self._context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except NotPermitted as error:
            await self._context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
        except asyncio.CancelledError:
            if self._ending is None:
                raise
            await self._context.abort(*self._ending)
        finally:
            if self._write is not None:
                self._write.cancel()
                self._write = None
            if self._alarm is not None:
                self._alarm.cancel()

    def advance(self, catalog: Catalog) -> None:
        """The resources are now these; writes what is due because of that. A failure ends this stream only."""
        try:
            self._session.advance(catalog)
        except Exception as error:
            self._fail(error)
        self._flush()

    def status(self, method: str) -> ClientStatus:
        """How far the client is; `method` is the gRPC method that it called."""
        return ClientStatus(self._session.node, method, self._context.peer(), self._session.types)

    def drain(self) -> None:
        """Ends the stream with UNAVAILABLE: the client keeps what it has and connects again."""
        self._end(grpc.StatusCode.UNAVAILABLE, "draining: this server is about to stop")

    def judge(self, access: Access) -> None:
        """Ends the stream if its client may not have it any more, or is to see something else."""
        try:
            if access(self._context) != self._session.permit:
                self._end(grpc.StatusCode.UNAVAILABLE, "what is granted has changed: connect again")
        except NotPermitted as refused:
            self._end(grpc.StatusCode.PERMISSION_DENIED, str(refused))

    def _receive(self, message: bytes) -> None:
        try:
            self._session.receive(self._read(message))
        except (ProtocolError, NotPermitted):
            raise
        except Exception as error:
            self._fail(error)

    def _flush(self) -> None:
        if self._write is not None or self._ending is not None:
            return
        try:
            message = self._session.next_response()
        except Exception as error:
            self._fail(error)
            return
        if message is not None:
            self._write = Write(self._context.write(message), self._written)
            self._write.proceed()
        if self._write is None:
            self._set_alarm()

    def _set_alarm(self) -> None:
        due = self._session.wakes_at
        if due is None and self._alarm is None:
            return
        if self._alarm is not None and self._alarm.when() != due:
            self._alarm.cancel()
            self._alarm = None
        if self._alarm is None and due is not None and self._ending is None:
            self._alarm = asyncio.get_running_loop().call_at(due, self._wake)

    def _wake(self) -> None:
        self._alarm = None
        try:
            self._session.wake()
        except Exception as error:
            self._fail(error)
        self._flush()

    def _written(self, succeeded: bool) -> None:
        self._write = None
        if self._ending is not None:
            self._cancel_reader()
        elif succeeded:  # else reading ends as well
            self._flush()

    def _fail(self, error: Exception) -> None:
        _log.error("the stream of %s ends", self._context.peer(), exc_info=error)
        self._end(grpc.StatusCode.INTERNAL, "failed to make a response")

    def _end(self, code: grpc.StatusCode, details: str) -> None:
        self._ending = code, details
        if self._write is None:  # else after the response that is being sent: gRPC cannot end a stream inside of one
            self._cancel_reader()

    def _cancel_reader(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
