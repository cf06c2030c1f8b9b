"""A child process with its output in files, a time limit on every wait, and an end that is certain."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

__all__ = ["Process", "wait_until"]

_POLL = 0.01  # seconds between two looks


def wait_until(condition: Callable[[], object], what: str, time_limit: float = 30.0) -> None:
    """Returns as soon as `condition()` is true. Raises `TimeoutError` naming `what` after `time_limit` seconds."""
    deadline = time.monotonic() + time_limit
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {time_limit:g} s")
        time.sleep(_POLL)


class Process:
    """A running program. Use it as a context manager: leaving it sends SIGTERM, then SIGKILL after `grace` seconds.

    Standard output and error go to files, so that a program that talks much never blocks on a full pipe.
    """

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        grace: float = 20.0,
    ) -> None:
        self.argv = [str(part) for part in argv]
        self._env = {**os.environ, **env} if env is not None else None
        self._cwd = cwd
        self._grace = grace
        self._folder = tempfile.TemporaryDirectory(prefix="lbcore-process-")
        self._stdout = Path(self._folder.name, "stdout")
        self._stderr = Path(self._folder.name, "stderr")
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Process:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._folder.cleanup()

    def start(self) -> None:
        """Starts the program; once more after it has ended, to test restarts. Output is appended."""
        with self._stdout.open("ab") as stdout, self._stderr.open("ab") as stderr:
            self._child = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=self._env, cwd=self._cwd
            )

    def stop(self) -> int:
        """Ends the program and returns its exit code (negative: the signal that ended it)."""
        if self._running.poll() is None:
            self._running.terminate()
            try:
                self._running.wait(self._grace)
            except subprocess.TimeoutExpired:
                self._running.kill()
        return self._running.wait()

    def wait(self, time_limit: float = 30.0) -> int:
        """Waits for the program to end by itself and returns its exit code."""
        return self._running.wait(time_limit)

    def signal(self, number: int) -> None:
        self._running.send_signal(number)

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def alive(self) -> bool:
        return self._running.poll() is None

    @property
    def stdout(self) -> str:
        return self._stdout.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return self._stderr.read_text(errors="replace")

    def wait_for_output(self, pattern: str, time_limit: float = 30.0, *, stream: str = "stdout") -> re.Match[str]:
        """Waits until a regular expression is found in an output (`stdout` or `stderr`) and returns the match.

        Raises `RuntimeError` with both outputs when the program ends first, `TimeoutError` at the time limit.
        """
        expression = re.compile(pattern, re.MULTILINE)
        deadline = time.monotonic() + time_limit
        while True:
            ended = not self.alive
            if found := expression.search(self.stdout if stream == "stdout" else self.stderr):
                return found
            if ended:
                raise RuntimeError(
                    f"ended before {pattern!r} with exit code {self._running.returncode}\n{self.report()}"
                )
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {pattern!r} on {stream} within {time_limit:g} s\n{self.report()}")
            time.sleep(_POLL)

    def report(self) -> str:
        """The command and the end of its outputs, for an error message."""
        return f"$ {' '.join(self.argv)}\n--- stdout\n{self.stdout[-4000:]}\n--- stderr\n{self.stderr[-4000:]}"

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            raise RuntimeError("not started")
        return self._child
