"""A control plane for each test, and gRPC clients that follow it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.harness.control_plane import ControlPlane
from tests.parity.example_client import Caller, caller_process


@pytest.fixture
def control_plane() -> Iterator[ControlPlane]:
    with ControlPlane() as running:
        yield running


@pytest.fixture
def call_as(control_plane: ControlPlane) -> Iterator[Callable[..., Caller]]:
    """`call_as(kind, target)` starts a client that calls the target; kind is `sync` or `aio`."""
    with ExitStack() as running:

        def start(*args: Any, **settings: Any) -> Caller:
            return Caller(running.enter_context(caller_process(control_plane.address, *args, **settings)))

        yield start
