"""Everything that the registry stands on fails, one after the other, while a real Envoy is under load.

Three members of etcd, two replicas of `lbcore serve` that share health checks, one Envoy that knows both replicas,
backends that announce themselves. `python -m bench.registry_outages` runs it at full length.
"""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lbcore.client import RegistryAgent, RegistryClient
from lbcore.errors import LbError
from lbcore.model import Endpoint
from tests.harness.backends import HttpBackends
from tests.harness.envoy import Envoy
from tests.harness.etcd import Etcd, EtcdCluster
from tests.harness.ports import free_port
from tests.harness.process import Process, wait_until
from tests.harness.service import LBCORE, ROOT, LbcoreService
from tests.harness.traffic import HttpTraffic

__all__ = ["Outages", "Report"]

LIMIT = 60.0  # seconds for each step
TTL = 6.0
CHECK = {"http": {}, "interval": "0.5s", "timeout": "3s"}


@dataclass
class Report:
    """What became of it: requests, those that failed, and how long each step took in seconds."""

    requests: int = 0
    failures: list[str] = field(default_factory=list)
    steps: dict[str, float] = field(default_factory=dict)


class Outages:
    """The whole of it, running when made; `running` ends it."""

    def __init__(self, folder: Path, running: ExitStack) -> None:
        self.report = Report()
        self._running = running
        self.etcd = running.enter_context(EtcdCluster())
        self.ingress = f"127.0.0.1:{free_port()}"
        self.replicas = [self._replica(folder / name) for name in ("a", "b")]
        self.backends = running.enter_context(HttpBackends(["127.0.0.1"] * 4))
        self.agents = {address: self._agent(address) for address in self.backends.addresses}
        self.envoy = running.enter_context(Envoy(self._bootstrap()))
        wait_until(lambda: "ingress" in self.envoy.listeners(), "the listener", LIMIT)
        wait_until(lambda: self.hosts() == set(self.agents), "the endpoints in Envoy", LIMIT)
        self.load = running.enter_context(HttpTraffic(self.ingress, pause=0.005))

    def run(self, *, partition: float, registrations: int) -> Report:
        """All the outages. `partition`: seconds that etcd is cut off; `registrations`: how many there are by then."""
        living = set(self.agents)
        with self._step(f"{registrations} registrations in bulk"):
            bulk = self._register_in_bulk(registrations)
        with self._step("one member of etcd killed, and registrations go on"):
            self.etcd.members[0].kill()
            extra = self.backends.add("127.0.0.1")
            self.agents[extra] = self._agent(extra)
            living.add(extra)
            self._expect(living)
        with self._step("the member back"):
            self.etcd.members[0].restart()
        with self._step(f"etcd cut off for {partition:g} s"):
            self._cut_off_etcd(partition, living)
        with self._step("a replica stopped while etcd compacts its history away"):
            self._compact_under_a_stopped_watch()
        with self._step("a replica killed"):
            self.replicas[0].end(signal.SIGKILL)
            self._expect(living)
        with self._step("the replica back"):
            self.replicas[0].restart()
            self._expect(living)
        with self._step("a registering agent killed, its lease runs out"):
            killed = self.backends.addresses[0]
            self.agents.pop(killed).signal(signal.SIGKILL)
            living.discard(killed)
            wait_until(lambda: self.hosts() == living, "the end of its lease", LIMIT)
        with self._step("all of etcd killed and back"):
            for member in self.etcd.members:
                member.kill()
            self._expect(living)
            for member in self.etcd.members:
                member.start()
            for member in self.etcd.members:
                member.wait_until_it_answers()
        with self._step("both replicas know all that is registered"):
            for replica in self.replicas:
                wait_until(lambda replica=replica: self._count(replica) == registrations + len(living), "all", LIMIT)  # type: ignore[misc]
                wait_until(lambda replica=replica: b"registry" not in _stale(replica), "no staleness", LIMIT)  # type: ignore[misc]
            self._expect(living)
        removed = self.envoy.stats("cluster_manager.cluster_removed")["cluster_manager.cluster_removed"]
        assert removed <= 1, "clusters other than that of the step that ended it itself"
        bulk.close()
        self.report.failures = list(self.load.failures)
        self.report.requests = self.load.mark()
        return self.report

    def hosts(self) -> set[str]:
        """What Envoy has of the service."""
        return set(self.envoy.hosts("web"))

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        begun = time.monotonic()
        yield
        assert self.load.failures == [], (what, self.load.failures[:3])
        self.report.steps[what] = time.monotonic() - begun

    def _expect(self, addresses: set[str]) -> None:
        """Envoy has exactly these, and each of them gets requests."""
        wait_until(lambda: self.hosts() == addresses, f"{sorted(addresses)} in Envoy", LIMIT)
        mark = self.load.mark()
        wait_until(lambda: self.load.since(mark).keys() >= addresses, "requests to each of them", LIMIT)

    def _register_in_bulk(self, count: int) -> RegistryAgent:
        agent = RegistryAgent(self._target, ttl=30.0)
        for n in range(count):
            agent.announce(f"bulk-{n % 100}", Endpoint(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}:80"), wait=0.0)
        for replica in self.replicas:
            wait_until(lambda replica=replica: self._count(replica) == count + len(self.agents), "all of them", LIMIT)  # type: ignore[misc]
        return agent

    def _cut_off_etcd(self, seconds: float, living: set[str]) -> None:
        for member in self.etcd.members:
            member.process.signal(signal.SIGSTOP)
        ends = time.monotonic() + seconds
        wait_until(lambda: all(b"registry" in _stale(each) for each in self.replicas), "staleness", LIMIT)
        while time.monotonic() < ends:
            assert self.hosts() == living
            time.sleep(0.1)
        for member in self.etcd.members:
            member.process.signal(signal.SIGCONT)
        for replica in self.replicas:
            wait_until(lambda replica=replica: b"registry" not in _stale(replica), "no staleness", LIMIT)  # type: ignore[misc]
        self._expect(living)

    def _compact_under_a_stopped_watch(self) -> None:
        stopped, other = self.replicas
        stopped.process.signal(signal.SIGSTOP)
        try:
            with RegistryAgent(other.grpc, ttl=30.0) as agent:
                agent.announce("while-away", Endpoint("10.0.0.1:80"), wait=20.0)
                wait_until(lambda: "while-away" in _services(other), "the announcement", LIMIT)
                self._answering.compact()
        finally:
            stopped.process.signal(signal.SIGCONT)
        for replica in self.replicas:
            wait_until(lambda replica=replica: "while-away" not in _services(replica), "its end", LIMIT)  # type: ignore[misc]

    @property
    def _answering(self) -> Etcd:
        return self.etcd.members[1]

    @property
    def _target(self) -> str:
        return "ipv4:" + ",".join(replica.grpc for replica in self.replicas)

    def _replica(self, folder: Path) -> LbcoreService:
        folder.mkdir()
        listener = {"name": "ingress", "address": self.ingress, "routes": [{"prefix": "/", "service": "web"}]}
        registry = {"store": f"etcd://{self.etcd.addresses}/lbcore", "checker_ttl": "2s"}
        web = {"health_check": {**CHECK, "checked_by": "service"}}
        config = {"services": {"web": web}, "listeners": [listener], "registry": registry}
        return self._running.enter_context(LbcoreService(folder, json.dumps(config)))

    def _agent(self, address: str) -> Process:
        """`lbcore register`, a process of its own that can be killed."""
        command: list[str | Path] = [*LBCORE, "register", "web", address, "--server", self._target]
        return self._running.enter_context(
            Process([*command, "--ttl", str(TTL), "--drain-time", "0"], cwd=ROOT, grace=10)
        )

    def _count(self, replica: LbcoreService) -> int:
        try:
            with RegistryClient(replica.grpc) as client:
                return len(client.registrations())
        except LbError:
            return -1

    def _bootstrap(self) -> dict[str, Any]:
        bootstrap: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "envoy.yaml").read_text())
        (cluster,) = bootstrap["static_resources"]["clusters"]
        ports = [int(replica.grpc.rpartition(":")[2]) for replica in self.replicas]
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = [
            {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
            for port in ports
        ]
        return bootstrap


def _stale(replica: LbcoreService) -> bytes:
    return json.dumps(json.loads(replica.get("/ready").body)["stale"]).encode()


def _services(replica: LbcoreService) -> set[str]:
    return set(re.findall(r"^([^:]+)::", replica.get("/clusters").body.decode(), re.MULTILINE))
