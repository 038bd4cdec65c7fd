"""What was looked up early is used only for the same question."""

from __future__ import annotations

import asyncio

import pytest

from bot.knowledge.early import EarlySearch
from bot.knowledge.knowledge import Answer
from bot.knowledge.ranking import settled, worthwhile
from bot.knowledge.words import ask


class Searches:
    """Remembers what it was asked, and answers when it is let."""

    def __init__(self, *, completes: str = "", fails: bool = False) -> None:
        self.asked: list[tuple[str, bool]] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._completes = completes
        self._fails = fails

    async def __call__(self, text: str, unfinished: bool) -> Answer:
        self.asked.append((text, unfinished))
        await self.may_answer.wait()
        if self._fails:
            raise RuntimeError("broken")
        return Answer(text, terms=ask(self._completes if unfinished and self._completes else text).terms)


async def test_an_early_answer_is_kept_when_the_rest_brings_nothing_new() -> None:
    search = Searches()
    async with EarlySearch(search) as early:
        early.hear("um can you repair my tent")
        answer = await early.answer("um can you repair my tent please")
    assert search.asked == [("um can you repair my tent", True)]
    assert answer.terms == {"repair", "tent"}


async def test_one_more_word_is_another_question() -> None:
    search = Searches()
    async with EarlySearch(search) as early:
        early.hear("can you repair my tent")
        answer = await early.answer("can you repair my tent poles")
    assert search.asked[1:] == [("can you repair my tent poles", False)]
    assert "pole" in answer.terms


@pytest.mark.parametrize(("final", "searches"), [("warm sleeping", 1), ("warm sleet", 2)])
async def test_a_word_cut_short_has_to_become_the_one_it_was_taken_for(final: str, searches: int) -> None:
    search = Searches(completes="warm sleeping")
    async with EarlySearch(search) as early:
        early.hear("warm slee")
        assert (await early.answer(final)).terms == ask(final).terms
    assert len(search.asked) == searches


async def test_one_search_at_a_time_and_none_for_the_same() -> None:
    search = Searches()
    search.may_answer.clear()
    async with EarlySearch(search) as early:
        for text in ("repair", "repair tent", "repair tent poles"):
            early.hear(text)
            await asyncio.sleep(0)
        assert search.asked == [("repair tent", True)]  # one word is too little, and then one was running
        search.may_answer.set()
        await early.answer("repair tent")
        early.hear("the repair of a tent")
        assert len(search.asked) == 1
        early.hear("repair tent poles")
        await asyncio.sleep(0)
        assert len(search.asked) == 2


async def test_an_early_search_that_fails_is_made_again() -> None:
    search = Searches(fails=True)
    async with EarlySearch(search) as early:
        early.hear("repair tent")
        with pytest.raises(RuntimeError):
            await early.answer("repair tent")
    assert len(search.asked) == 2


async def test_leaving_ends_a_search_that_nobody_waits_for() -> None:
    search = Searches()
    search.may_answer.clear()
    async with EarlySearch(search) as early:
        early.hear("repair tent")
        await asyncio.sleep(0)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


def test_what_settles_a_question_and_what_is_worth_a_search() -> None:
    assert settled({"tent", "repair"}, ask("repair my tents please"))
    assert not settled({"tent"}, ask("repair my tents"))
    assert not settled({"tent", "repair"}, ask("tents"))
    assert not settled(set(), ask("um"))
    assert worthwhile(ask("repair tents"), ())
    assert not worthwhile(ask("repair tents"), {"tent", "repair"})
    assert not worthwhile(ask("tents"), ())
