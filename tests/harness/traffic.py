"""Requests without a pause from a thread, so that a test can say that none failed while something changed."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from types import TracebackType

from tests.harness.http_client import HttpClient

__all__ = ["HttpTraffic"]


class HttpTraffic:
    """GETs through a proxy at `address`, one after the other on one connection. A context manager.

    `failures` lists the answers other than 200, and errors; `since(mark)` counts who has answered since `mark()`.
    """

    def __init__(self, address: str, path: str = "/", pause: float = 0.002) -> None:
        self._address = address
        self._path = path
        self._pause = pause
        self._answers: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self.failures: list[str] = []

    def __enter__(self) -> HttpTraffic:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(30)

    def mark(self) -> int:
        """Now, for `since`."""
        return len(self._answers)

    def since(self, mark: int) -> Counter[str]:
        """How many answers each backend has given since then."""
        return Counter(self._answers[mark:])

    def _run(self) -> None:
        with HttpClient(self._address) as client:
            while not self._stop.is_set():
                self._one(client)
                time.sleep(self._pause)

    def _one(self, client: HttpClient) -> None:
        try:
            answer = client.get(self._path)
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(repr(error))
            return
        if answer.status == 200:
            self._answers.append(answer.headers["x-backend"])
        else:
            self.failures.append(f"{answer.status} {answer.body!r}")
