"""Knowledge whose vectors are in a Redis: callers find the same, whatever becomes of it."""

from __future__ import annotations

import asyncio
import shutil
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from pydantic import SecretStr

from bot.knowledge import base as base_module
from bot.knowledge import knowledge as knowledge_module
from bot.knowledge import shared
from bot.knowledge.knowledge import Answer, Knowledge
from bot.knowledge.passages import Passage
from bot.knowledge.store import Store
from bot.knowledge.vectors import Vectors, coded
from bot.remembering import shared_vectors
from bot.settings import KnowledgeSettings, RedisSettings, Settings
from pipeline.memory import Memory, MemoryUnavailable, VectorStore
from pipeline.memory import vectors as vectors_module
from pipeline.memory.vectors import NEAR_S
from tests.pipeline.memory.redis_server import (
    LONG_S,
    RedisServer,
    drop,
    log,
    redis_with_vectors,
    running_redis,
    until,
)

DEBIANS = Path("/usr/bin/redis-server")
WORDS = [a + b for a in ("ba", "de", "fi", "go", "lu", "mi", "no", "ra") for b in ("k", "n", "s", "t", "r")]


class Letters:
    """An encoder to which words mean the same if they begin alike: "bak" and "ban" are near."""

    name, width = "letters", 32

    def query(self, text: str) -> Vectors:
        vector: Vectors = self.passages([text])[0]
        return vector

    def passages(self, texts: list[str]) -> Vectors:
        told = np.stack([np.sum([self._meaning(word) for word in text.split()], 0) for text in texts])
        return np.asarray(told / np.linalg.norm(told, axis=1, keepdims=True), np.float32)

    def _meaning(self, word: str) -> Vectors:
        draw = [np.random.default_rng(zlib.crc32(part.encode())) for part in (word[:2], word)]
        about, itself = (one.standard_normal(self.width, dtype=np.float32) for one in draw)
        return np.asarray(3 * about + itself, np.float32)


def mark(number: int, place: int) -> str:
    """A word that only that passage has."""
    return "q" + "".join("abcdefghij"[int(digit)] for digit in f"{number:02}{place:02}") + "x"


def document(number: int) -> list[Passage]:
    draw = np.random.default_rng(number)
    return [Passage(" ".join(draw.choice(WORDS, 6)) + f" {mark(number, place)}") for place in range(20)]


def put(store: Store, number: int, told: list[Passage] | None = None) -> None:
    told = told or document(number)
    encoder = Letters()
    codes = coded(encoder.passages([one.text for one in told]))
    store.put(f"{number}.md", f"digest of {told}", 1, told, codes, encoder.name)


