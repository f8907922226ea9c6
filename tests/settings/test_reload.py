"""A changed file: what may change while the proxy runs, and when it is looked at again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from proxy.settings import Settings, SettingsError, Watcher, load, reread

SMALLEST = """\
listen: 127.0.0.1:8080
admin: {listen: 127.0.0.1:8081}
upstreams:
  a: {url: http://127.0.0.1:9000, dialect: openai, concurrency: 4}
routes:
  - {name: chat, path: /, upstream: a}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(SMALLEST)
    return path


def test_a_changed_cap_is_taken_over(file: Path) -> None:
    current = load(file, {})
    file.write_text(SMALLEST.replace("concurrency: 4", "concurrency: 9"))
    changed = reread(file, {}, current)
    assert isinstance(changed, Settings)
    assert changed.upstreams["a"].concurrency.slots == 9


def test_a_bad_file_is_told_and_changes_nothing(file: Path) -> None:
    current = load(file, {})
    before = current.model_dump_json()
    file.write_text(SMALLEST.replace("concurrency: 4", "concurency: 9"))
    refused = reread(file, {}, current)
    assert isinstance(refused, SettingsError)
    assert "unknown key" in str(refused)
    assert current.model_dump_json() == before


def test_addresses_cannot_change_while_the_proxy_runs(file: Path) -> None:
    current = load(file, {})
    file.write_text(SMALLEST.replace("8080", "9080").replace("8081", "9081"))
    refused = reread(file, {}, current)
    assert str(refused).replace(str(file), "FILE").splitlines() == [
        "FILE:1: listen: cannot change while the proxy runs; write 127.0.0.1:8080 again, or restart it",
        "FILE:2: admin.listen: cannot change while the proxy runs; write 127.0.0.1:8081 again, or restart it",
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "store: redis://:hunter2@h"),
        ("store: redis://:hunter2@h", ""),
        ("store: redis://:hunter2@h", "store: redis://:hunter3@h"),
        ("store: redis://h", "store: {url: redis://h, namespace: other}"),
    ],
)
def test_the_store_cannot_change_while_the_proxy_runs(file: Path, before: str, after: str) -> None:
    file.write_text(f"{before}\n{SMALLEST}")
    current = load(file, {})
    file.write_text(f"{after}\n{SMALLEST}")
    assert str(reread(file, {}, current)).replace(str(file), "FILE") == (
        "FILE:1: store: cannot change while the proxy runs; write it as it was, or restart it"
    )


def test_a_store_that_is_written_otherwise_and_means_the_same_is_no_change(file: Path) -> None:
    file.write_text(f"store: valkey://h\n{SMALLEST}")
    current = load(file, {})
    file.write_text(f"store: {{url: 'redis://h:6379/0', timeout: 0.05s}}\n{SMALLEST}")
    assert isinstance(reread(file, {}, current), Settings)


def test_a_file_that_is_gone_is_told(file: Path) -> None:
    current = load(file, {})
    file.unlink()
    assert "there is no such file" in str(reread(file, {}, current))


@asynccontextmanager
async def watching(
    file: Path, look_again_s: float = 0.2
) -> AsyncIterator[tuple[Watcher, AsyncIterator[None]]]:
    """A watcher of `file`; the short second look bounds a change that came before the first watch."""
    watcher = Watcher(file, look_again_s=look_again_s)
    async with asyncio.timeout(30), aclosing(watcher.changes()) as changes:
        yield watcher, changes
        watcher.close()


async def test_a_file_written_in_place_is_a_change(file: Path) -> None:
    async with watching(file) as (_, changes):
        file.write_text(SMALLEST + "drain: 1s\n")
        await anext(changes)


async def test_an_event_alone_tells_of_a_change(file: Path) -> None:
    async with watching(file, look_again_s=600) as (_, changes):
        file.write_text(SMALLEST + "drain: 1s\n")
        await anext(changes)  # told at once: changed before the first watch
        coming = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)  # the watch begins
        file.write_text(SMALLEST + "drain: 2s\n")
        await coming


async def test_a_file_renamed_over_is_a_change(file: Path) -> None:
    async with watching(file) as (_, changes):
        for drain in ("1s", "2s", "3s"):
            fresh = file.with_suffix(".new")
            fresh.write_text(SMALLEST + f"drain: {drain}\n")
            fresh.rename(file)
            await anext(changes)


async def test_a_swapped_link_is_a_change_each_time(tmp_path: Path) -> None:
    """Kubernetes: config.yaml → ..data/config.yaml, and ..data → a dated folder, swapped by a rename."""

    def publish(version: str) -> None:
        folder = tmp_path / f"..{version}"
        folder.mkdir()
        (folder / "config.yaml").write_text(SMALLEST + f"drain: {version}\n")
        link = tmp_path / "..data_tmp"
        link.symlink_to(folder.name)
        link.rename(tmp_path / "..data")

    publish("1s")
    file = tmp_path / "config.yaml"
    file.symlink_to("..data/config.yaml")
    async with watching(file) as (_, changes):
        for version in ("2s", "3s", "4s"):
            publish(version)
            await anext(changes)
            assert load(file, {}).drain_s == float(version[0])


async def test_after_a_link_was_swapped_the_new_place_is_watched(tmp_path: Path) -> None:
    for place in ("old", "new"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "real.yaml").write_text(SMALLEST + f"# {place}\n")
    here = tmp_path / "here"
    here.mkdir()
    link = here / "config.yaml"
    link.symlink_to(tmp_path / "old" / "real.yaml")
    async with watching(link, look_again_s=600) as (_, changes):
        coming = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)  # the watch begins
        (here / "next").symlink_to(tmp_path / "new" / "real.yaml")
        (here / "next").rename(link)
        await coming
        coming = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)  # the watch moves
        (tmp_path / "new" / "real.yaml").write_text(SMALLEST + "drain: 1s\n")
        await coming


async def test_a_file_behind_a_link_is_watched_where_it_is(tmp_path: Path) -> None:
    real = tmp_path / "elsewhere" / "real.yaml"
    real.parent.mkdir()
    real.write_text(SMALLEST)
    (tmp_path / "here").mkdir()
    link = tmp_path / "here" / "config.yaml"
    link.symlink_to(real)
    async with watching(link) as (_, changes):
        real.write_text(SMALLEST + "drain: 1s\n")
        await anext(changes)


async def test_a_file_touched_or_removed_is_no_change_and_its_return_is_one(file: Path) -> None:
    async with watching(file) as (_, changes):
        file.touch()
        file.unlink()
        (file.parent / "other.yaml").write_text("x")
        file.write_text(SMALLEST + "drain: 1s\n")
        await anext(changes)
        file.unlink()
        file.write_text(SMALLEST + "drain: 2s\n")
        await anext(changes)


async def test_closing_ends_a_wait_for_changes(file: Path) -> None:
    async with watching(file, look_again_s=600) as (watcher, changes):
        coming = asyncio.ensure_future(anext(changes, "ended"))
        await asyncio.sleep(0)
        watcher.close()
        watcher.close()
        assert await coming == "ended"


async def test_cancelling_a_wait_for_changes_leaves_no_thread(file: Path) -> None:
    async with watching(file, look_again_s=600) as (_, changes):
        coming = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        coming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await coming
