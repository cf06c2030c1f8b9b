"""`make run`: three small backends and `lbcore serve examples/fleet.yaml` in front of them, until Ctrl-C.

Where one of the usual ports is taken, a free one is used instead, and said so.
"""

from __future__ import annotations

import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FLEET = Path(__file__).with_name("fleet.yaml")
HOST = "127.0.0.1"
BACKEND_PORTS = (8081, 8082, 8083)  # those of fleet.yaml
GRPC_PORT, ADMIN_PORT = 18000, 9901


class Backend(BaseHTTPRequestHandler):
    """Answers every GET with its own address."""

    def do_GET(self) -> None:
        body = "{}:{}\n".format(*self.server.server_address).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Silence: three backends behind health checks would have much to say."""


def main() -> int:
    """Runs the fleet until a signal; returns the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as running:
        try:
            ports = {port: running.enter_context(backend(port)) for port in BACKEND_PORTS}
            config = running.enter_context(configuration(ports))
            service = running.enter_context(serving(config))
            assert service.stdout is not None
            if ready := service.stdout.readline():
                show(config, *(address.partition("=")[2] for address in ready.split()[1:]))
            return service.wait()
        except KeyboardInterrupt:
            print("\nstopping")
            return 0


@contextmanager
def backend(port: int) -> Iterator[int]:
    """A backend at the port, or at a free one; gives the port it got."""
    try:
        server = ThreadingHTTPServer((HOST, port), Backend)
    except OSError:
        server = ThreadingHTTPServer((HOST, 0), Backend)
        print(f"port {port} is taken: a backend uses {server.server_port}")
    threading.Thread(target=serve_without_signals, args=(server,), daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def serve_without_signals(server: ThreadingHTTPServer) -> None:
    """Serves with signals left to the main thread: one that lands here would not interrupt its wait (signal(7))."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    server.serve_forever()


@contextmanager
def configuration(ports: Mapping[int, int]) -> Iterator[Path]:
    """fleet.yaml, or a copy of it where backends got other ports than it says."""
    if all(wanted == got for wanted, got in ports.items()):
        yield FLEET
        return
    text = FLEET.read_text()
    for wanted, got in ports.items():
        text = text.replace(f"{HOST}:{wanted}", f"{HOST}:{got}")
    with tempfile.TemporaryDirectory(prefix="lbcore-run-") as folder:
        copy = Path(folder, FLEET.name)
        copy.write_text(text)
        yield copy


@contextmanager
def serving(config: Path) -> Iterator[subprocess.Popen[str]]:
    """`lbcore serve`, drained in the end. In a session of its own, or Ctrl-C would reach it as well as this program."""
    command = [sys.executable, "-m", "lbcore", "serve", str(config)]
    command += ["--grpc", free_address(GRPC_PORT), "--admin", free_address(ADMIN_PORT)]
    service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        yield service
    finally:
        service.terminate()
        service.wait()


def free_address(port: int) -> str:
    """The port on the loopback, or port 0 where it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            print(f"port {port} is taken: the service chooses another")
            return f"{HOST}:0"
    return f"{HOST}:{port}"


def show(config: Path, grpc: str, admin: str) -> None:
    """Prints where everything is, and three commands to try."""
    python = shlex.quote(sys.executable)
    embedded = (
        "from pathlib import Path; from lbcore import Cluster; from lbcore.config import load; "
        f'web = next(each for each in load(Path("{config}")).services if each.name == "web"); '
        'print(Cluster("web", web.endpoints, policy=web.policy).pick("user-17").address)'
    )
    print(
        f"""
lbcore serves {config}
  gRPC (xDS, picker, health, reflection)  {grpc}
  admin (/ready /metrics /clusters)       http://{admin}

Three commands to try, in another shell:
  {python} -c {shlex.quote(embedded)}
  {python} -m lbcore pick web --key user-17 --server {grpc}
  curl http://{admin}/clusters

Ctrl-C stops everything.""",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
