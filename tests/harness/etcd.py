"""The real etcd as a child process, on ports of its own that it keeps over restarts. From Debian's etcd-server."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import grpc
import pytest
import trustme
from aetcd import rpc

from tests.harness.ports import free_port
from tests.harness.process import Process, wait_until

__all__ = ["Etcd", "EtcdCluster", "needs_etcd", "secured_etcd"]

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
        self._password = ""
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

    def put(self, key: str, value: str | bytes) -> int:
        """Writes a key, and returns the revision."""
        content = value.encode() if isinstance(value, str) else value
        with self._channel() as channel:
            request = rpc.PutRequest(key=key.encode(), value=content)
            response = rpc.KVStub(channel).Put(request, timeout=30, metadata=self._login(channel))
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

    def ask_for_password(self, password: str) -> None:
        """Lets nobody in any more but `root` with this password."""
        with self._channel() as channel:
            stub = rpc.AuthStub(channel)
            stub.UserAdd(rpc.AuthUserAddRequest(name="root", password=password), timeout=30)
            stub.RoleAdd(rpc.AuthRoleAddRequest(name="root"), timeout=30)
            stub.UserGrantRole(rpc.AuthUserGrantRoleRequest(user="root", role="root"), timeout=30)
            stub.AuthEnable(rpc.AuthEnableRequest(), timeout=30)
        self._password = password

    def _login(self, channel: grpc.Channel) -> tuple[tuple[str, str], ...]:
        if not self._password:
            return ()
        request = rpc.AuthenticateRequest(name="root", password=self._password)
        return (("token", rpc.AuthStub(channel).Authenticate(request, timeout=30).token),)

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


@contextmanager
def secured_etcd(folder: Path) -> Iterator[tuple[Etcd, str]]:
    """One that asks for a certificate and for the password `s3cret` of `root`, and a URL's options for a certificate;
    the first of them names the authority."""
    authority = trustme.CA()
    server, client = authority.issue_cert("127.0.0.1", "localhost"), authority.issue_cert("client@lbcore")
    files = {name: folder / f"etcd-{name}" for name in ("ca", "cert", "key", "client_cert", "client_key")}
    authority.cert_pem.write_to_path(files["ca"])
    server.cert_chain_pems[0].write_to_path(files["cert"])
    server.private_key_pem.write_to_path(files["key"])
    client.cert_chain_pems[0].write_to_path(files["client_cert"])
    client.private_key_pem.write_to_path(files["client_key"])
    with Etcd(tls=(files["ca"], files["cert"], files["key"])) as etcd:
        etcd.ask_for_password("s3cret")
        yield etcd, f"ca_file={files['ca']}&cert_file={files['client_cert']}&key_file={files['client_key']}"


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
