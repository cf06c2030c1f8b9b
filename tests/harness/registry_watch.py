"""A watch of the registry, followed in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from lbcore.client import RegistryClient, RegistryUpdate
from lbcore.errors import LbError
from tests.harness.process import wait_until

__all__ = ["watched"]


@contextmanager
def watched(address: str) -> Iterator[list[RegistryUpdate]]:
    """What a watch of all services has been told; something, when entered."""
    updates: list[RegistryUpdate] = []
    with RegistryClient(address) as client:

        def follow() -> None:
            with suppress(LbError, ValueError):  # the client is closed
                for update in client.watch():
                    updates.append(update)  # noqa: PERF402 - they are read while it goes on

        following = threading.Thread(target=follow, daemon=True)
        following.start()
        wait_until(lambda: updates, "the snapshot")
        yield updates
    following.join(30)
