"""A fresh xDS server for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from lbcore.xds.resource_type import ResourceType
from tests.xds.clients import Plane, plane

Only = Callable[[ResourceType], ResourceType | None]


@pytest.fixture
async def served() -> AsyncIterator[Plane]:
    """An xDS server over an empty Directory that is in sync."""
    async with plane() as running:
        yield running


@pytest.fixture(params=["aggregated", "per type"])
def only(request: pytest.FixtureRequest) -> Only:
    """`only(type)` opens a stream of the surface under test: the aggregated service, or the type's own."""
    return (lambda _: None) if request.param == "aggregated" else (lambda resource_type: resource_type)
