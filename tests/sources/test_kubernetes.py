"""The Kubernetes source against an API server that keeps the documented contract: slices, watches, breaks, 410."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from lbcore.model import Endpoint, Health, Locality
from lbcore.source import Kubernetes
from lbcore.sources.feed import Timing
from lbcore.sources.kubernetes import KubernetesFeed
from tests.harness.certificates import Authority
from tests.harness.kubernetes_api import KubernetesApi, endpoint, endpoint_slice
from tests.sources.following import Following
from tests.xds.clients import eventually

SERVICE = {"kubernetes.io/service-name": "web"}
ONE, TWO = endpoint("10.0.0.1"), endpoint("10.0.0.2")


@pytest.fixture
async def api() -> KubernetesApi:
    return KubernetesApi()


@pytest.fixture
async def url(api: KubernetesApi) -> AsyncIterator[str]:
    async with TestServer(api.application()) as server:
        yield str(server.make_url(""))
        await api.cut()


def following(url: str, service: str = "web", **fields: Any) -> Following:
    return Following(
        KubernetesFeed(Kubernetes(service, url=url, namespace="prod", **fields), Timing(random=lambda: 0.0))
    )


async def test_an_endpoint_with_all_that_kubernetes_says_of_it(api: KubernetesApi, url: str) -> None:
    hints = {"forZones": [{"name": "eu-a"}, {"name": "eu-b"}]}
    shown = endpoint(
        "10.0.0.1",
        zone="eu-a",
        nodeName="n1",
        hostname="web-0",
        targetRef={"kind": "Pod", "name": "web-0"},
        hints=hints,
    )
    await api.put(endpoint_slice("web-1", shown))
    metadata = {"kubernetes_node": "n1", "kubernetes_pod": "web-0", "kubernetes_zone_hints": ["eu-a", "eu-b"]}
    async with following(url) as feed:
        assert (await feed.next()).endpoints == (
            Endpoint(
                "10.0.0.1:8080",
                health=Health.HEALTHY,
                locality=Locality(zone="eu-a"),
                hostname="web-0",
                metadata=metadata,
            ),
        )


@pytest.mark.parametrize(
    ("conditions", "health"),
    [
        ({}, Health.HEALTHY),
        ({"ready": None}, Health.HEALTHY),
        ({"ready": True, "serving": True, "terminating": False}, Health.HEALTHY),
        ({"ready": False, "serving": False, "terminating": False}, Health.UNHEALTHY),
        ({"ready": False, "serving": True, "terminating": True}, Health.DRAINING),
        ({"ready": False, "serving": False, "terminating": True}, Health.UNHEALTHY),
        ({"ready": False, "terminating": True}, Health.UNHEALTHY),
        ({"ready": True, "serving": True, "terminating": True}, Health.DRAINING),
    ],
)
async def test_conditions_are_health(api: KubernetesApi, url: str, conditions: dict[str, Any], health: Health) -> None:
    await api.put(endpoint_slice("web-1", endpoint("10.0.0.1", conditions=conditions)))
    async with following(url) as feed:
        assert [each.health for each in (await feed.next()).endpoints] == [health]


async def test_all_slices_of_the_service_count_and_no_others(api: KubernetesApi, url: str) -> None:
    await api.put(endpoint_slice("web-1", ONE), endpoint_slice("web-2", TWO))
    await api.put(endpoint_slice("api-1", endpoint("10.0.0.3"), service="api"))
    async with following(url) as feed:
        assert await feed.addresses() == ["10.0.0.1:8080", "10.0.0.2:8080"]


async def test_an_endpoint_in_two_slices_is_there_once_and_ready_if_one_says_so(api: KubernetesApi, url: str) -> None:
    unready = endpoint("10.0.0.1", conditions={"ready": False})
    await api.put(endpoint_slice("web-1", unready), endpoint_slice("web-2", ONE), endpoint_slice("web-3", unready))
    async with following(url) as feed:
        assert [(each.address, each.health) for each in (await feed.next()).endpoints] == [
            ("10.0.0.1:8080", Health.HEALTHY)
        ]


async def test_of_both_families_one_counts(api: KubernetesApi, url: str) -> None:
    six = endpoint_slice("web-6", endpoint("fd00::1"), addressType="IPv6")
    await api.put(six)
    async with following(url) as feed:
        assert await feed.addresses() == ["[fd00::1]:8080"]
        await api.put(endpoint_slice("web-4", ONE))
        await feed.until("10.0.0.1:8080")


TWO_PORTS = [{"name": "http", "port": 8080}, {"name": "metrics", "port": 9090}]


@pytest.mark.parametrize(
    ("ports", "port", "number"),
    [
        ([{"name": "", "port": 8080}], "", 8080),
        ([{"port": 8080}], "", 8080),
        (TWO_PORTS, "metrics", 9090),
        (TWO_PORTS, "9090", 9090),
        ([], "9090", 9090),
        (None, "9090", 9090),
    ],
)
async def test_a_port_is_found_by_name_or_number(
    api: KubernetesApi, url: str, ports: list[Any] | None, port: str, number: int
) -> None:
    await api.put(endpoint_slice("web-1", ONE, ports=ports))
    async with following(url, port=port) as feed:
        assert await feed.addresses() == [f"10.0.0.1:{number}"]


@pytest.mark.parametrize(
    ("ports", "port", "reason"),
    [
        (TWO_PORTS, "", "slice web-1: no port is named; there are: http 8080, metrics 9090"),
        (TWO_PORTS, "grpc", "slice web-1: port 'grpc': no such port; there are: http 8080, metrics 9090"),
        (TWO_PORTS, "80", "slice web-1: port '80': no such port; there are: http 8080, metrics 9090"),
        ([], "", "slice web-1: no port is named; there are: none"),
    ],
)
async def test_a_port_that_is_not_there_is_a_failure(
    api: KubernetesApi, url: str, ports: list[Any], port: str, reason: str
) -> None:
    await api.put(endpoint_slice("web-1", ONE, ports=ports))
    async with following(url, port=port) as feed:
        assert await feed.broken() == reason


async def test_slices_without_the_port_do_not_count_while_others_have_it(api: KubernetesApi, url: str) -> None:
    await api.put(endpoint_slice("web-1", ONE, ports=[{"name": "http", "port": 8080}]))
    async with following(url, port="grpc") as feed:
        assert "port 'grpc': no such port" in await feed.broken()
        await api.put(
            endpoint_slice("web-2", TWO, ports=[{"name": "http", "port": 8080}, {"name": "grpc", "port": 50051}])
        )
        await feed.until("10.0.0.2:50051")
        await api.delete("web-2")
        assert "port 'grpc': no such port" in await feed.broken()


async def test_a_service_without_the_port_is_followed_until_it_has_it(api: KubernetesApi, url: str) -> None:
    await api.put(endpoint_slice("web-1", ONE, ports=[{"name": "http", "port": 8080}]))
    async with following(url, port="grpc") as feed:
        for _ in range(2):
            assert "port 'grpc': no such port" in await feed.broken()
        await api.put(endpoint_slice("web-1", ONE, ports=[{"name": "grpc", "port": 50051}]))
        assert await feed.addresses() == ["10.0.0.1:50051"]
    assert (len(api.requests), len(api.watches)) == (2, 1)


async def test_an_event_that_makes_no_sense_means_a_new_list(api: KubernetesApi, url: str) -> None:
    await api.put(endpoint_slice("web-1", ONE))
    async with following(url) as feed:
        await feed.next()
        await feed.next()
        await api.put({"metadata": {"name": "web-2", "labels": SERVICE}, "endpoints": "none"})
        assert "not as expected" in await feed.broken()
        await api.delete("web-2")
        assert await feed.addresses() == ["10.0.0.1:8080"]


async def test_a_service_of_host_names_is_a_failure(api: KubernetesApi, url: str) -> None:
    await api.put(endpoint_slice("web-1", endpoint("web.example.com"), addressType="FQDN"))
    async with following(url) as feed:
        assert await feed.broken() == "slice web-1: addressType 'FQDN': expected IPv4 or IPv6"
        await api.put(endpoint_slice("web-2", TWO))
        await feed.until("10.0.0.2:8080")


async def test_each_change_is_told(api: KubernetesApi, url: str) -> None:
    async with following(url) as feed:
        assert await feed.addresses() == []
        await api.put(endpoint_slice("web-1", ONE))
        await feed.until("10.0.0.1:8080")
        await api.put(endpoint_slice("web-1", TWO), endpoint_slice("web-2", ONE))
        await feed.until("10.0.0.2:8080", "10.0.0.1:8080")
        await api.delete("web-1")
        await feed.until("10.0.0.1:8080")
        await api.delete("web-2")
        await feed.until()


async def test_a_long_list_comes_in_pages(api: KubernetesApi, url: str) -> None:
    api.page = 2
    await api.put(*(endpoint_slice(f"web-{n}", endpoint(f"10.0.0.{n}")) for n in range(1, 6)))
    async with following(url) as feed:
        assert len(await feed.addresses()) == 5
    assert [query.get("continue") for query in api.requests if "watch" not in query] == [None, "105,web-2", "105,web-4"]


async def test_a_slice_of_a_thousand_endpoints_comes_whole(api: KubernetesApi, url: str) -> None:
    async with following(url) as feed:
        await feed.next()
        many = [endpoint(f"10.1.{n // 250}.{n % 250}", nodeName=f"node-{n}" * 20) for n in range(1000)]
        await api.put(endpoint_slice("web-1", *many))
        await feed.until(*(f"10.1.{n // 250}.{n % 250}:8080" for n in range(1000)))


async def test_a_watch_that_ends_goes_on_from_its_version(api: KubernetesApi, url: str) -> None:
    await api.put(endpoint_slice("web-1", ONE))
    async with following(url) as feed:
        await feed.until("10.0.0.1:8080")
        await api.put(endpoint_slice("web-1", TWO))
        await feed.until("10.0.0.2:8080")
        await api.cut()
        await eventually_after(feed, lambda: len(api.watches) == 2)
    lists = [query for query in api.requests if "watch" not in query]
    assert (len(lists), api.watches[-1]["resourceVersion"]) == (1, "102")


async def test_bookmarks_move_the_version_on(api: KubernetesApi, url: str) -> None:
    await api.put(endpoint_slice("web-1", ONE))
    async with following(url) as feed:
        await feed.until("10.0.0.1:8080")
        await feed.next()
        await api.put(endpoint_slice("api-1", TWO, service="api"))
        await api.bookmark()
        await feed.until("10.0.0.1:8080")
        await api.cut()
        await eventually_after(feed, lambda: len(api.watches) == 2)
    assert api.watches[0]["allowWatchBookmarks"] == "true"
    assert api.watches[-1]["resourceVersion"] == "102"


async def test_a_version_that_is_gone_means_a_new_list_and_the_difference(api: KubernetesApi, url: str) -> None:
    await api.put(endpoint_slice("web-1", ONE))
    async with following(url) as feed:
        await feed.next()
        await feed.next()
        await api.put(endpoint_slice("web-2", TWO))
        await feed.until("10.0.0.1:8080", "10.0.0.2:8080")
        await api.cut()
        await feed.next()
        api.change_unseen("web-2", endpoint("10.0.0.3"))
        await api.fail(410, "too old resource version")
        assert await feed.addresses() == ["10.0.0.1:8080", "10.0.0.3:8080"]


async def test_a_version_that_is_gone_may_be_told_as_a_status_too(api: KubernetesApi, url: str) -> None:
    await api.put(endpoint_slice("web-1", ONE), endpoint_slice("web-2", TWO))
    async with following(url) as feed:
        await feed.next()
        await feed.next()
        api.change_unseen("web-2", endpoint("10.0.0.3"))
        api.refusing_watches = 410
        await api.cut()
        said = await feed.until("10.0.0.1:8080", "10.0.0.3:8080")
        assert all(len(each) == 2 for each in said)
        assert await feed.broken() == "the watch ended at once"  # gone again, though just listed


async def test_a_watch_that_says_nothing_in_all_its_time_means_a_new_list(api: KubernetesApi, url: str) -> None:
    now = [0.0]
    timing = Timing(random=lambda: 0.0, clock=lambda: now[0])
    async with Following(KubernetesFeed(Kubernetes("web", url=url, namespace="prod"), timing)) as feed:
        await feed.next()
        await feed.next()
        for length, lists in ((299.0, 1), (300.0, 2)):
            now[0] += length
            await api.cut()
            await feed.next()
            assert len(api.requests) - len(api.watches) == lists


async def test_a_list_after_a_backup_was_restored_counts_though_its_versions_are_those_of_before(
    api: KubernetesApi, url: str
) -> None:
    await api.put(endpoint_slice("web-1", ONE))
    async with following(url) as feed:
        await feed.until("10.0.0.1:8080")
        await feed.next()
        api.slices["web-1"]["endpoints"] = [TWO]  # at the same version, in another history
        await api.fail(500, "restored")
        assert "restored" in await feed.broken()
        assert await feed.addresses() == ["10.0.0.2:8080"]


async def test_another_error_on_a_watch_is_a_failure_and_means_a_new_list(api: KubernetesApi, url: str) -> None:
    async with following(url) as feed:
        await feed.next()
        await feed.next()
        await api.fail(500, "etcd is away")
        assert await feed.broken() == "watch: 500 etcd is away"
        await feed.next()
    assert len([query for query in api.requests if "watch" not in query]) == 2


@pytest.mark.parametrize(("status", "lists"), [(429, 1), (500, 2), (400, 2)])
async def test_a_watch_that_is_refused_begins_with_a_new_list_unless_the_server_is_busy(
    api: KubernetesApi, url: str, status: int, lists: int
) -> None:
    await api.put(endpoint_slice("web-1", ONE))
    async with following(url) as feed:
        await feed.next()
        api.refusing_watches = status
        assert str(status) in await feed.broken()
        api.refusing_watches = 0
        await feed.next()
    assert len([query for query in api.requests if "watch" not in query]) == lists


async def test_an_outage_is_a_failure_and_then_the_watch_goes_on(api: KubernetesApi) -> None:
    server = TestServer(api.application())
    await server.start_server()
    await api.put(endpoint_slice("web-1", ONE))
    async with following(str(server.make_url(""))) as feed:
        await feed.until("10.0.0.1:8080")
        await feed.next()
        port = server.port
        await api.cut()
        await server.close()
        assert await feed.broken()
        again = TestServer(api.application(), port=port)
        await again.start_server()
        await api.put(endpoint_slice("web-1", TWO))
        await feed.until("10.0.0.2:8080")
    await api.cut()
    await again.close()
    assert len([query for query in api.requests if "watch" not in query]) == 1


async def test_the_token_is_sent(api: KubernetesApi, url: str, tmp_path: Path) -> None:
    api.tokens, api.readers = {"secret": "lbcore"}, frozenset({"lbcore"})
    token = tmp_path / "token"
    token.write_text("secret\n")
    async with following(url, token_file=str(token)) as feed:
        assert await feed.addresses() == []
    async with following(url) as feed:
        assert await feed.broken() == "401 Unauthorized: 'Unauthorized'"


async def test_what_is_forbidden_is_a_failure(url: str) -> None:
    async with Following(KubernetesFeed(Kubernetes("web", url=url), Timing())) as feed:
        assert "endpointslices.discovery.k8s.io is forbidden" in await feed.broken()


async def test_outside_of_a_cluster_a_url_is_needed() -> None:
    async with Following(KubernetesFeed(Kubernetes("web"), Timing(), environment={})) as feed:
        assert await feed.broken() == "no url given, and this process does not run in a cluster"


async def test_in_a_cluster_the_service_account_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("lbcore.sources.kubernetes.SERVICE_ACCOUNT", tmp_path)
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"}
    async with Following(KubernetesFeed(Kubernetes("web"), Timing(), environment=environment)) as feed:
        assert await feed.broken() == f"ca_file {tmp_path}/ca.crt: [Errno 2] No such file or directory"


@pytest.mark.parametrize("strict", [False, True], ids=["before Python 3.13", "since"])
async def test_in_a_cluster_its_ca_token_and_namespace_are_enough(
    api: KubernetesApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, strict: bool
) -> None:
    create = ssl.create_default_context

    def create_as_python_does(**settings: Any) -> ssl.SSLContext:
        made = create(**settings)
        if strict:
            made.verify_flags |= ssl.VERIFY_X509_STRICT
        return made

    monkeypatch.setattr(ssl, "create_default_context", create_as_python_does)
    monkeypatch.setattr("lbcore.sources.kubernetes.SERVICE_ACCOUNT", tmp_path)
    authority = Authority()  # without a Subject Key Identifier, as EKS makes them
    files = authority.issue_server().write(tmp_path, "server")
    for name, content in (("ca.crt", authority.root), ("token", b"secret\n"), ("namespace", b"prod\n")):
        (tmp_path / name).write_bytes(content)
    api.tokens, api.readers = {"secret": "lbcore"}, frozenset({"lbcore"})
    await api.put(endpoint_slice("web-1", ONE))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*files)
    server = TestServer(api.application(), scheme="https")
    await server.start_server(ssl=tls)
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.port)}
    async with Following(KubernetesFeed(Kubernetes("web"), Timing(), environment=environment)) as feed:
        assert await feed.addresses() == ["10.0.0.1:8080"]
    await server.close()


async def eventually_after(feed: Following, condition: Any) -> None:
    """Follows on in the background until the condition holds."""
    following_on = asyncio.ensure_future(feed.next())
    await eventually(condition)
    await following_on


async def test_a_server_that_ends_every_watch_after_a_word_is_not_watched_again_and_again() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def answer(request: web.Request) -> web.Response:
        at = {"metadata": {"resourceVersion": "7"}}
        if "watch" in request.query:
            return web.json_response({"type": "BOOKMARK", "object": at}, dumps=lambda event: f"{json.dumps(event)}\n")
        return web.json_response({**at, "items": []})

    timing = Timing(clock=lambda: 1000.0, sleep=sleep)
    async with (
        serving(answer) as url,
        Following(KubernetesFeed(Kubernetes("web", url=url), timing)) as feed,
    ):
        for _ in range(1 + 2 * 3 + 1):  # the list, two steps of each watch, and one of the next
            assert await feed.addresses() == []
    assert slept == pytest.approx([0.2, 0.2, 0.2])


async def test_a_list_whose_page_continues_with_itself_is_a_failure() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"metadata": {"resourceVersion": "7", "continue": "2"}, "items": []})

    async with serving(answer) as url, Following(KubernetesFeed(Kubernetes("web", url=url), Timing())) as feed:
        assert await feed.broken() == "list: a page that continues with itself"


@asynccontextmanager
async def serving(answer: Callable[[web.Request], Awaitable[web.Response]]) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    async with TestServer(application) as server:
        yield str(server.make_url(""))
