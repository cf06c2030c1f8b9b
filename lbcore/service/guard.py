"""Who may call what: each call is judged by the certificate of its connection, and open ones again and again.

TLS itself lets a connection live on when its certificate is not trusted any more. Here a call that begins is refused by
then, and one that is open ends at the next look. xDS streams are asked for by the xDS server, which ends them between
two responses; every other method is wrapped. Source: gRPC has no hook for that in Python (interceptors see no peer).
"""

from __future__ import annotations

import asyncio
import datetime
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from cryptography import x509

from lbcore.access import EVERYTHING, Action, Grant, Permit, permit_of
from lbcore.errors import NotPermitted
from lbcore.service.certificates import ServerCertificates
from lbcore.service.identity import identity_of
from lbcore.service.permission import permitted
from lbcore.service.picker import SERVICE_NAME as PICKER
from lbcore.service.registry import SERVICE_NAME as REGISTRY
from lbcore.xds.client_status import SERVICE as CSDS
from lbcore.xds.load_reports import SERVICE as LRS
from lbcore.xds.server import JUDGED_BY_SERVER

__all__ = ["Guard"]

logger = logging.getLogger(__name__)

_ACTIONS: dict[str, Action] = {PICKER: "pick", REGISTRY: "register", CSDS: "status", LRS: "xds"}
_MOST_KNOWN = 100_000  # certificates that were read, so that each is read once

_Certificate = tuple[x509.Certificate, list[x509.Certificate], str]


@dataclass(slots=True)
class _OpenCall:
    context: Any
    permit: Permit
    ended: str = ""  # why


class Guard:
    """Judges by certificates and grants. `grants` may be replaced; none: whoever is let in may do all.

    `refusals` counts calls that were refused or ended.
    """

    def __init__(self, certificates: ServerCertificates, grants: tuple[Grant, ...] = ()) -> None:
        self._certificates = certificates
        self.grants = grants
        self.refusals = 0
        self._read: dict[bytes, _Certificate] = {}
        self._open: dict[asyncio.Task[Any], _OpenCall] = {}

    def permit(self, context: Any) -> Permit:
        """What the caller may do. Raises `NotPermitted`, if that is nothing."""
        leaf, between, identity = self._certificate(*_certificates(context))
        trust = self._certificates.trust
        if trust is None:
            return EVERYTHING
        if why := trust.refusal(leaf, between, datetime.datetime.now(datetime.timezone.utc)):
            raise self._refused(identity, why)
        if not self.grants:
            return EVERYTHING
        if not identity:
            raise self._refused(identity, "the certificate has neither one SPIFFE id nor one DNS name")
        permit = permit_of(identity, self.grants)
        if permit is None:
            raise self._refused(identity, f"nothing is granted to {identity}")
        return permit

    def identity(self, context: Any) -> str:
        """Who the caller is, if its certificate says so."""
        return self._certificate(*_certificates(context))[2]

    def interceptor(self, *, load_reports: bool = False) -> grpc.aio.ServerInterceptor[Any, Any]:
        """For the server: wraps the methods that are not xDS; and load reports, where no xDS server judges them."""
        return _Interceptor(self, JUDGED_BY_SERVER - {LRS} if load_reports else JUDGED_BY_SERVER)

    def look_again(self) -> None:
        """Ends every open call, but xDS streams, whose caller may not make it any more."""
        for task, call in list(self._open.items()):
            if why := self._why_no_more(call):
                call.ended = why
                task.cancel()

    def _why_no_more(self, call: _OpenCall) -> str:
        """Why an open call has to end; empty if it may go on."""
        try:
            return "" if self.permit(call.context) == call.permit else "what is granted has changed: call again"
        except NotPermitted as refused:
            return str(refused)

    @asynccontextmanager
    async def call(self, context: Any, action: Action | None) -> AsyncIterator[None]:
        """Around a call: it begins if its caller may make it, and ends as soon as that is so no more."""
        try:
            permit = self.permit(context)
            if action is not None and not permit.may(action):
                raise NotPermitted(f"{action} is not granted")
        except NotPermitted as wrong:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(wrong))
            raise
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = _OpenCall(context, permit)
        try:
            with permitted(permit):
                yield
        except asyncio.CancelledError:
            if why := self._open[task].ended:
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, why)
            raise
        finally:
            del self._open[task]

    def _certificate(self, leaf: bytes, between: bytes) -> _Certificate:
        key = leaf + between
        known = self._read.get(key)
        if known is None:
            if len(self._read) >= _MOST_KNOWN:
                self._read.clear()
            certificate = x509.load_pem_x509_certificate(leaf)
            others = x509.load_pem_x509_certificates(between) if between else []
            known = self._read[key] = certificate, others, identity_of(certificate)
        return known

    def _refused(self, identity: str, why: str) -> NotPermitted:
        self.refusals += 1
        logger.warning("%s is refused: %s", identity or "a client without an identity", why)
        return NotPermitted(why)


def _certificates(context: Any) -> tuple[bytes, bytes]:
    """The caller's certificate, and those of the authorities that it has sent along, in PEM."""
    found = context.auth_context()
    return b"".join(found.get("x509_pem_cert", ())), b"".join(found.get("x509_pem_cert_chain", ()))


class _Interceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs alone
    def __init__(self, guard: Guard, judged_elsewhere: frozenset[str]) -> None:
        self._guard = guard
        self._judged_elsewhere = judged_elsewhere

    async def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(details)
        service = details.method.split("/")[1]
        if handler is None or service in self._judged_elsewhere:
            return handler
        kind = f"{_ARITY[handler.request_streaming]}_{_ARITY[handler.response_streaming]}"
        behaviour = getattr(handler, kind)
        wrap = self._generator if inspect.isasyncgenfunction(behaviour) else self._function
        return handler._replace(**{kind: wrap(behaviour, _ACTIONS.get(service))})

    def _function(self, behaviour: Callable[..., Awaitable[Any]], action: Action | None) -> Callable[..., Any]:
        async def call(request: Any, context: Any) -> Any:
            async with self._guard.call(context, action):
                return await behaviour(request, context)

        return call

    def _generator(self, behaviour: Callable[..., AsyncIterator[Any]], action: Action | None) -> Callable[..., Any]:
        async def generate(request: Any, context: Any) -> AsyncIterator[Any]:
            async with self._guard.call(context, action):
                async for each in behaviour(request, context):
                    yield each

        return generate


_ARITY = {False: "unary", True: "stream"}
