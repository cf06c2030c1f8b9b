"""Records the sessions of `kubernetes_session` with a real API server, to recordings/kubernetes.json.

    python -m tests.sources.record_kubernetes BINARY "WHAT IT IS"

starts BINARY, with kube-apiserver's options, on a real etcd. What is committed was recorded with a server of
EndpointSlices made of k8s.io/apiserver v0.37.2, the library that holds kube-apiserver's lists, watches, cache, tokens
and errors, on etcd 3.4.23; kube-apiserver itself was not at hand.
"""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.test_utils import TestServer

from lbcore.source import Kubernetes
from lbcore.sources.feed import FeedBroken, Timing
from lbcore.sources.kubernetes import KubernetesFeed
from tests.harness.etcd import Etcd
from tests.harness.ports import free_port
from tests.harness.process import Process
from tests.harness.recording import Recorder
from tests.sources.kubernetes_session import SESSIONS, Cluster
from tests.xds.clients import eventually

RECORDING = Path(__file__).with_name("recordings") / "kubernetes.json"

_TOKENS = "of-admin,admin,1\nof-reader,reader,2\nof-nobody,nobody,3\n"
_POLICY = (
    {"user": "admin", "namespace": "*", "resource": "*", "apiGroup": "*"},
    {"user": "reader", "namespace": "prod", "resource": "endpointslices", "apiGroup": "discovery.k8s.io"},
)


class RealCluster(Cluster):
    """BINARY on an etcd, over TLS with a certificate of its own making. `folder` holds what it needs."""

    def __init__(self, binary: str, etcd: Etcd, folder: Path, cache: bool) -> None:
        self._etcd = etcd
        self._folder = folder
        self._port = free_port()
        self.server = f"https://localhost:{self._port}"
        self._slices = f"{self.server}/apis/discovery.k8s.io/v1/namespaces/prod/endpointslices"
        self._version = 0
        (folder / "tokens.csv").write_text(_TOKENS)
        rules = [
            {"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": s} for s in _POLICY
        ]
        (folder / "policy").write_text("".join(json.dumps(rule) + "\n" for rule in rules))
        for user in ("admin", "reader", "nobody"):
            (folder / user).write_text(f"of-{user}\n")
        self.token_file = str(folder / "reader")
        self.ca_file = str(folder / "apiserver.crt")
        self._process = Process(
            [
                binary,
                f"--etcd-servers=http://{etcd.address}",
                "--bind-address=127.0.0.1",
                f"--secure-port={self._port}",
                f"--cert-dir={folder}",
                f"--token-auth-file={folder / 'tokens.csv'}",
                "--authorization-mode=ABAC",
                f"--authorization-policy-file={folder / 'policy'}",
                "--service-account-issuer=https://localhost",
                f"--service-account-key-file={folder / 'apiserver.key'}",
                f"--service-account-signing-key-file={folder / 'apiserver.key'}",
                "--etcd-compaction-interval=0",
                f"--watch-cache={str(cache).lower()}",
            ]
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        with self._process:
            await eventually(lambda: list(self._folder.glob("apiserver.crt")) and Path(self.ca_file).read_text())
            tls = ssl.create_default_context(cafile=self.ca_file)
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls)) as session:
                self._session = session
                await self._ready()
                self.recorder = Recorder(self.server, session)
                async with TestServer(self.recorder.application()) as server:
                    self.url = str(server.make_url(""))
                    yield

    async def put(self, *slices: dict[str, Any]) -> None:
        for each in slices:
            shown = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", **each}
            name = each["metadata"]["name"]
            async with self._session.put(f"{self._slices}/{name}", json=shown, headers=self._admin) as answer:
                status, content = answer.status, await answer.json()
            if status == 404:
                async with self._session.post(self._slices, json=shown, headers=self._admin) as answer:
                    status, content = answer.status, await answer.json()
            assert status in (200, 201), content
            self._version = int(content["metadata"]["resourceVersion"])

    async def delete(self, name: str) -> None:
        async with self._session.delete(f"{self._slices}/{name}", headers=self._admin) as answer:
            assert answer.status == 200, await answer.text()

    async def bookmark(self) -> None:
        """They come about once a minute."""

    async def restart(self) -> None:
        self._process.signal(signal.SIGKILL)
        self._process.wait()
        self._process.start()
        await self._ready()

    async def compact(self) -> None:
        async with aiohttp.ClientSession() as session:
            url, request = (
                f"http://{self._etcd.address}/v3/kv/compaction",
                {"revision": self._version, "physical": True},
            )
            async with session.post(url, json=request) as answer:
                assert answer.status == 200, await answer.text()

    @property
    def _admin(self) -> dict[str, str]:
        return {"Authorization": "Bearer of-admin"}

    async def _ready(self) -> None:
        for _ in range(600):
            try:
                async with self._session.get(self._slices, headers=self._admin) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
        raise TimeoutError(self._process.report())


async def record(binary: str, what: str) -> None:
    recording: dict[str, Any] = {"server": what}
    for name, session in SESSIONS.items():
        with Etcd() as etcd, tempfile.TemporaryDirectory() as folder:
            cluster = RealCluster(binary, etcd, Path(folder), cache=name == "cached")
            async with cluster.running():
                told = await session(cluster)
                recording[name] = {"told": told, "exchanges": list(cluster.recorder.exchanges)}
                if name == "cached":
                    recording["refused"] = [await refused(cluster, user) for user in ("", "nobody")]
                    await over_tls(cluster)
    RECORDING.write_text(json.dumps(recording, indent=1) + "\n")


async def refused(cluster: RealCluster, user: str) -> dict[str, Any]:
    """What somebody is told who may not read."""
    token_file = str(Path(cluster.token_file).with_name(user)) if user else ""
    source = Kubernetes("web", url=cluster.url, namespace="prod", token_file=token_file)
    try:
        await anext(KubernetesFeed(source, Timing()).follow())
    except FeedBroken as broken:
        return {**cluster.recorder.exchanges[-1], "reason": str(broken)}
    raise AssertionError(f"{user!r} may read")


async def over_tls(cluster: RealCluster) -> None:
    """Without the recorder between: the certificate is checked, and one of nobody is refused."""
    known = Kubernetes(
        "web", url=cluster.server, namespace="prod", token_file=cluster.token_file, ca_file=cluster.ca_file
    )
    print("over TLS:", await anext(KubernetesFeed(known, Timing()).follow()))
    unknown = Kubernetes("web", url=cluster.server, namespace="prod", token_file=cluster.token_file)
    try:
        await anext(KubernetesFeed(unknown, Timing()).follow())
    except FeedBroken as broken:
        print("without its CA:", broken)


if __name__ == "__main__":
    asyncio.run(record(*sys.argv[1:]))
