"""`EtcdBoard`: what servers tell each other of their health checks, under one lease for each server.

    PREFIX/health/members/MEMBER                     the services that it checks
    PREFIX/health/verdicts/MEMBER/SERVICE/ADDRESS    what it has found

All of a server's keys are under its lease and end together, and nothing but these: losing a server loses no
registration. A server that etcd was out of reach for, for longer than the lease, counts as alone; when etcd is back it
joins anew, under another lease, so that what it said before is never taken for what it finds now.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, unquote

import msgspec
from aetcd import rpc
from async_timeout import timeout as time_limit

from lbcore.board import BoardReader, Verdict
from lbcore.errors import StoreFailed
from lbcore.etcd.connection import EtcdConnection
from lbcore.etcd.following import Pair, Step
from lbcore.model import CheckedHealth
from lbcore.registration import RegistrySettings
from lbcore.registry.etcd.leases import KEPT, EtcdLeases

__all__ = ["EtcdBoard"]

logger = logging.getLogger(__name__)

_BATCH = 100  # verdicts a transaction; etcd takes 128 operations
_GATHERING = 0.02  # seconds that verdicts wait for those that come with them
_MOST_REASON = 1000  # characters of a verdict's reason that others are told: a batch is to fit into a transaction
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 3.0  # seconds before joining is tried again, doubling
_LEAVING = 1.0  # seconds that a server takes at most to leave
_NOBODY: Mapping[str, Mapping[str, str]] = MappingProxyType({})
_NOTHING: Mapping[str, Mapping[str, Verdict]] = MappingProxyType({})


class EtcdBoard:
    """Reads by the steps that the registry follows, writes by itself: `run` until cancelled."""

    def __init__(self, prefix: str, settings: RegistrySettings) -> None:
        self.me = secrets.token_hex(8)
        self.owners = settings.check_owners
        self.patience = settings.checker_ttl
        self._members_prefix = f"{prefix}/health/members/".encode()
        self._verdicts_prefix = f"{prefix}/health/verdicts/".encode()
        self._members: dict[str, Mapping[str, str]] = {}
        self._verdicts: dict[str, dict[str, dict[str, Verdict]]] = {}  # by service, address and member
        self._readers: list[BoardReader] = []
        self._services: dict[str, str] = {}
        self._lease = 0  # 0: this server is no member
        self._unsaid: dict[tuple[str, str], CheckedHealth | None] = {}
        self._to_say = asyncio.Event()
        self._read = asyncio.Event()
        self._offered = asyncio.Event()

    def open(self, connection: EtcdConnection, leases: EtcdLeases) -> None:
        """Uses these from now on."""
        self._connection = connection
        self._leases = leases

    @property
    def members(self) -> Mapping[str, Mapping[str, str]]:
        """See `lbcore.board.Board.members`."""
        return {**self._members, self.me: self._services} if self._lease else _NOBODY

    def verdicts(self, service: str) -> Mapping[str, Mapping[str, Verdict]]:
        """See `lbcore.board.Board.verdicts`."""
        return self._verdicts.get(service, _NOTHING)

    def follow(self, reader: BoardReader) -> None:
        """See `lbcore.board.Board.follow`."""
        self._readers.append(reader)

    def offer(self, services: Mapping[str, str]) -> None:
        """See `lbcore.board.Board.offer`."""
        if services != self._services:
            self._services = dict(services)
            self._offered.set()
            self._to_say.set()

    def say(self, service: str, address: str, found: CheckedHealth | None) -> None:
        """See `lbcore.board.Board.say`."""
        if self._lease:
            self._unsaid[service, address] = found
            self._to_say.set()

    def apply(self, step: Step) -> None:
        """Takes a step of a follower of all keys of the registry."""
        members_changed = False
        changed: dict[str, set[str]] = {}
        for raw, pair in step.changes.items():
            if raw.startswith(self._members_prefix):
                members_changed |= self._take_member(raw[len(self._members_prefix) :].decode(errors="replace"), pair)
            elif raw.startswith(self._verdicts_prefix):
                parts = raw[len(self._verdicts_prefix) :].decode(errors="replace").split("/")
                if len(parts) == 3:
                    member, service, address = map(unquote, parts)
                    self._take_verdict(member, service, address, pair)
                    changed.setdefault(service, set()).add(address)
        self._read.set()
        for reader in self._readers:
            if members_changed:
                reader.members_changed()
            if changed:
                reader.verdicts_changed(changed)

    async def run(self) -> None:
        """Is a member as soon as it has something to check, as far as etcd lets it; leaves at once when cancelled."""
        await self._read.wait()
        await self._offered.wait()
        wait = _FIRST_WAIT
        while True:
            lease = 0
            try:
                lease = await self._leases.grant(self.patience / KEPT)
                await self._be_member(lease)
            except StoreFailed as wrong:
                logger.warning("health checks are not shared: %s", wrong)
            if lease and lease == self._lease:  # it may be this server that was away, not etcd: it joins anew at once
                wait = _FIRST_WAIT
                continue
            if self._lease:
                self._take_lease(0)
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)

    async def _be_member(self, lease: int) -> None:
        """Joins, and says what there is to say until the lease is lost. Raises `StoreFailed`."""
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._put_member(lease)
            if self._lease:  # whatever this server said under another lease is said anew
                self._take_lease(0)
            self._take_lease(lease)
            tasks = [asyncio.ensure_future(self._keep(lease)), asyncio.ensure_future(self._keep_saying(lease))]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with suppress(StoreFailed, asyncio.TimeoutError):  # it ends by itself
                async with time_limit(_LEAVING):
                    await self._leases.revoke(lease)

    def _take_lease(self, lease: int) -> None:
        self._lease = lease
        self._unsaid.clear()
        for reader in self._readers:
            reader.members_changed()

    async def _keep(self, lease: int) -> None:
        """Keeps the lease until it is lost, or etcd was out of reach for as long as it lasts."""
        loop = asyncio.get_running_loop()
        heard = loop.time()
        while True:
            await asyncio.sleep(self.patience / 3)
            asked = loop.time()
            try:
                async with time_limit(heard + self.patience - asked):
                    kept = await self._leases.keep(lease)
            except asyncio.TimeoutError:
                raise StoreFailed(f"etcd has not been heard of for {self.patience:g} s") from None
            except StoreFailed:
                if loop.time() - heard >= self.patience:
                    raise
            else:
                if not kept:
                    raise StoreFailed("this server's lease has run out")
                heard = asked

    async def _keep_saying(self, lease: int) -> None:
        offered = self._services
        while True:
            await self._to_say.wait()
            await asyncio.sleep(_GATHERING)
            self._to_say.clear()
            if offered is not self._services:
                offered = self._services
                await self._insist(partial(self._put_member, lease))
            while self._unsaid:
                some = [self._unsaid.popitem() for _ in range(min(_BATCH, len(self._unsaid)))]
                request = rpc.TxnRequest(success=[self._said(lease, *key, found) for key, found in some])
                await self._insist(partial(self._connection.call, "KV", "Txn", request))

    async def _insist(self, call: Callable[[], Awaitable[object]]) -> None:
        """Tries again while the lease may still be alive; `_keep` says when it is not."""
        while True:
            try:
                await call()
            except StoreFailed as wrong:  # noqa: PERF203 - the wait is long beside it
                if "lease not found" in str(wrong):
                    raise
                logger.warning("health checks: what was found is not told yet: %s", wrong)
                await asyncio.sleep(_FIRST_WAIT)
            else:
                return

    async def _put_member(self, lease: int) -> None:
        value = msgspec.json.encode({"host": socket.gethostname(), "services": self._services})
        await self._connection.call(
            "KV", "Put", rpc.PutRequest(key=self._members_prefix + self.me.encode(), value=value, lease=lease)
        )

    def _said(self, lease: int, service: str, address: str, found: CheckedHealth | None) -> Any:
        raw = self._verdicts_prefix + f"{self.me}/{quote(service, safe='')}/{quote(address, safe='')}".encode()
        if found is None:
            return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=raw))
        told = replace(found, reason=found.reason[:_MOST_REASON])
        return rpc.RequestOp(request_put=rpc.PutRequest(key=raw, value=msgspec.json.encode(told), lease=lease))

    def _take_member(self, member: str, pair: Pair | None) -> bool:
        before = self._members.pop(member, None)
        if pair is not None:
            try:
                value = msgspec.json.decode(pair.value, type=_Member)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as wrong:
                logger.error("%s in etcd is no server that checks: %s", member, wrong)
            else:
                self._members[member] = value.services
        return self._members.get(member) != before

    def _take_verdict(self, member: str, service: str, address: str, pair: Pair | None) -> None:
        verdicts = self._verdicts.setdefault(service, {}).setdefault(address, {})
        verdicts.pop(member, None)
        if pair is not None:
            try:
                found = msgspec.json.decode(pair.value, type=CheckedHealth)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as wrong:
                logger.error("what %s says of %s in etcd is no verdict: %s", member, address, wrong)
            else:
                verdicts[member] = Verdict(found, pair.modified)
        if not verdicts:
            del self._verdicts[service][address]
            if not self._verdicts[service]:
                del self._verdicts[service]


class _Member(msgspec.Struct):
    """What a server's key says."""

    services: dict[str, str]
