"""When the journal writes: at once for one request, a moment later for what comes after several at the same time."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lbcore.model import Endpoint
from lbcore.registration import Key
from lbcore.registry.journal import PACE, Journal, StoredLease, StoredRegistration


def write(journal: Journal, number: int) -> asyncio.Future[None]:
    key = Key("web", f"10.0.0.{number}:80")
    stored = StoredRegistration(key, 1, number, 0, None, False, Endpoint(key.address))
    return journal.write({1: StoredLease(1, 15.0, 1)}, {key: stored}, number)


async def test_what_follows_a_write_of_several_requests_waits_for_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "registry.db")
    begun, go_on = threading.Event(), threading.Event()
    times: list[float] = []
    sizes: list[int] = []

    def commit(_: Any, registrations: Any, __: int) -> None:
        times.append(time.monotonic())
        sizes.append(len(registrations))
        begun.set()
        go_on.wait(20)

    monkeypatch.setattr(journal, "_commit", commit)
    first = write(journal, 1)
    await asyncio.to_thread(begun.wait, 20)
    shared = [write(journal, number) for number in range(2, 12)]
    go_on.set()
    await asyncio.gather(first, *shared)
    assert sizes == [1, 10]
    await asyncio.gather(*(write(journal, number) for number in range(12, 22)))
    await journal.close()
    assert (sizes, times[2] - times[1] >= PACE) == ([1, 10, 10], True)
