"""What sources said before a restart: kept whole, for the same settings, and never worth a failure."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore.directory import Directory
from lbcore.membership import Membership
from lbcore.model import Endpoint, Health, Locality
from lbcore.snapshot import ServiceSnapshot
from lbcore.source import Dns
from lbcore.sources.feed import FeedBroken
from lbcore.sources.remembered import RememberedMembers, _decoded, _encoded
from lbcore.sources.running import RunningSources
from tests.config.test_fuzz import endpoints
from tests.sources.scripted import ScriptedFeed, members
from tests.sources.virtual_time import VirtualTime, settle

WEB = Dns("web.internal", port=80)
WHOLE = Membership(
    (
        Endpoint("10.0.0.1:80", weight=3, locality="eu/a", priority=1, health=Health.DRAINING, hostname="a"),
        Endpoint("[::1]:80", metadata={"k": [1, {"x": None}]}, additional_addresses=("10.0.0.2:80",)),
    ),
    {Locality("eu", "a"): 3},
)


def test_what_is_kept_is_recalled_whole(tmp_path: Path) -> None:
    RememberedMembers(tmp_path / "db").keep({"dns:web": (WEB, WHOLE)})
    assert RememberedMembers(tmp_path / "db").recall("dns:web", WEB) == WHOLE


@given(st.lists(endpoints, max_size=3))
def test_any_membership_is_read_back(listed: list[Endpoint]) -> None:
    membership = Membership(tuple(listed), {endpoint.locality: endpoint.weight for endpoint in listed})
    assert _decoded(_encoded(membership)) == membership


def test_what_was_kept_last_counts_and_only_for_the_same_settings(tmp_path: Path) -> None:
    remembered = RememberedMembers(tmp_path / "db")
    remembered.keep({"dns:web": (WEB, WHOLE)})
    remembered.keep({"dns:web": (WEB, members("10.0.0.9:80"))})
    assert remembered.recall("dns:web", WEB) == members("10.0.0.9:80")
    assert remembered.recall("dns:web", Dns("web.internal", port=81)) is None
    assert remembered.recall("dns:api", WEB) is None


@pytest.mark.parametrize("content", [b"no database at all, and long enough to be sure of it" * 100, b""])
def test_a_file_that_is_no_database_is_told_of_and_costs_nothing_more(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "db").write_bytes(content)
    remembered = RememberedMembers(tmp_path / "db")
    for _ in range(2):
        remembered.keep({"dns:web": (WEB, WHOLE)})
        assert remembered.recall("dns:web", WEB) == (None if content else WHOLE)
    assert len(caplog.records) == (1 if content else 0)


def test_a_place_that_cannot_be_written_costs_nothing(tmp_path: Path) -> None:
    remembered = RememberedMembers(tmp_path / "nowhere" / "db")
    remembered.keep({"dns:web": (WEB, WHOLE)})
    assert remembered.recall("dns:web", WEB) is None


@pytest.mark.parametrize(
    ("store", "path"),
    [
        ("", "etc/lb.sources.db"),
        ("memory", None),
        ("sqlite:var/reg.db", "var/reg.sources.db"),
        ("etcd://h/p", "etc/lb.sources.db"),
    ],
)
def test_where_it_is_kept(store: str, path: str | None) -> None:
    assert RememberedMembers.beside(Path("etc/lb.yaml"), store)._path == (Path(path) if path else None)


class Run:
    """A process with the source `web`, from its start to its end; the source says `says`, or nothing."""

    def __init__(self, path: Path, says: Membership | None) -> None:
        self.time = VirtualTime()
        self.directory = Directory()
        self.directory.publish("file", [ServiceSnapshot(name="web")], sourced={"web": "dns:web"})
        self.says = says
        self.sources = RunningSources(
            self.directory,
            self.time.timing,
            RememberedMembers(path),
            lambda _, __, timing: ScriptedFeed(self._say, timing),
        )
        self.sources.want({"web": WEB})

    async def __aenter__(self) -> Run:
        self._running = asyncio.create_task(self.sources.run())
        await settle()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)

    def addresses(self) -> list[str] | None:
        web = self.directory.current.services.get("web")
        return web and [endpoint.address for endpoint in web.endpoints]

    def _say(self) -> Membership:
        if self.says is None:
            raise FeedBroken("no answer")
        return self.says


async def test_a_restart_serves_what_was_said_before_it_once_the_source_is_late(tmp_path: Path) -> None:
    async with Run(tmp_path / "db", members("10.0.0.1:80")) as before:
        await before.time.advance(1)
    async with Run(tmp_path / "db", None) as after:
        await after.time.advance(14)
        assert not after.directory.synced
        await after.time.advance(2)
        assert (after.directory.synced, after.addresses()) == (True, ["10.0.0.1:80"])
        assert after.directory.current.stale == {"dns:web": "no answer"}
        after.says = members("10.0.0.2:80")
        await after.time.advance(31)
        assert (after.addresses(), after.directory.current.stale) == (["10.0.0.2:80"], {})


async def test_a_source_that_answers_in_time_decides_alone(tmp_path: Path) -> None:
    async with Run(tmp_path / "db", members("10.0.0.1:80")) as before:
        await before.time.advance(1)
    async with Run(tmp_path / "db", members()) as after:
        await after.time.advance(20)
        assert after.addresses() == []


async def test_what_was_said_is_on_disk_soon_not_only_at_the_end(tmp_path: Path) -> None:
    async with Run(tmp_path / "db", members("10.0.0.1:80")) as run:
        await run.time.advance(1)
        for _ in range(100):
            if RememberedMembers(tmp_path / "db").recall("dns:web", WEB):
                break
            await asyncio.sleep(0.05)
        assert RememberedMembers(tmp_path / "db").recall("dns:web", WEB) == members("10.0.0.1:80")
