"""Probes that are closed with the test, and certificates for the servers that they ask."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
import trustme

from lbcore.health import HealthCheck
from lbcore.health.probe import Probe, make_probe


@pytest_asyncio.fixture
async def make() -> AsyncIterator[Callable[..., Probe]]:
    """`make(check)`: its probe for the service `web`, closed with the test."""
    async with AsyncExitStack() as probes:

        def probe_of(check: HealthCheck) -> Probe:
            probe = make_probe("web", check)
            probes.push_async_callback(probe.close)
            return probe

        yield probe_of


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("web.internal").configure_cert(context)
    return context
