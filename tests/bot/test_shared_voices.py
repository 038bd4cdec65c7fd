"""Voices over Redis: two machines, one of which has the folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from bot.voices import shared as shared_module
from bot.voices.finder import voice_finder
from bot.voices.library import LibraryError
from bot.voices.shared import SharedVoices, entries, put, sharing
from model_runtime.library import packed
from model_runtime.library.entry import Entry
from model_runtime.library.shelf import put as put_on_shelf
from pipeline.memory import Archive, MemoryUnavailable, VoiceStore
from tests.model_runtime.library.test_shelf import about, voice
from tests.pipeline.memory.redis_server import RedisServer, log, running_redis, until


@pytest_asyncio.fixture
async def server() -> AsyncIterator[RedisServer]:
    async with running_redis() as running:
        yield running


@pytest_asyncio.fixture
async def store(server: RedisServer) -> AsyncIterator[VoiceStore]:
    async with Archive(server.url, "default") as opened:
        yield opened.voices


def add(folder: Path, name: str, seed: int = 0) -> bytes:
    return put_on_shelf(folder, name, voice(seed), about()).read_bytes()


async def test_one_machines_voice_is_anothers(store: VoiceStore, tmp_path: Path) -> None:
    file = add(tmp_path / "here", "emma")
    here, there = SharedVoices(store, tmp_path / "here"), SharedVoices(store, tmp_path / "there")
    await there.look()
    assert (there.entries, await there.timbre("emma")) == ({}, b"")
    await here.look()
    assert list(here.entries) == ["emma"]
    before = there.changes
    await there.look()
    assert there.changes > before
    assert there.entries["emma"].consent == "nobody was recorded"
    assert await there.timbre("emma") == file
    add(tmp_path / "here", "otto", 1)
    await here.look()
    await there.look()
    assert list(there.entries) == ["emma", "otto"]
    before = there.changes
    await there.look()
    assert there.changes == before


async def test_what_somebody_removed_is_not_brought_by_another(store: VoiceStore, tmp_path: Path) -> None:
    add(tmp_path, "emma")
    here = SharedVoices(store, tmp_path)
    await here.look()
    await store.remove("emma")
    with log() as lines:
        await here.look()
        await here.look()
    assert len(lines) == 1
    assert "emma.safetensors is still there" in lines[0]
    assert (dict(here.entries), await here.timbre("emma")) == ({}, b"")
    with log() as lines:
        again = SharedVoices(store, tmp_path)  # a Parley that starts now
        await again.look()
    assert len(lines) == 1
    assert dict(again.entries) == {}


async def test_of_two_folders_with_a_voice_of_one_name_the_first_is_shared_until_it_is_replaced(
    store: VoiceStore, tmp_path: Path
) -> None:
    first, second = add(tmp_path / "a", "emma", 1), add(tmp_path / "b", "emma", 2)
    a, b = SharedVoices(store, tmp_path / "a"), SharedVoices(store, tmp_path / "b")
    for one in (a, b, a):
        await one.look()
    assert await b.timbre("emma") == first
    await put(store, "emma", second, replace=True)
    assert await a.timbre("emma") == second


async def test_what_is_no_voice_is_said_once_and_not_shared(store: VoiceStore, tmp_path: Path) -> None:
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    (tmp_path / "No Name.safetensors").write_bytes(b"torn")
    here = SharedVoices(store, tmp_path)
    with log() as lines:
        await here.look()
        add(tmp_path, "emma")
        await here.look()
    assert len(lines) == 1
    assert "torn" in lines[0]
    assert list(here.entries) == ["emma"]
    with pytest.raises(packed.Unusable, match="at most"):
        await put(store, "huge", bytes(shared_module.MOST_BYTES + 1), replace=True)


async def test_without_redis_the_folder_does(server: RedisServer, store: VoiceStore, tmp_path: Path) -> None:
    file = add(tmp_path, "emma")
    (tmp_path.parent / "secret.safetensors").write_bytes(b"not to be read")
    server.kill()
    here = SharedVoices(store, tmp_path)
    with pytest.raises(MemoryUnavailable):
        await here.look()
    assert await here.timbre("emma") == file
    assert await here.timbre("../secret") == b""
    assert await here.timbre("nobody") == b""


async def test_an_outage_is_told_once_and_afterwards_all_is_there(
    server: RedisServer, store: VoiceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_module, "LOOK_EVERY_S", 0.01)
    add(tmp_path, "emma")
    server.kill()
    with log() as lines:
        async with sharing(store, tmp_path) as here:

            async def tried() -> bool:
                return bool(lines)

            await until(tried)
            await server.start()

            async def known() -> bool:
                return list(here.entries) == ["emma"]

            await until(known, "the voice")
    assert sum("not shared over Redis" in line for line in lines) <= 2  # refused, and then perhaps not there


async def test_what_redis_tells_of_a_voice_may_be_damaged(
    server: RedisServer, store: VoiceStore, tmp_path: Path
) -> None:
    await store.put("emma", b'{"name": 1}', b"file")
    there = SharedVoices(store, tmp_path)
    with log() as lines:
        await there.look()
    assert "emma" in lines[0]
    assert dict(there.entries) == {}


async def test_those_that_can_be_told_of_are_told_as_another_machines(
    server: RedisServer, store: VoiceStore, tmp_path: Path
) -> None:
    assert await entries(store) == []
    for name in ("otto", "emma"):
        await put(store, name, add(tmp_path, name), replace=True)
    await store.put("torn", b"torn", b"file")
    await store.remove("otto")
    (emma,) = await entries(store)
    assert (emma.name, emma.origin, emma.consent) == ("emma", "shared", "nobody was recorded")


async def test_a_shared_voice_is_found_by_its_description(store: VoiceStore, tmp_path: Path) -> None:
    def nothing_to_read() -> list[Entry]:
        raise LibraryError("there is no checkpoint on this machine.")

    await put(store, "emma", add(tmp_path / "there", "emma"), replace=True)
    here = SharedVoices(store, tmp_path / "here")
    await here.look()
    async with voice_finder(nothing_to_read, tmp_path / "here", here) as finder:
        found = await finder.find("a test")
    assert found is not None
    assert found.name == "emma"
