"""A program that knows nothing of the registry, announced for as long as it runs: `lbcore register ... -- COMMAND`.

It is announced once its address accepts connections. A signal to end goes first to the registry (the endpoint drains)
and then to the program; a program that ends by itself is withdrawn at once.
"""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from types import FrameType

from lbcore.client.registration import Registration
from lbcore.errors import LbError

__all__ = ["CannotRun", "run_registered"]

logger = logging.getLogger(__name__)

_POLL = 0.1  # seconds between two looks at the program and its address
_CONNECT = 1.0  # seconds that a connection may take


class CannotRun(LbError, OSError):
    """The command cannot be started; the message says why."""


def run_registered(registration: Registration, command: Sequence[str], *, at_once: bool = False) -> int:
    """Runs a command, or (without one) only keeps the registration until a signal; returns the exit code.

    `at_once`: announce without waiting for the address to accept connections. Raises `CannotRun`, `InvalidSetting`.
    To be called in the main thread, because it handles SIGTERM and SIGINT.
    """
    return _Wrapper(registration, command).run(at_once=at_once or not command)


class _Wrapper:
    def __init__(self, registration: Registration, command: Sequence[str]) -> None:
        self._registration = registration
        self._command = command
        self._program: subprocess.Popen[bytes] | None = None
        self._signals: list[int] = []
        # A SimpleQueue, because its put() may interrupt its get() in the same thread: a handler that called Event.set()
        # could wait for ever for the lock that the main thread holds inside Event.wait().
        self._wakes: SimpleQueue[int] = SimpleQueue()

    def run(self, *, at_once: bool) -> int:
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            self._start_program()
            if at_once or self._until_it_accepts():
                self._registration.start()
                self._until_something_ends()
            return self._finish()
        finally:
            self._registration.stop(drain=False)
            if self._alive():
                self._end_program(signal.SIGTERM)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _start_program(self) -> None:
        if not self._command:
            return
        try:
            # Its own process group, so that Ctrl-C does not end it before it has drained.
            self._program = subprocess.Popen(self._command, start_new_session=True)
        except (OSError, ValueError) as wrong:
            raise CannotRun(f"cannot run {self._command[0]!r}: {getattr(wrong, 'strerror', None) or wrong}") from None

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)
        self._wakes.put(number)

    def _pause(self) -> None:
        """Waits for a moment, or until a signal comes."""
        with suppress(Empty):
            self._wakes.get(timeout=_POLL)

    def _alive(self) -> bool:
        return self._program is not None and self._program.poll() is None

    def _until_it_accepts(self) -> bool:
        while self._alive() and not self._signals:
            if accepts(self._registration.endpoint.address):
                return True
            self._pause()
        return False

    def _until_something_ends(self) -> None:
        while not self._signals and (self._program is None or self._alive()):
            self._pause()

    def _finish(self) -> int:
        if self._signals:
            self._drain()
            if self._program is None:
                return 0
            return self._end_program(self._signals[0])
        self._registration.stop(drain=False)
        return _exit_code(self._program.wait()) if self._program is not None else 0

    def _drain(self) -> None:
        """Withdraws the registration after its drain, which a second signal cuts short."""
        drain = threading.Thread(target=self._registration.stop)
        drain.start()
        while drain.is_alive():
            self._pause()
            if len(self._signals) > 1:
                self._registration.stop(drain=False)

    def _end_program(self, number: int) -> int:
        assert self._program is not None
        if self._alive():
            self._program.send_signal(number)
        told = len(self._signals)
        while self._alive():
            if len(self._signals) > told:
                self._program.send_signal(self._signals[told])
                told += 1
            self._pause()
        return _exit_code(self._program.wait())


def accepts(address: str) -> bool:
    """Whether something accepts connections at a canonical address."""
    try:
        if address.startswith("unix:"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(_CONNECT)
                probe.connect(address[len("unix:") :])
        else:
            host, _, port = address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT).close()
    except OSError:
        return False
    return True


def _exit_code(code: int) -> int:
    return code if code >= 0 else 128 - code  # as the shell has it: 128 + the signal
