"""The real etcd as a child process, on ports of its own that it keeps over restarts. From Debian's etcd-server."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import grpc
import pytest
from aetcd import rpc

from tests.harness.ports import free_port
from tests.harness.process import Process, wait_until

__all__ = ["Etcd", "EtcdCluster", "needs_etcd"]

needs_etcd = pytest.mark.skipif(shutil.which("etcd") is None, reason="no etcd here: make programs installs it as root")


class Etcd:
    """A single member. A context manager; it answers when entered.

    Arguments:
        options: more of etcd's own.
        tls: CA, certificate and key for clients, who then need a certificate of that CA themselves.
        peers: the port of each member of the cluster by its name, this one's `name` among them; this one alone.
    """

    def __init__(
        self,
        options: Sequence[str] = (),
        tls: tuple[Path, Path, Path] | None = None,
        *,
        name: str = "one",
        peers: Mapping[str, int] | None = None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="lbcore-etcd-")
        self.port = free_port()
        urls = {each: f"http://127.0.0.1:{port}" for each, port in (peers or {name: free_port()}).items()}
        self.address = f"127.0.0.1:{self.port}"
        scheme = "https" if tls else "http"
        self._tls = tls
        argv = ["etcd", "--name", name, "--data-dir", self._folder.name, "--log-level", "error"]
        argv += ["--listen-client-urls", f"{scheme}://{self.address}"]
        argv += ["--advertise-client-urls", f"{scheme}://{self.address}"]
        argv += ["--initial-cluster", ",".join(f"{each}={url}" for each, url in urls.items())]
        argv += ["--listen-peer-urls", urls[name], "--initial-advertise-peer-urls", urls[name], "--unsafe-no-fsync"]
        if tls:
            ca, certificate, key = map(str, tls)
            argv += ["--cert-file", certificate, "--key-file", key, "--trusted-ca-file", ca, "--client-cert-auth"]
        self.process = Process([*argv, *options])

    def __enter__(self) -> Etcd:
        self.start()
        try:
            self.wait_until_it_answers()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.alive:
            self.process.signal(signal.SIGCONT)
            self.process.signal(signal.SIGKILL)
        self.process.__exit__(None, None, None)
        self._folder.cleanup()

    def start(self) -> None:
        """Starts it, without waiting: a member answers when most of its cluster is there."""
        self.process.start()

    def kill(self) -> None:
        """As a crash does."""
        self.process.signal(signal.SIGKILL)
        self.process.wait()

    def stop_the_clock(self) -> None:
        """Stops it where it is; SIGCONT lets it go on. Returns when none of its threads can answer any more."""
        self.process.signal(signal.SIGSTOP)
        threads = Path(f"/proc/{self.process.pid}/task")

        def stopped() -> bool:
            with suppress(OSError):  # a thread that has just ended
                stats = [(each / "stat").read_text() for each in threads.iterdir()]
                return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)
            return False

        wait_until(stopped, "all of its threads stopped")

    def restart(self) -> None:
        """After `kill`, with its data."""
        self.process.start()
        self.wait_until_it_answers()

    def compact(self) -> None:
        """Forgets all history up to now."""
        revision = self.put("compaction", "now")
        with self._channel() as channel:
            rpc.KVStub(channel).Compact(rpc.CompactionRequest(revision=revision, physical=True), timeout=30)

    def put(self, key: str, value: str) -> int:
        """Writes a key, and returns the revision."""
        with self._channel() as channel:
            response = rpc.KVStub(channel).Put(rpc.PutRequest(key=key.encode(), value=value.encode()), timeout=30)
            revision: int = response.header.revision
            return revision

    def delete(self, key: str) -> None:
        with self._channel() as channel:
            rpc.KVStub(channel).DeleteRange(rpc.DeleteRangeRequest(key=key.encode()), timeout=30)

    def content(self) -> dict[str, str]:
        """Everything that is in it."""
        with self._channel() as channel:
            response = rpc.KVStub(channel).Range(rpc.RangeRequest(key=b"\0", range_end=b"\0"), timeout=30)
            return {each.key.decode(): each.value.decode() for each in response.kvs}

    def _channel(self) -> grpc.Channel:
        if self._tls is None:
            return grpc.insecure_channel(self.address)
        ca, certificate, key = (path.read_bytes() for path in self._tls)
        return grpc.secure_channel(self.address, grpc.ssl_channel_credentials(ca, key, certificate))

    def wait_until_it_answers(self) -> None:
        def answers() -> bool:
            if not self.process.alive:
                raise RuntimeError(f"etcd ended while starting\n{self.process.report()}")
            try:
                with self._channel() as channel:
                    rpc.KVStub(channel).Range(rpc.RangeRequest(key=b"\0"), timeout=2)
            except grpc.RpcError:
                return False
            return True

        wait_until(answers, "etcd")


class EtcdCluster:
    """Three members. A context manager; all answer when entered. `addresses` as in a URL."""

    def __init__(self) -> None:
        peers = {name: free_port() for name in ("one", "two", "three")}
        self.members = [Etcd(name=name, peers=peers) for name in peers]

    @property
    def addresses(self) -> str:
        return ",".join(member.address for member in self.members)

    def __enter__(self) -> EtcdCluster:
        try:
            for member in self.members:
                member.start()
            for member in self.members:
                member.wait_until_it_answers()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self.members:
            member.__exit__(None, None, None)
