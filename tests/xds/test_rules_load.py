"""Rules R4 and R6 of what a correct xDS server does: many clients, many changes. Admission, debounce, settings."""

from __future__ import annotations

import asyncio
import itertools

import grpc
import pytest

from lbcore.delivery import XdsDelivery
from lbcore.errors import InvalidSetting
from lbcore.xds.admission import Admission
from lbcore.xds.observer import XdsObserver
from tests.xds.clients import CDS, EDS, Plane, eventually, plane, ports, resources, service
from tests.xds.conftest import Only


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_r4_new_streams_are_taken_as_fast_as_is_set() -> None:
    clock = Clock()
    admission = Admission(XdsDelivery(max_new_streams=2), clock)
    assert [bool(admission.refusal(0)) for _ in range(21)] == [False] * 20 + [True]
    clock.now += 1.6
    assert [bool(admission.refusal(0)) for _ in range(4)] == [False] * 3 + [True]
    clock.now += 3600
    assert [bool(admission.refusal(0)) for _ in range(21)] == [False] * 20 + [True]


def test_r4_no_more_streams_are_taken_than_is_set() -> None:
    admission = Admission(XdsDelivery(max_streams=3), Clock())
    assert not admission.refusal(2)
    assert "max_streams" in admission.refusal(3)


@pytest.mark.parametrize("method", ["sotw", "delta"])
async def test_r4_a_stream_too_many_is_told_to_come_back(method: str) -> None:
    class Refused(XdsObserver):
        count = 0

        def stream_refused(self, method: str) -> None:
            assert method.endswith("AggregatedResources")
            self.count += 1

    refused = Refused()
    async with plane(observer=refused) as running:
        running.xds.settings = XdsDelivery(max_streams=2)
        running.publish(service("web", 1))
        clients = [getattr(running, method)() for _ in range(2)]
        for client in clients:
            await client.ask(EDS, "web")
            await client.receive(EDS)
        one_more = getattr(running, method)()
        code, details = await one_more.status()
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "max_streams" in details
        assert refused.count == 1
        clients[0].cancel()
        await eventually(lambda: running.xds.stream_count == 1)
        again = getattr(running, method)()
        await again.ask(EDS, "web")
        assert resources(await again.receive(EDS)).keys() == {"web"}


@pytest.mark.parametrize("method", ["sotw", "delta"])
async def test_r6_a_flapping_endpoint_is_pushed_once_in_a_window(served: Plane, method: str, only: Only) -> None:
    served.xds.settings = XdsDelivery(debounce_window=0.4, debounce_max=1.0)
    served.publish(service("web", 1))
    client = getattr(served, method)(only(EDS))
    await client.ask(EDS, "web")
    await client.settle(EDS, *(["web"] if method == "sotw" else []))
    await asyncio.sleep(0.5)
    loop = asyncio.get_running_loop()
    started, pushes = loop.time(), []
    for port in range(2, 12):  # ten changes in a second
        served.publish(service("web", port))
        await asyncio.sleep(0.1)
    while not pushes or pushes[-1] != 11:  # until the newest state has arrived
        response = await client.receive(EDS)
        pushes.append(ports(resources(response)["web"])[0])
        if method == "sotw":
            await client.ask(EDS, "web", version=response.version_info)
        else:
            await client.accept(EDS)
    windows = (loop.time() - started) / served.xds.settings.debounce_window
    assert len(pushes) <= windows + 1, "no more than the windows that passed, and the first change at once"
    assert await client.quiet()


async def test_r6_a_change_waits_no_longer_than_the_maximum(served: Plane, only: Only) -> None:
    served.xds.settings = XdsDelivery(debounce_window=0.3, debounce_max=0.6)
    served.publish(service("web", 1))
    client = served.sotw(only(CDS))
    await client.ask(CDS)
    await client.settle(CDS)

    async def flap() -> None:
        for limit in itertools.count(2):
            served.publish(service("web", 1, limit=limit))
            await asyncio.sleep(0.05)

    flapping = asyncio.create_task(flap())
    for _ in range(3):
        await client.settle(CDS)
    flapping.cancel()


def test_v7_the_debounce_cannot_contradict_itself() -> None:
    with pytest.raises(InvalidSetting, match="debounce_max"):
        XdsDelivery(debounce_window=2.0, debounce_max=1.0)
