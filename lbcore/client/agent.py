"""`RegistryAgent`: keeps announcements alive in the registry, from a thread of its own, until they are withdrawn.

It works for programs of threads and of asyncio alike, because it shares nothing with either. One lease covers all that
it announces; over one stream it sends what changes at once and a heartbeat every third of the lease's time to live.
When the stream breaks it opens another one, and announces everything again: to a registry that forgot it, or to another
replica, that is news; to the others it changes nothing. Where a replica hangs, its connection is given up as well: as
long as that stands, gRPC looks for no other.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Iterable, Iterator
from itertools import islice
from types import TracebackType
from typing import Any

import grpc

from lbcore.client.channel import open_channel
from lbcore.client.messages import DEFAULT_TARGET, error_of
from lbcore.errors import InvalidSetting, LbError, RemoteFailure, ServiceUnreachable
from lbcore.model import Endpoint, Health, LoadReport
from lbcore.registration import Announcement, Key, Report, check_announcement, lease_ttl
from lbcore.service.proto import registry_pb2 as pb
from lbcore.service.proto.registry_pb2_grpc import RegistryStub
from lbcore.service.registry_wire import announcement_message, key_message, report_message
from lbcore.service.wire import duration, seconds

__all__ = ["DEFAULT_TTL", "RegistryAgent"]

logger = logging.getLogger(__name__)

DEFAULT_TTL = 15.0  # seconds
_HEARTBEATS = 3  # in each time to live
_LEAST_PATIENCE = 1.0  # seconds without an answer after which a connection is given up, or half a heartbeat's interval
_MOST_PATIENCE = 4  # times as long, from the second answer in a row on that did not come
_OWN_CONNECTION = ("grpc.use_local_subchannel_pool", 1)  # not that of another channel, nor of the one before
_MOST_IN_A_MESSAGE = 500
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 2.0  # seconds before a broken stream is opened again, doubling, half of it random


class RegistryAgent:
    """Announces endpoints to the registry at `target` and keeps them there, under one lease of `ttl` seconds.

    Thread-safe. Close it, or use it as a context manager: that withdraws everything. Where the registry cannot be
    reached it goes on trying; `registered` says whether all is as announced. What a newer lease has (a second program
    with the same address) is left to it and claimed again when that ends.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        ttl: float = DEFAULT_TTL,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self.target = target
        self.ttl = lease_ttl(ttl)
        self._announced: dict[Key, Announcement] = {}
        self._unsaid: set[Key] = set()  # announcements, and below reports and withdrawals, still to be sent
        self._reports: dict[Key, Report] = {}
        self._withdrawn: set[Key] = set()
        self._healths: dict[Key, Report] = {}  # the last of each endpoint, said again with each announcement
        self._superseded: set[Key] = set()
        self._lease = 0
        self._sequence = 0
        self._wishes = 0  # counts calls that ask for something; and how many of them the registry has done
        self._done = 0
        self._refused: tuple[int, LbError] | None = None
        self._complained = False  # so that an outage is logged once
        self._patience = 1  # times what is waited for an answer: more after each that did not come
        self._closing = False
        self._changed = threading.Condition()
        self._credentials = credentials
        self._channel = open_channel(target, credentials, _OWN_CONNECTION)
        self._session: _Session | None = None
        self._thread = threading.Thread(target=self._run, name="lbcore-registry-agent", daemon=True)
        self._thread.start()

    def __enter__(self) -> RegistryAgent:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def lease(self) -> int:
        """The lease's id; 0 where there is none now."""
        return self._lease

    @property
    def registered(self) -> bool:
        """Whether the registry has confirmed everything that was asked of it, and still answers."""
        with self._changed:
            live = self._session is not None and self._session.live
            return live and self._done == self._wishes and not self._superseded

    def announce(self, service: str, endpoint: Endpoint, *, wait: float = 5.0) -> bool:
        """Says that an endpoint serves a service, from now on; once more with other settings: changes it.

        Waits at most `wait` seconds for the registry's answer and returns whether it came; without one, it goes on
        trying. Raises `InvalidSetting` naming what is refused.
        """
        announcement = Announcement(service, endpoint)
        check_announcement(announcement)
        key = announcement.key
        with self._changed:
            before = self._announced.get(key)
            self._announced[key] = announcement
            self._unsaid.add(key)
            self._withdrawn.discard(key)
            self._healths.pop(key, None)
            try:
                return self._wait(wait, refusable=True)
            except InvalidSetting:
                if self._announced.get(key) is announcement:
                    if before is None:
                        self._forget(key)
                    else:  # the registry still has it so
                        self._announced[key] = before
                raise

    def report(
        self,
        service: str,
        address: str,
        *,
        health: Health | None = None,
        load: LoadReport | None = None,
        wait: float = 0.0,
    ) -> bool:
        """Says how an announced endpoint fares; sent at once. Raises KeyError where it is not announced."""
        key = Key(service, address)
        with self._changed:
            if key not in self._announced:
                raise KeyError(key)
            before = self._reports.get(key, Report(key))
            self._reports[key] = Report(key, before.health if health is None else health, load or before.load)
            if health is not None:
                self._healths[key] = Report(key, health)
            return self._wait(wait)

    def withdraw(self, service: str, address: str, *, wait: float = 5.0) -> bool:
        """Ends an announcement; returns whether the registry answered within `wait` seconds."""
        key = Key(service, address)
        with self._changed:
            if key not in self._announced:
                return True
            self._forget(key)
            self._withdrawn.add(key)
            return self._wait(wait)

    def close(self, *, wait: float = 5.0) -> None:
        """Withdraws everything, waits at most `wait` seconds for the registry's answer, and ends.

        The thread closes the connection: gRPC's close() may wait for ever for a stream (grpc issue 20026), and whoever
        ends the program must not.
        """
        with self._changed:
            if self._closing:
                return
            self._withdrawn |= self._announced.keys()
            for key in list(self._announced):
                self._forget(key)
            if self._lease and self._withdrawn:
                self._wait(wait)
            self._closing = True
            self._changed.notify_all()
        if self._session is not None:
            self._session.end()
        self._thread.join(wait)

    def _forget(self, key: Key) -> None:
        """Ends all that there is to say of an announcement. With the lock held."""
        self._announced.pop(key, None)
        self._reports.pop(key, None)
        self._healths.pop(key, None)
        self._unsaid.discard(key)
        self._superseded.discard(key)

    def _wait(self, limit: float, *, refusable: bool = False) -> bool:
        """Asks for what is pending to be sent, and waits until it is done. With the lock held.

        Where it is `refusable`, raises what the registry says against it; other wishes are not to be lost with that.
        """
        self._wishes += 1
        wish = self._wishes

        def refusal() -> LbError | None:
            return self._refused[1] if refusable and self._refused is not None and self._refused[0] >= wish else None

        self._changed.notify_all()
        self._changed.wait_for(lambda: self._done >= wish or refusal() or self._closing, limit)
        if refused := refusal():
            raise refused
        return self._done >= wish

    def _run(self) -> None:
        pause = _FIRST_WAIT
        while (session := self._new_session()) is not None:
            try:
                self._converse(session)
            except LbError as wrong:
                self._failed(wrong)
            if session.live:
                pause, self._patience = _FIRST_WAIT, 1
                session.live = False
            if session.unanswered:
                self._patience = min(2 * self._patience, _MOST_PATIENCE)  # it may be slow alone
                self._connect_anew()
            with self._changed:
                self._changed.wait_for(lambda: self._closing, pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_WAIT)
        self._channel.close()

    def _new_session(self) -> _Session | None:
        """The next one, None at the end: `close` ends the one that there is then."""
        with self._changed:
            if self._closing:
                return None
            self._session = _Session(self)
            return self._session

    def _connect_anew(self) -> None:
        threading.Thread(target=self._channel.close, name="lbcore-registry-close", daemon=True).start()
        self._channel = open_channel(self.target, self._credentials, _OWN_CONNECTION)

    def _converse(self, session: _Session) -> None:
        """One stream, from its beginning to its end. Raises `LbError`."""
        with self._changed:
            self._unsaid = set(self._announced)
        try:
            for response in session.responses(RegistryStub(self._channel)):
                with self._changed:
                    self._received(response, session)
            raise ServiceUnreachable(f"{self.target} ended the stream")
        except grpc.RpcError as error:
            raise error_of(error, self.target, "registry") from None
        finally:
            session.end()

    def _failed(self, wrong: LbError) -> None:
        with self._changed:
            if self._closing:
                return
            if isinstance(wrong, InvalidSetting):
                self._refused = (self._wishes, wrong)
                self._changed.notify_all()
        again = self._session is not None and not self._session.live
        logger.log(logging.DEBUG if again and self._complained else logging.WARNING, "%s; trying again", wrong)
        self._complained = True

    def _received(self, response: pb.HeartbeatResponse, session: _Session) -> None:
        self._refused = None
        request, wish = session.answered()
        if response.lease_unknown:
            logger.info("%s does not know lease %d: everything is announced anew", self.target, response.lease_id)
            self._lease = 0
            self._withdrawn.clear()
            self._unsaid = set(self._announced)
            self._wishes += 1
        else:
            self._lease = response.lease_id
            self.ttl = seconds(response.ttl)
            sent = {Key(each.service, each.address) for each in request.announcements}
            self._note_superseded(sent, {Key(each.service, each.address) for each in response.superseded})
            self._withdrawn.difference_update(Key(each.service, each.address) for each in request.withdrawals)
            self._done = max(self._done, wish)
        self._changed.notify_all()

    def _note_superseded(self, sent: set[Key], keys: set[Key]) -> None:
        keys &= self._announced.keys()
        for service, address in sorted(keys - self._superseded):
            logger.warning(
                "%s of %s: a newer lease has this address; it is claimed again when that ends", address, service
            )
        self._superseded = (self._superseded - sent) | keys

    def next_request(self) -> tuple[pb.HeartbeatRequest, int]:
        """What is to be sent now, and the last wish that it fulfils. With the lock held."""
        self._sequence += 1
        request = pb.HeartbeatRequest(lease_id=self._lease, sequence=self._sequence)
        if not self._lease:
            request.ttl.CopyFrom(duration(self.ttl))
        keys = list(islice(self._unsaid, _MOST_IN_A_MESSAGE))
        claimed = [*self._superseded.difference(keys)]
        keys += random.sample(claimed, min(len(claimed), _MOST_IN_A_MESSAGE - len(keys)))  # so that each has its turn
        request.announcements.extend(announcement_message(self._announced[key]) for key in keys)
        self._unsaid.difference_update(keys)
        for key in self._healths.keys() & keys:  # an announcement takes back what was reported before it
            self._reports[key] = Report(key, self._healths[key].health, self._reports.get(key, Report(key)).load)
        if self._unsaid:  # the rest, and what may refer to it, goes with the next message
            return request, self._done
        request.reports.extend(map(report_message, self._reports.values()))
        request.withdrawals.extend(map(key_message, self._withdrawn))
        self._reports = {}
        return request, self._wishes


