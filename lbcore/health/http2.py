"""HTTP/2 for checks, by h2: one stream at a time; over TLS by ALPN, else at once (RFC 9113, section 3.3)."""

from __future__ import annotations

import asyncio

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from lbcore.health.exchange import Answer, Exchanging, Request

__all__ = ["Http2Connection"]

_TYPE_AT = 3  # where a frame bears its type (RFC 9113, section 4.1)
_SETTINGS = 4  # with which every server begins (section 3.4)


class Http2Connection(Exchanging):
    """See `Connection`."""

    def __init__(self) -> None:
        super().__init__()
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self._preface = b""  # what came first, as far as it says what it is
        self._to_send = b""
        self._stream = 0
        self._heard = False
        self._going_away = False
        self._why_closed = "closed before the request"

    @property
    def reusable(self) -> bool:
        return self._transport is not None and not self._going_away and not self._transport.is_closing()

    def send(self, request: Request) -> asyncio.Future[Answer]:
        self._heard = False
        self._to_send = request.body
        waiting = self._await_answer(request)
        if not self.reusable:
            self._fail(self._why_closed, unanswered=True)
            return waiting
        try:
            self._stream = self._http.get_next_available_stream_id()
            self._http.send_headers(self._stream, _fields(request), end_stream=not request.body)
            self._send_body()
        except h2.exceptions.ProtocolError as error:
            self._fail(f"no HTTP/2: {error}")
        self._flush()
        return waiting

    # What the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._http.initiate_connection()
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        self._going_away = True
        if self._waiting is not None:
            self._fail(str(error) if error else "closed before the answer's end", unanswered=not self._heard)

    def data_received(self, data: bytes) -> None:
        if len(self._preface) < _TYPE_AT + 1:
            # h2 would wait for the megabytes that `HTTP` announces, read as the length of a frame.
            self._preface += data[: _TYPE_AT + 1]
            if len(self._preface) > _TYPE_AT and self._preface[_TYPE_AT] != _SETTINGS:
                self._fail(f"no HTTP/2: {bytes(self._preface)!r}")
                return
        try:
            for event in self._http.receive_data(data):
                self._take(event)
        except h2.exceptions.ProtocolError as error:
            # Not least an answer after GOAWAY, which h2 refuses: on a new connection it may be had.
            self._fail(f"no HTTP/2: {error}", unanswered=not self._heard)
        self._flush()

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ConnectionTerminated):
            self._going_away = True
            if event.error_code:
                self._fail(f"GOAWAY, error {int(event.error_code)}")
        elif isinstance(event, h2.events.WindowUpdated | h2.events.RemoteSettingsChanged):
            self._send_body()
        elif getattr(event, "stream_id", None) == self._stream:
            self._take_of_stream(event)

    def _take_of_stream(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            self._heard = True
            self._answer.headers = {bytes(name): bytes(value) for name, value in event.headers}
            self._answer.status = int(self._answer.headers.pop(b":status"))
        elif isinstance(event, h2.events.DataReceived):
            self._answer.take(event.data, self._body_limit)
            self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self._deliver()
        elif isinstance(event, h2.events.StreamReset):
            self._fail(f"RST_STREAM, error {int(event.error_code)}")

    def _send_body(self) -> None:
        """As much of the body as the server takes at the moment."""
        while self._to_send and self._waiting is not None:
            room = min(self._http.local_flow_control_window(self._stream), self._http.max_outbound_frame_size)
            if room <= 0:
                return
            part, self._to_send = self._to_send[:room], self._to_send[room:]
            self._http.send_data(self._stream, part, end_stream=not self._to_send)

    def _flush(self) -> None:
        if self._transport is not None and (content := self._http.data_to_send()):
            self._transport.write(content)

    def _fail(self, reason: str, *, unanswered: bool = False) -> None:
        self._why_closed = reason
        super()._fail(reason, unanswered=unanswered)


def _fields(request: Request) -> list[tuple[str, str]]:
    pseudo = [(":method", request.method), (":scheme", request.scheme)]
    pseudo += [(":authority", request.authority), (":path", request.path)]
    length = [("content-length", str(len(request.body)))] if request.body else []
    return [*pseudo, *request.headers, *length]
