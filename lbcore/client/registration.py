"""`Registration`: this program serves that service, said for as long as the program runs."""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import grpc

from lbcore.client.agent import DEFAULT_TTL, RegistryAgent
from lbcore.client.messages import DEFAULT_TARGET
from lbcore.model import Endpoint, Health, LoadReport, Locality
from lbcore.registration import Announcement, check_announcement, lease_ttl
from lbcore.validation import number

__all__ = ["Registration"]


class Registration:
    """Announces that `address` serves `service`, from entering the context (or `start`) to leaving it (or `stop`).

        with Registration("web", "10.0.0.1:80"):
            serve()

        async with Registration("web", "10.0.0.1:80", weight=2, locality="eu/a") as registration:
            await serve()

    A thread keeps it alive, so the program may be of threads or of asyncio; it is announced again when the registry
    restarts or forgot it. On leaving, and on the interpreter's normal exit, it drains: for `drain_time` seconds the
    endpoint shows as DRAINING, takes no new requests and may finish those it has, then it is gone. A program that is
    killed is gone when its lease of `ttl` seconds has run out.

    Args:
        service, address, weight, locality, priority, hostname, metadata: see `lbcore.Endpoint`.
        target: where the registry is.
        ttl: seconds, 0.1 to 3600.
        drain_time: seconds.
        wait: seconds to wait at the start for the registry to confirm; where it does not, the program goes on and so
            do the attempts. `registered` tells.
        agent: one that several registrations share, and with it one lease; `target` and `ttl` are then the agent's.

    Raises `InvalidSetting` naming the field, here or at the start.
    """

    def __init__(
        self,
        service: str,
        address: str,
        *,
        weight: int = 1,
        locality: Locality | str = "",
        priority: int = 0,
        health: Health = Health.UNKNOWN,
        hostname: str = "",
        metadata: Mapping[str, Any] | None = None,
        target: str = DEFAULT_TARGET,
        ttl: float = DEFAULT_TTL,
        drain_time: float = 5.0,
        wait: float = 5.0,
        agent: RegistryAgent | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self.service = service
        self.endpoint = Endpoint(
            address,
            weight=weight,
            locality=locality,
            priority=priority,
            health=health,
            hostname=hostname,
            metadata=metadata or {},
        )
        check_announcement(Announcement(service, self.endpoint))
        self.drain_time = number(drain_time, "drain_time", 0.0)
        self._target, self._ttl = target, lease_ttl(ttl)
        self._credentials = credentials
        self._limit = number(wait, "wait", 0.0)
        self._shared = agent
        self._agent: RegistryAgent | None = None
        self._stopping = threading.Lock()
        self._stop_now = threading.Event()

    @property
    def registered(self) -> bool:
        """Whether the registry has it, as far as is known."""
        return self._agent is not None and self._agent.registered

    @property
    def lease(self) -> int:
        """The lease's id; 0 where there is none now."""
        return self._agent.lease if self._agent is not None else 0

    def start(self) -> Registration:
        """Announces it. Raises `InvalidSetting`."""
        agent = self._shared or RegistryAgent(self._target, ttl=self._ttl, credentials=self._credentials)
        self._agent = agent
        try:
            agent.announce(self.service, self.endpoint, wait=self._limit)
        except BaseException:
            self._end(agent)
            raise
        atexit.register(self.stop)
        return self

    def report(self, *, health: Health | None = None, load: LoadReport | None = None) -> None:
        """Says how this endpoint fares, with the next message."""
        if self._agent is not None:
            self._agent.report(self.service, self.endpoint.address, health=health, load=load)

    def stop(self, *, drain: bool = True) -> None:
        """Drains and withdraws it. A second call, from another thread, with `drain=False` cuts the drain short."""
        if not drain:
            self._stop_now.set()
        with self._stopping:
            agent, self._agent = self._agent, None
            if agent is None:
                return
            if self.drain_time and drain and agent.lease:
                agent.report(self.service, self.endpoint.address, health=Health.DRAINING, wait=1.0)
                self._stop_now.wait(self.drain_time)
            agent.withdraw(self.service, self.endpoint.address, wait=min(self._limit, 2.0))
            self._end(agent)
        atexit.unregister(self.stop)

    def _end(self, agent: RegistryAgent) -> None:
        self._agent = None
        if agent is not self._shared:
            agent.close(wait=1.0)

    def __enter__(self) -> Registration:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Registration:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)