class _Session:
    """One stream of heartbeats: what is sent, and whether it is still answered."""

    def __init__(self, agent: RegistryAgent) -> None:
        self._agent = agent
        self.live = False  # whether the registry has answered on it
        self.unanswered = False  # whether it was given up because the registry did not
        self._sent: list[tuple[pb.HeartbeatRequest, int]] = []  # without an answer, with the wish that each fulfils
        self._told = 0  # the wish of the newest request
        self._ended = False
        self._call: Any = None

    def responses(self, stub: RegistryStub) -> Iterable[pb.HeartbeatResponse]:
        """Opens the stream."""
        self._call = stub.Heartbeat(self._requests())
        if self._ended:  # meanwhile
            self._call.cancel()
        responses: Iterable[pb.HeartbeatResponse] = self._call
        return responses

    def answered(self) -> tuple[pb.HeartbeatRequest, int]:
        """An answer has come: returns its request, and the wish that it fulfils. Raises `RemoteFailure`."""
        if not self._sent:
            raise RemoteFailure(f"{self._agent.target} answered what it was not asked")
        self.live = True
        return self._sent.pop(0)

    def end(self) -> None:
        """Ends the stream."""
        self._ended = True
        if self._call is not None:
            self._call.cancel()
        with self._agent._changed:
            self._agent._changed.notify_all()

    def _requests(self) -> Iterator[pb.HeartbeatRequest]:
        """Requests one after the other, each after the answer to the one before; from a thread of grpc's."""
        agent = self._agent
        while True:
            with agent._changed:
                interval = agent.ttl / _HEARTBEATS
                patience = max(interval / 2, _LEAST_PATIENCE) * agent._patience
                if not agent._changed.wait_for(lambda: self._ended or not self._sent, patience):
                    self.unanswered = True
                    break
                agent._changed.wait_for(self._due, interval)
                if self._ended:
                    return
                request, wish = agent.next_request()
                self._sent.append((request, wish))
                self._told = wish
            yield request
        self._call.cancel()

    def _due(self) -> bool:
        """Whether there is something to say before the next heartbeat."""
        return self._ended or self._told < self._agent._wishes or not self._told