def change(folder: Path, *numbers: int, remove: tuple[int, ...] = ()) -> None:
    with closing(Store(folder, "shop", create=True, writing=True)) as store:
        for number in numbers:
            put(store, number)
        if remove:
            store.remove([f"{number}.md" for number in remove])


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knowledge_module, "load_encoder", lambda _: Letters())
    monkeypatch.setattr(shared, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(shared, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(shared, "REST_S", 0.2)
    monkeypatch.setattr(shared, "TRY_AGAIN_S", (0.01,))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With 200 passages."""
    change(tmp_path, *range(10))
    return tmp_path


@asynccontextmanager
async def knowing(folder: Path, url: str = "") -> AsyncIterator[Knowledge]:
    """A Parley's knowledge; with a Redis, or by itself."""
    settings = KnowledgeSettings(folder=folder, least_likeness=0.5)
    if not url:
        async with Knowledge(settings, limit=10) as knowledge:
            yield knowledge
        return
    memory = Memory(url)
    try:
        async with Knowledge(settings, limit=10, vectors=memory.vectors) as knowledge:
            yield knowledge
    finally:
        await drop(memory)


@pytest_asyncio.fixture
async def redis8() -> AsyncIterator[RedisServer]:
    async with running_redis(redis_with_vectors()) as running:
        yield running


async def times(server: RedisServer, command: str) -> int:
    """How often Redis was told to do something."""
    said = await server.do("INFO", "commandstats")
    assert isinstance(said, dict)
    return int(said.get(f"cmdstat_{command}", {}).get("calls", 0))


async def asked_of(server: RedisServer, knowledge: Knowledge) -> None:
    """Wait until searches are asked of Redis."""

    async def asked() -> bool:
        before = await times(server, "VSIM")
        assert (await knowledge.search("shop", "bas")).fault == ""
        return await times(server, "VSIM") > before

    await until(asked, "the first search that Redis is asked for")


QUESTIONS = ["bax dex", "fiq", "gow luw miw", "now raw", mark(3, 7), "bak den", "", "rax rax"]


async def found(knowledge: Knowledge) -> list[Answer]:
    return [await knowledge.search("shop", question) for question in QUESTIONS]


async def finds_as_in_memory(knowledge: Knowledge, folder: Path) -> None:
    """The same passages as exact search does, with the same scores, but for what rounding does: two that are
    equally near may change places, and one at the edge of what is near be in or out."""
    async with knowing(folder) as alone:
        for one, other in zip(await found(knowledge), await found(alone), strict=True):
            assert one.fault == other.fault == ""
            here = {hit.text: hit.score for hit in one.hits}
            exact = {hit.text: hit.score for hit in other.hits}
            assert len(here.keys() ^ exact.keys()) <= 2, (one, other)
            for text in here.keys() & exact.keys():
                assert here[text] == pytest.approx(exact[text], abs=0.01)


def in_memory(knowledge: Knowledge) -> bool:
    """Whether it has the vectors."""
    return knowledge._bases["shop"]._nearest is not None


async def test_the_same_is_found_and_the_vectors_leave_the_memory(
    folder: Path, redis8: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_module, "SPARE_S", 0.0)
    async with knowing(folder, redis8.url) as knowledge:
        await finds_as_in_memory(knowledge, folder)  # before Redis has anything
        assert in_memory(knowledge)
        await asked_of(redis8, knowledge)
        before = await times(redis8, "VSIM")
        assert (await knowledge.search("shop", "bax dex")).hits  # which no document has
        await finds_as_in_memory(knowledge, folder)
        assert await times(redis8, "VSIM") - 1 == before + len(QUESTIONS) - 1  # "" is asked of nobody
        assert not in_memory(knowledge)
    async with knowing(folder, redis8.url) as knowledge:  # another process writes nothing
        await asked_of(redis8, knowledge)
    assert await times(redis8, "VADD") == 200


async def test_a_base_that_changes_is_another_edition_made_of_the_one_before(
    folder: Path, redis8: RedisServer
) -> None:
    async with knowing(folder, redis8.url) as knowledge:
        await asked_of(redis8, knowledge)
        (first,) = await redis8.keys()
        change(folder, 10, remove=(3,))
        await finds_as_in_memory(knowledge, folder)
        assert (await knowledge.search("shop", mark(10, 4))).hits
        assert all(mark(3, 4) not in hit.text for hit in (await knowledge.search("shop", mark(3, 4))).hits)
        await asked_of(redis8, knowledge)
        await finds_as_in_memory(knowledge, folder)
        (second,) = await redis8.keys()
        assert first != second
        assert (await times(redis8, "VADD"), await times(redis8, "VREM")) == (220, 20)
        change(folder, *range(20, 40), remove=tuple(range(4, 11)))  # nearly all of it: anew
        await asked_of(redis8, knowledge)
        await finds_as_in_memory(knowledge, folder)
        assert await times(redis8, "VREM") == 20


async def test_redis_dies_and_comes_back_and_nobody_waits(folder: Path, redis8: RedisServer) -> None:
    async with knowing(folder, redis8.url) as knowledge:
        await asked_of(redis8, knowledge)
        redis8.kill()
        with log("INFO") as lines:
            for _ in range(2):
                await finds_as_in_memory(knowledge, folder)
            assert len([line for line in lines if "looked for here" in line]) == 1
            await redis8.start()  # with nothing in it
            await asked_of(redis8, knowledge)
            assert lines[-1] == "knowledge: Redis is asked again for what is near"
        await finds_as_in_memory(knowledge, folder)


async def test_a_slow_redis_is_waited_for_now_and_again(
    folder: Path, redis8: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    nearest, waits = VectorStore.nearest, []

    async def timed(*arguments: Any) -> dict[bytes, float]:
        began = time.monotonic()
        try:
            return await nearest(*arguments)
        finally:
            waits.append((began, time.monotonic()))

    async with knowing(folder, redis8.url) as knowledge:
        await asked_of(redis8, knowledge)
        redis8.freeze()
        with log() as lines, monkeypatch.context() as patched:
            patched.setattr(vectors_module, "NEAR_S", NEAR_S)
            patched.setattr(VectorStore, "nearest", timed)
            await finds_as_in_memory(knowledge, folder)
        redis8.thaw()
        assert len(lines) == 1
        assert f"looked for here: Redis did not answer in {NEAR_S:g} s" in lines[0]
        for (_, ended), (began, _) in pairwise(waits):
            assert began - ended >= shared.REST_S
        await asked_of(redis8, knowledge)


async def test_what_was_erased_is_written_again(folder: Path, redis8: RedisServer) -> None:
    async with knowing(folder, redis8.url) as knowledge:
        await asked_of(redis8, knowledge)
        for what in (("FLUSHALL",), ("SET", next(iter(await redis8.keys())), "x")):
            with log() as lines:
                await redis8.do(*what)
                await finds_as_in_memory(knowledge, folder)
                await asked_of(redis8, knowledge)
            await finds_as_in_memory(knowledge, folder)
            assert len(lines) == (what[0] == "SET"), lines


async def test_machines_with_equal_documents_share_an_edition(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, redis8: RedisServer
) -> None:
    other = tmp_path_factory.mktemp("other")
    change(other, *reversed(range(12)))  # in another order, so by other ids
    change(other, remove=(10, 11))
    third = tmp_path_factory.mktemp("third")
    shutil.copytree(folder, third, dirs_exist_ok=True)
    change(third, 99)
    async with (
        knowing(folder, redis8.url) as one,
        knowing(other, redis8.url) as same,
        knowing(third, redis8.url) as differing,
    ):
        parleys = {one: folder, same: other, differing: third}
        for parley in parleys:
            await parley.search("shop", "bas")
        for parley in parleys:
            await asked_of(redis8, parley)
        for parley, here in parleys.items():
            await finds_as_in_memory(parley, here)
    assert len(await redis8.keys()) == 2
    assert await times(redis8, "VADD") == 200 + 220


async def test_what_another_finished_after_a_look_is_not_written_again(
    folder: Path, redis8: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, finished = asyncio.Event(), asyncio.Event()
    look = VectorStore.look

    async def slowly(store: VectorStore, edition: str, count: int) -> bool:
        found = await look(store, edition, count)
        if not looked.is_set():
            looked.set()
            await finished.wait()
        return found

    async with knowing(folder, redis8.url) as late, knowing(folder, redis8.url) as one:
        monkeypatch.setattr(VectorStore, "look", slowly)
        await late.search("shop", "bas")
        await looked.wait()
        await asked_of(redis8, one)
        finished.set()
        await asked_of(redis8, late)
    assert await times(redis8, "VADD") == 200


def _others() -> Iterator[Path | None]:
    yield None  # our own's, 6.2
    if DEBIANS.exists():
        yield DEBIANS  # 7


@pytest.mark.parametrize("program", _others(), ids=str)
async def test_a_redis_without_vector_sets_is_told_of_once(folder: Path, program: Path | None) -> None:
    async with running_redis(program) as server, knowing(folder, server.url) as knowledge:
        with log("INFO") as lines:
            for _ in range(3):
                await finds_as_in_memory(knowledge, folder)
        assert [line for line in lines if "no vector sets" in line] == lines
        assert len(lines) == 1
        assert await server.keys() == set()


async def test_a_redis_without_room_is_not_filled_again_and_again(folder: Path, redis8: RedisServer) -> None:
    used = await redis8.do("INFO", "memory")
    assert isinstance(used, dict)
    await redis8.do("CONFIG", "SET", "maxmemory", used["used_memory"] + 250_000)
    async with knowing(folder, redis8.url) as knowledge:
        with log() as lines:
            await finds_as_in_memory(knowledge, folder)

            async def refused() -> bool:
                return bool(lines)

            await until(refused, "the refusal")
            await asyncio.sleep(1.0)
            await finds_as_in_memory(knowledge, folder)
        assert len(lines) == 1
        assert "maxmemory" in lines[0]
        assert await times(redis8, "VADD") < 6 * 200  # of some fifty times that it looked

        async def empty() -> bool:
            return not await redis8.keys()

        await until(empty, "the end of what could not be whole")
        await redis8.do("CONFIG", "SET", "maxmemory", 0)
        await asked_of(redis8, knowledge)


async def test_a_moment_without_redis_does_not_make_the_writing_begin_anew(
    folder: Path, redis8: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, read = Knowledge._vectors, []
    add, failed = VectorStore.add, []

    async def frozen_once(self: Knowledge, name: str, document: str) -> list[tuple[bytes, bytes]]:
        read.append(document)
        if len(read) == 5:
            redis8.freeze()
            monkeypatch.setattr(vectors_module, "STEP_S", 0.2)
        return await before(self, name, document)

    async def thawing(*arguments: Any) -> bool:
        try:
            return await add(*arguments)
        except MemoryUnavailable as error:
            failed.append(str(error))
            redis8.thaw()
            monkeypatch.setattr(vectors_module, "STEP_S", LONG_S)
            raise

    monkeypatch.setattr(Knowledge, "_vectors", frozen_once)
    monkeypatch.setattr(VectorStore, "add", thawing)
    async with knowing(folder, redis8.url) as knowledge:
        with log() as lines:
            await asked_of(redis8, knowledge)
        await finds_as_in_memory(knowledge, folder)
    assert failed == ["Redis did not answer in 0.2 s"]
    assert (len(read), len(set(read)), lines) == (10, 10, [])


async def test_a_document_that_goes_while_it_is_written_leaves_nothing_half(
    folder: Path, redis8: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Knowledge._vectors
    to_remove = [tuple(range(9))]

    async def removed_meanwhile(self: Knowledge, name: str, document: str) -> list[tuple[bytes, bytes]]:
        if to_remove:
            change(folder, remove=to_remove.pop())
        return await before(self, name, document)

    monkeypatch.setattr(Knowledge, "_vectors", removed_meanwhile)
    async with knowing(folder, redis8.url) as knowledge:
        await asked_of(redis8, knowledge)
        await finds_as_in_memory(knowledge, folder)


async def test_a_base_without_vectors_asks_nobody(tmp_path: Path, redis8: RedisServer) -> None:
    with closing(Store(tmp_path, "shop", create=True, writing=True)) as store:
        store.put("a.md", "d", 1, document(1))
    async with knowing(tmp_path, redis8.url) as knowledge:
        assert (await knowledge.search("shop", mark(1, 3))).hits
        assert "There is no knowledge base" in (await knowledge.search("other", mark(1, 3))).fault
    assert await redis8.keys() == set()


@pytest.mark.parametrize(
    ("url", "wanted", "encoder", "shared_there"),
    [
        ("redis://localhost", True, Path("/encoder"), True),
        ("", True, Path("/encoder"), False),  # our own
        ("redis://localhost", False, Path("/encoder"), False),
        ("redis://localhost", True, None, False),
    ],
)
async def test_whose_redis_is_asked(url: str, wanted: bool, encoder: Path | None, shared_there: bool) -> None:
    settings = Settings(
        redis=RedisSettings(url=SecretStr(url)),
        knowledge=KnowledgeSettings(encoder=encoder, vectors_in_redis=wanted),
    )
    memory = Memory("unix:///nowhere")
    assert shared_vectors(settings, memory) is (memory.vectors if shared_there else None)
    await drop(memory)
