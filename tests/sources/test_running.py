"""`RunningSources`: which sources run, what waits for them, and what of theirs stays in the directory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from lbcore.directory import Directory
from lbcore.membership import Membership
from lbcore.policy import Random
from lbcore.snapshot import ServiceSnapshot
from lbcore.source import Dns, HttpSd, Source
from lbcore.sources.feed import Feed, FeedBroken, Timing
from lbcore.sources.running import RunningSources, source_name
from tests.sources.scripted import ScriptedFeed, members
from tests.sources.virtual_time import VirtualTime

WEB = Dns("web.internal", port=80)


class World:
    """A directory with running sources of scripted feeds: `says` is what each DNS name or URL says, else it fails."""

    def __init__(self) -> None:
        self.time = VirtualTime()
        self.directory = Directory()
        self.says: dict[str, Membership] = {}
        self.opened: list[Source] = []
        self.sources = RunningSources(self.directory, self.time.timing, open_feed=self._open)

    def write(self, **sources: Source) -> None:
        """A configuration file with services of these sources."""
        services = [ServiceSnapshot(name=name, policy=Random()) for name in sources]
        names = {name: source_name(name, source) for name, source in sources.items()}
        self.directory.publish("file", services, sourced=names)
        self.sources.want(sources)

    def addresses(self) -> Mapping[str, list[str]]:
        services = self.directory.current.services
        return {name: [endpoint.address for endpoint in each.endpoints] for name, each in services.items()}

    def _open(self, source: Source, _: str, timing: Timing) -> Feed:
        self.opened.append(source)
        return ScriptedFeed(lambda: self._say(source), timing)

    def _say(self, source: Source) -> Membership:
        name = source.name if isinstance(source, Dns) else str(getattr(source, "url", ""))
        if name not in self.says:
            raise FeedBroken(f"{name}: no answer")
        return self.says[name]


@asynccontextmanager
async def world(**sources: Source) -> AsyncIterator[World]:
    made = World()
    made.write(**sources)
    running = asyncio.create_task(made.sources.run())
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_nothing_is_answered_before_every_source_has_been_heard_from() -> None:
    async with world(web=WEB, api=Dns("api.internal", port=80)) as it:
        it.says["web.internal"] = members("10.0.0.1:80")
        await it.time.advance(10)
        assert not it.directory.synced
        it.says["api.internal"] = members("10.0.0.2:80")
        await it.time.advance(16)
        assert it.directory.synced
        assert it.addresses() == {"web": ["10.0.0.1:80"], "api": ["10.0.0.2:80"]}


async def test_answers_wait_for_a_source_no_longer_than_it_says() -> None:
    async with world(web=WEB, api=Dns("api.internal", port=80, initial_fetch_timeout=4)) as it:
        it.says["web.internal"] = members("10.0.0.1:80")
        await it.time.advance(3)
        before = it.directory.synced
        await it.time.advance(2)
        assert (before, it.directory.synced) == (False, True)
        assert it.addresses() == {"web": ["10.0.0.1:80"]}
        assert it.directory.current.stale == {"dns:api": "api.internal: no answer"}


async def test_a_source_of_unlimited_patience_is_waited_for() -> None:
    async with world(web=Dns("web.internal", port=80, initial_fetch_timeout=0)) as it:
        await it.time.advance(100)
        assert not it.directory.synced


async def test_a_source_that_fails_for_a_minute_takes_nothing_away() -> None:
    async with world(web=WEB) as it:
        it.says["web.internal"] = members("10.0.0.1:80")
        await it.time.advance(1)
        del it.says["web.internal"]
        await it.time.advance(60)
        assert it.addresses() == {"web": ["10.0.0.1:80"]}
        assert it.directory.synced
        assert it.directory.current.stale == {"dns:web": "web.internal: no answer"}


async def test_a_removal_that_a_source_tells_is_applied() -> None:
    async with world(web=WEB) as it:
        it.says["web.internal"] = members("10.0.0.1:80")
        await it.time.advance(1)
        it.says["web.internal"] = members()
        await it.time.advance(1)
        assert it.addresses() == {"web": []}


async def test_a_source_that_stays_as_it_is_runs_on() -> None:
    async with world(web=WEB) as it:
        await it.time.advance(1)
        it.write(web=WEB, api=Dns("api.internal", port=80))
        await it.time.advance(1)
        assert it.opened == [WEB, Dns("api.internal", port=80)]


async def test_a_new_source_holds_back_its_service_alone() -> None:
    async with world(web=WEB) as it:
        it.says["web.internal"] = members("10.0.0.1:80")
        await it.time.advance(1)
        it.write(web=WEB, api=Dns("api.internal", port=80))
        await it.time.advance(1)
        assert (it.directory.synced, set(it.addresses())) == (True, {"web"})


async def test_a_source_that_changes_keeps_the_endpoints_until_the_new_one_answers() -> None:
    async with world(web=WEB) as it:
        it.says["web.internal"] = members("10.0.0.1:80")
        await it.time.advance(1)
        for source in (Dns("new.internal", port=80), HttpSd("http://sd.internal/")):
            it.write(web=source)
            await it.time.advance(3)
            assert it.addresses() == {"web": ["10.0.0.1:80"]}
        it.says["http://sd.internal/"] = members("10.0.0.9:80")
        await it.time.advance(30)
        assert it.addresses() == {"web": ["10.0.0.9:80"]}
        assert it.directory.current.stale == {}
        assert [follower.name for follower in it.sources] == ["http_sd:web"]


async def test_a_service_that_goes_takes_its_source_with_it_at_once() -> None:
    async with world(web=WEB) as it:
        it.says["web.internal"] = members("10.0.0.1:80")
        await it.time.advance(1)
        it.write()
        assert it.addresses() == {}
        await it.time.advance(10)
        assert (list(it.sources), it.directory.sources) == ([], ("file",))


async def test_a_service_that_lists_its_endpoints_from_now_on_has_no_others() -> None:
    async with world(web=WEB) as it:
        it.says["web.internal"] = members("10.0.0.1:80")
        await it.time.advance(1)
        listed = ServiceSnapshot(name="web", endpoints=members("10.0.0.7:80").endpoints)
        it.directory.publish("file", [listed])
        it.sources.want({})
        await it.time.advance(10)
        assert it.addresses() == {"web": ["10.0.0.7:80"]}


async def test_members_bear_the_settings_that_the_file_gives_the_service() -> None:
    async with world(web=WEB) as it:
        it.says["web.internal"] = members("10.0.0.1:80")
        await it.time.advance(1)
        assert it.directory.current.services["web"].policy == Random()
