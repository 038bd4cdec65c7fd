"""What a call gets that looks something up: passages with their sources, or that there are none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from loguru import logger

from bot import check
from bot.knowledge.adding import File, add, files
from bot.knowledge.base import Base, Hit
from bot.knowledge.knowledge import AWAY, NOTHING, Answer, Knowledge, load_encoder
from bot.knowledge.passages import Passage
from bot.knowledge.store import KnowledgeError, Store
from bot.knowledge.vectors import Vectors, coded
from bot.settings import PACKAGE, KnowledgeSettings
from model_runtime.errors import EncoderError
from tests.bot.knowledge.encoders import meaning_encoder

SHOP = PACKAGE.parent / "docs" / "bluebird"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the example's documents."""
    made = tmp_path_factory.mktemp("knowledge")
    with closing(Store(made, "bluebird", create=True, writing=True)) as store:
        for file in files([SHOP]):
            assert add(store, None, file).what == "added"
    return made


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What is logged."""
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), format="{message}")
    yield lines
    logger.remove(sink)


async def test_the_model_reads_passages_under_their_sources(folder: Path) -> None:
    async with Knowledge(KnowledgeSettings(folder=folder)) as knowledge:
        answer = await knowledge.search("bluebird", "um what does the forty liter backpack weigh")
    assert answer.hits[0].where == "gear.md, line 20"
    assert answer.said().startswith("[gear.md, line 20] Our gear / Backpacks\nThe 40 l backpack")
    assert "1.1 kg" in answer.said()


@pytest.mark.parametrize(
    "question", ["what is the capital of mongolia", "", "um the", "'\" OR NEAR(a b) *", "\0"]
)
async def test_when_nothing_is_near_that_is_what_is_said(folder: Path, question: str) -> None:
    async with Knowledge(KnowledgeSettings(folder=folder)) as knowledge:
        answer = await knowledge.search("bluebird", question)
    assert (answer.hits, answer.fault, answer.said()) == ((), "", NOTHING)


def test_a_model_reads_whole_passages_and_not_too_many() -> None:
    hits = tuple(Hit(letter * 800, "a.md", (), 0, 0, 1.0) for letter in "xyz")
    said = Answer("x", hits).said()
    assert ("x" * 800 in said, "y" * 800 in said, "z" in said) == (True, True, False)
    assert "[a.md]" in said


async def test_no_more_than_the_limit(folder: Path) -> None:
    async with Knowledge(KnowledgeSettings(folder=folder), limit=2) as knowledge:
        assert len((await knowledge.search("bluebird", "tents")).hits) == 2
        assert len((await knowledge.search("bluebird", "tents", limit=1)).hits) == 1
        assert len((await knowledge.search("bluebird", "tents " * 10_000)).hits) == 2


async def test_a_call_goes_on_without_a_base_and_is_told_so_once(tmp_path: Path, told: list[str]) -> None:
    (tmp_path / "shop.knowledge").write_bytes(b"This is no database." * 500)
    async with Knowledge(KnowledgeSettings(folder=tmp_path)) as knowledge:
        for _ in range(2):
            answer = await knowledge.search("shop", "tents")
            assert "is damaged" in answer.fault
            assert answer.said() == AWAY
        assert "There is no knowledge base 'other'" in await knowledge.prepare("other")
        assert sum("is damaged" in line for line in told) == 1
        (tmp_path / "shop.knowledge").unlink()
        with closing(Store(tmp_path, "shop", create=True, writing=True)) as store:
            store.put("a.md", "d", 1, [Passage("We have tents.")])
        assert (await knowledge.search("shop", "tents")).hits  # somebody mended it
        assert await knowledge.prepare("shop") == ""


async def test_damage_within_a_base_is_told_and_ends_no_call(tmp_path: Path) -> None:
    with closing(Store(tmp_path, "shop", create=True, writing=True)) as store:
        for number in range(40):
            store.put(f"{number}.md", "d", 1, [Passage(f"Tent number {number} " + "of cloth " * 60)])
    content = bytearray((tmp_path / "shop.knowledge").read_bytes())
    content[8192 : len(content) - 4096] = b"\xff" * (len(content) - 12288)
    (tmp_path / "shop.knowledge").write_bytes(content)
    async with Knowledge(KnowledgeSettings(folder=tmp_path)) as knowledge:
        assert "is damaged" in (await knowledge.search("shop", "tent")).fault


async def test_a_file_that_is_cut_short_in_use_ends_no_process(tmp_path: Path) -> None:
    with closing(Store(tmp_path, "shop", create=True, writing=True)) as store:
        store.put("a.md", "d", 1, [Passage(f"Tent {number}, article {number}.") for number in range(2_000)])
    async with Knowledge(KnowledgeSettings(folder=tmp_path)) as knowledge:
        assert (await knowledge.search("shop", "tent 7")).hits
        with (tmp_path / "shop.knowledge").open("r+b") as file:
            file.truncate(8_192)
        answers = [await knowledge.search("shop", f"article {number}") for number in range(0, 2_000, 100)]
    assert any("is damaged" in answer.fault for answer in answers)


async def test_the_event_loop_is_free_while_a_search_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    before = Base.search

    def slow(self: Base, text: str, limit: int) -> object:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(may_end.wait(), loop).result(30)
        return before(self, text, limit)

    monkeypatch.setattr(Base, "search", slow)
    async with Knowledge(KnowledgeSettings(folder=folder)) as knowledge:
        search = asyncio.create_task(knowledge.search("bluebird", "tents"))
        await begun.wait()
        may_end.set()
        assert (await search).hits


# By meaning

MEANINGS = {"repair": 0, "mend": 0, "fix": 0, "boots": 1, "shoes": 1, "open": 2, "hours": 2}
TOLD = [Passage("We repair boots."), Passage("Our hours are nine to six.")]


async def test_other_words_of_the_same_meaning_are_found_with_an_encoder(tmp_path: Path) -> None:
    meaning_encoder(tmp_path / "encoder", MEANINGS)
    encoder = load_encoder(tmp_path / "encoder")
    assert encoder is not None
    with closing(Store(tmp_path, "shop", create=True, writing=True)) as store:
        store.put("a.md", "d", 1, TOLD, coded(encoder.passages([one.text for one in TOLD])), encoder.name)
    by_words = KnowledgeSettings(folder=tmp_path)
    by_meaning = KnowledgeSettings(folder=tmp_path, encoder=tmp_path / "encoder", least_likeness=0.7)
    async with Knowledge(by_words) as words, Knowledge(by_meaning) as meaning:
        assert not (await words.search("shop", "mend shoes")).hits
        (hit,) = (await meaning.search("shop", "mend shoes")).hits
        assert hit.text == "We repair boots."
        assert hit.score > 0.9
        with closing(Store(tmp_path, "shop", writing=True)) as store:  # an open base learns of new vectors
            more = [Passage("Shoes and boots that nobody can mend.")]
            store.put("b.md", "d", 1, more, coded(encoder.passages([more[0].text])), encoder.name)
        assert len((await meaning.search("shop", "fix boots")).hits) == 2


class Failing:
    """An encoder that was read well and fails at work."""

    name, width = "failing", 4

    def query(self, text: str) -> Vectors:
        raise EncoderError("model.onnx: failed.")

    def passages(self, texts: list[str]) -> Vectors:
        raise EncoderError("model.onnx: failed.")


def test_an_encoder_that_fails_leaves_the_words(tmp_path: Path, told: list[str]) -> None:
    (tmp_path / "a.md").write_text("We repair boots.")
    with closing(Store(tmp_path, "shop", create=True, writing=True)) as store:
        store.put("b.md", "d", 1, TOLD)
        with pytest.raises(KnowledgeError, match=r"model\.onnx: failed"):
            add(store, Failing(), File(tmp_path / "a.md", "a.md"))
        assert len(store.documents()) == 1
    with closing(Base(tmp_path, "shop", Failing(), 0.4)) as base:
        assert base.search("repair boots", 3)
    assert any("by words alone: model.onnx: failed." in line for line in told)


def test_check_says_how_each_base_is_found(tmp_path: Path) -> None:
    def said(encoder: str = "") -> list[tuple[str, str]]:
        settings = KnowledgeSettings(folder=tmp_path, encoder=tmp_path / encoder if encoder else None)
        return [(finding.state, finding.said) for finding in check._knowledge(settings)]

    assert said() == []
    with closing(Store(tmp_path, "shop", create=True, writing=True)) as store:
        store.put("a.md", "d", 1, TOLD)
    (tmp_path / "broken.knowledge").write_bytes(b"This is no database." * 500)
    meaning_encoder(tmp_path / "encoder", MEANINGS)
    (broken, shop) = said()
    assert (broken[0], "is damaged" in broken[1]) == ("note", True)
    assert shop == ("ok", "shop: 1 document, found by words")
    assert said("encoder")[1][0] == "note"
    assert "without vectors of this encoder: 1" in said("encoder")[1][1]
    assert "should hold model.onnx" in said("nowhere")[0][1]


async def test_another_encoders_vectors_are_passed_over_and_a_broken_one_too(
    tmp_path: Path, told: list[str]
) -> None:
    with closing(Store(tmp_path, "shop", create=True, writing=True)) as store:
        store.put(
            "a.md",
            "d",
            1,
            TOLD,
            coded(meaning_encoder(tmp_path / "one", {"boots": 0}).passages(["a", "b"])),
            "x",
        )
    meaning_encoder(tmp_path / "two", MEANINGS)
    for encoder in ("two", "nowhere"):
        settings = KnowledgeSettings(folder=tmp_path, encoder=tmp_path / encoder)
        async with Knowledge(settings) as knowledge:
            assert (await knowledge.search("shop", "repair boots")).hits
            assert not (await knowledge.search("shop", "mend shoes")).hits
    assert any("searched by words alone" in line and "should hold model.onnx" in line for line in told)
    with pytest.raises(KnowledgeError, match=r"should hold model\.onnx and tokenizer\.json"):
        load_encoder(tmp_path / "nowhere")
