"""`FileSource` on real files: every way a file is replaced is followed, and a bad file takes nothing away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from lbcore.directory import Directory, DirectorySnapshot, ServiceSnapshot
from lbcore.errors import ConfigError
from lbcore.sources.file import FileSource

TIME_LIMIT = 30.0  # seconds; the promise is one, the machine may be busy
BAD = "services: {web: {endpoints: [10.0.0.1:0]}}"


def serving(*names: str) -> str:
    return "".join(["services:\n", *(f"  {name}: {{endpoints: [10.0.0.1:80]}}\n" for name in names)])


def replace(file: Path, text: str) -> None:
    """As editors and deployments do: written beside it, then renamed over it."""
    beside = file.with_name(f".{file.name}.new")
    beside.write_text(text)
    beside.rename(file)


def write(file: Path, text: str) -> None:
    file.write_text(text)


def remove(file: Path) -> None:
    file.unlink()


def move(old: Path, new: Path) -> None:
    old.rename(new)


@asynccontextmanager
async def following(file: Path, directory: Directory) -> AsyncIterator[FileSource]:
    """A source that has loaded the file and follows it."""
    source = FileSource(file, directory)
    source.load_first()
    running = asyncio.create_task(source.run())
    try:
        yield source
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def until(directory: Directory, holds: Callable[[DirectorySnapshot], bool]) -> None:
    async def watching() -> None:
        async for snapshot in directory.watch():
            if holds(snapshot):
                return

    await asyncio.wait_for(watching(), TIME_LIMIT)


async def until_serving(directory: Directory, *names: str) -> None:
    await until(directory, lambda snapshot: set(snapshot.services) == set(names) and not snapshot.stale)


async def until_stale(directory: Directory, reason: str) -> None:
    await until(directory, lambda snapshot: reason in snapshot.stale.get("file", ""))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "lb.yaml"
    write(file, serving("web"))
    return file


def test_the_first_load_publishes_services_and_listeners(file: Path) -> None:
    write(file, serving("web") + "listeners: [{name: in, address: 127.0.0.1:80, routes: []}]")
    directory = Directory()
    FileSource(file, directory).load_first()
    assert (set(directory.current.services), len(directory.current.listeners)) == ({"web"}, 1)


def test_nothing_may_be_answered_before_the_first_load(file: Path) -> None:
    directory = Directory()
    source = FileSource(file, directory)
    before = directory.synced
    source.load_first()
    assert (before, directory.synced) == (False, True)


@pytest.mark.parametrize("content", [None, BAD])
def test_the_first_load_of_a_file_that_cannot_be_used_raises_and_publishes_nothing(
    file: Path, content: str | None
) -> None:
    write(file, content) if content else remove(file)
    directory = Directory()
    with pytest.raises(ConfigError, match=r"lb\.yaml"):
        FileSource(file, directory).load_first()
    assert not directory.synced


async def test_a_rename_over_the_file_is_followed(file: Path) -> None:
    directory = Directory()
    async with following(file, directory):
        replace(file, serving("web", "api"))
        await until_serving(directory, "web", "api")


async def test_each_of_several_replacements_is_followed(file: Path) -> None:
    directory = Directory()
    async with following(file, directory):
        for names in (["a"], ["a", "b"], ["c"], []):
            replace(file, serving(*names) if names else "services: {}")
            await until_serving(directory, *names)


async def test_a_write_in_place_is_followed(file: Path) -> None:
    directory = Directory()
    async with following(file, directory):
        write(file, serving("web", "api"))
        await until_serving(directory, "web", "api")


async def test_a_write_in_place_of_the_same_length_is_followed(file: Path) -> None:
    directory = Directory()
    async with following(file, directory):
        write(file, serving("wob"))
        await until_serving(directory, "wob")


async def test_half_of_a_file_that_is_still_written_is_not_used(file: Path) -> None:
    directory = Directory()
    counts: list[int] = []

    async def watching() -> None:
        async for snapshot in directory.watch():
            counts.append(len(snapshot.services))  # noqa: PERF401 - read while it grows

    async with following(file, directory):
        watcher = asyncio.create_task(watching())
        first, *others = serving("web", "a", "b", "c", "d").splitlines(keepends=True)
        with file.open("w") as writing:
            writing.writelines([first, *others[:2]])
            writing.flush()
            await asyncio.sleep(0.05)  # due before the quiet time that the source waits for, however slow the machine
            writing.writelines(others[2:])
        await until_serving(directory, "web", "a", "b", "c", "d")
        watcher.cancel()
    assert counts == [1, 5]


async def test_the_swap_of_a_link_to_a_folder_is_followed_as_kubernetes_does_it(tmp_path: Path) -> None:
    for version, names in (("..v1", ["web"]), ("..v2", ["web", "api"])):
        (tmp_path / version).mkdir()
        (tmp_path / version / "lb.yaml").write_text(serving(*names))
    (tmp_path / "..data").symlink_to("..v1")
    (tmp_path / "lb.yaml").symlink_to("..data/lb.yaml")
    directory = Directory()
    async with following(tmp_path / "lb.yaml", directory):
        (tmp_path / "..data_tmp").symlink_to("..v2")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        await until_serving(directory, "web", "api")


async def test_a_change_behind_a_link_that_leads_elsewhere_is_followed(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "lb.yaml"
    target.write_text(serving("web"))
    (tmp_path / "here" / "lb.yaml").symlink_to(target)
    directory = Directory()
    async with following(tmp_path / "here" / "lb.yaml", directory):
        replace(target, serving("api"))
        await until_serving(directory, "api")


async def test_a_deleted_file_keeps_the_services_and_marks_them_stale(file: Path) -> None:
    directory = Directory()
    async with following(file, directory):
        remove(file)
        await until_stale(directory, "No such file")
    assert set(directory.current.services) == {"web"}


async def test_a_file_that_comes_back_unchanged_ends_staleness(file: Path) -> None:
    directory = Directory()
    async with following(file, directory):
        remove(file)
        await until_stale(directory, "No such file")
        write(file, serving("web"))
        await until_serving(directory, "web")


async def test_a_file_that_comes_back_changed_is_followed(file: Path) -> None:
    directory = Directory()
    async with following(file, directory):
        remove(file)
        await until_stale(directory, "No such file")
        write(file, serving("api"))
        await until_serving(directory, "api")


async def test_a_folder_that_is_replaced_is_followed(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "lb.yaml").write_text(serving("web"))
    directory = Directory()
    async with following(folder / "lb.yaml", directory):
        folder.rename(tmp_path / "old")
        await until_stale(directory, "No such file")
        folder.mkdir()
        for names in (["api"], ["api", "web"]):
            replace(folder / "lb.yaml", serving(*names))
            await until_serving(directory, *names)


async def test_a_file_that_cannot_be_read_keeps_the_services(file: Path) -> None:
    folder = file.with_name("folder")
    folder.mkdir()
    directory = Directory()
    async with following(file, directory):
        remove(file)
        await until_stale(directory, "No such file")
        move(folder, file)
        await until_stale(directory, "Is a directory")
        move(file, folder)
        write(file, serving("api"))
        await until_serving(directory, "api")


async def test_a_bad_file_keeps_the_services_and_tells_every_mistake(file: Path) -> None:
    directory = Directory()
    async with following(file, directory):
        replace(file, "services:\n  web: {endpoints: [10.0.0.1:0]}\n  api: {polcy: random}\n")
        await until_stale(directory, "lb.yaml:2: services.web.endpoints[0].address: address '10.0.0.1:0'")
    assert "lb.yaml:3: services.api.polcy: unknown field" in directory.current.stale["file"]
    assert set(directory.current.services) == {"web"}


async def test_a_good_file_after_a_bad_one_ends_staleness(file: Path) -> None:
    directory = Directory()
    async with following(file, directory):
        replace(file, BAD)
        await until_stale(directory, "10.0.0.1:0")
        replace(file, serving("web", "api"))
        await until_serving(directory, "web", "api")


async def test_a_bad_file_that_is_put_back_as_it_was_ends_staleness(file: Path) -> None:
    directory = Directory()
    async with following(file, directory):
        replace(file, BAD)
        await until_stale(directory, "10.0.0.1:0")
        replace(file, serving("web"))
        await until_serving(directory, "web")


async def test_services_that_another_source_has_keep_the_last_good_file(file: Path) -> None:
    directory = Directory()
    directory.publish("etcd", [ServiceSnapshot(name="api")])
    async with following(file, directory):
        replace(file, serving("web", "api"))
        await until_stale(directory, "service 'api' of source 'file': source 'etcd' already has it")
    assert set(directory.current.services) == {"web", "api"}


async def test_a_bad_content_is_logged_once_however_often_it_is_written(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = Directory()
    with caplog.at_level(logging.INFO, "lbcore.sources.file"):
        async with following(file, directory):
            for _ in range(3):
                replace(file, BAD)
                await asyncio.sleep(0.6)  # the source has looked at each
                await until_stale(directory, "10.0.0.1:0")
            errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "lb.yaml:1: services.web.endpoints[0].address: address '10.0.0.1:0'" in errors[0]


async def test_another_bad_content_is_logged_as_well(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = Directory()
    with caplog.at_level(logging.INFO, "lbcore.sources.file"):
        async with following(file, directory):
            for port in ("0", "99999"):
                replace(file, BAD.replace(":0", f":{port}"))
                await until_stale(directory, f"10.0.0.1:{port}'")
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 2


async def test_a_file_that_is_bad_when_following_begins_is_reported_and_followed(file: Path) -> None:
    write(file, BAD)
    directory = Directory()
    running = asyncio.create_task(FileSource(file, directory).run())
    while "file" not in directory.current.stale:  # noqa: ASYNC110 - nobody is told before the first sync
        await asyncio.sleep(0.01)
    before = directory.synced
    replace(file, serving("web"))
    await until_serving(directory, "web")
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert not before


async def test_the_loop_goes_on_while_a_large_file_is_decoded(file: Path) -> None:
    addresses = "\n".join(f"  - 10.0.{n >> 8}.{n & 255}:80" for n in range(20_000))
    directory = Directory()
    turns = 0
    async with following(file, directory):
        replace(file, f"services:\n web:\n  endpoints:\n{addresses}\n")
        while len(directory.current.services["web"].endpoints) == 1:
            await asyncio.sleep(0.005)
            turns += 1
    assert turns > 10
