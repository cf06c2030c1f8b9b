"""Fixtures that start real parts and end them with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.harness.backends import HttpBackends
from tests.harness.envoy import Envoy


@pytest.fixture
def start_envoy() -> Iterator[Callable[..., Envoy]]:
    """`start_envoy(bootstrap, ...)` as `Envoy(...)`, live when it returns."""
    with ExitStack() as running:
        yield lambda *args, **options: running.enter_context(Envoy(*args, **options))


@pytest.fixture
def start_backends() -> Iterator[Callable[..., HttpBackends]]:
    """`start_backends(hosts)` as `HttpBackends(hosts)`, listening when it returns."""
    with ExitStack() as running:
        yield lambda *args: running.enter_context(HttpBackends(*args))
