"""Whether a caller who pauses has finished: what is made of a likelihood, and what a call does with it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from model_runtime.protocol import INPUT_RATE, Respond
from pipeline import page_messages as page
from pipeline.agent import CallAgent
from pipeline.turn_end import Bounds, TurnEnd, opinion, together
from pipeline.turns import Opinion, TurnSettings
from tests.pipeline.scene import SETTINGS, echo, scene
from tests.pipeline.scripted_engine import eventually

PATIENT = replace(SETTINGS, turns=TurnSettings(end_ms=1000, finished_ms=350, unfinished_ms=2000))


@pytest.mark.parametrize(
    ("likelihood", "wanted"),
    [
        (None, "open"), (1.0, "finished"), (0.9, "finished"), (0.89, "open"), (0.21, "open"),
        (0.2, "unfinished"), (0.0, "unfinished"),
    ],
)  # fmt: skip
def test_only_what_is_sure_counts(likelihood: float | None, wanted: Opinion) -> None:
    assert opinion(likelihood, Bounds(0.2, 0.9)) == wanted


def test_two_judges_are_as_sure_as_both_are() -> None:
    assert together(0.8, 0.5, 0.8) == pytest.approx(0.8)
    assert together(0.99, 0.5, 0.01) == pytest.approx(0.5)
    assert together(0.99, 1.0, 0.01) == pytest.approx(0.99)
    assert 0.8 < together(0.99, 0.7, 0.5) < 0.99
    for certain in (0.0, 1.0):  # nobody's word alone is taken for more than it can be
        assert 0.1 < together(certain, 0.5, 1 - certain) < 0.9


def telling(told: Opinion, heard: list[bytes]) -> CallAgent:
    """An agent whose callers all sound so."""

    async def turn_end(pcm: bytes) -> Opinion:
        heard.append(pcm)
        return told

    return CallAgent("Mute", turn_end=turn_end)


@pytest.mark.parametrize(
    ("told", "waited_ms", "answered_ms"),
    [("finished", 300, 500), ("open", 900, 1200), ("unfinished", 1900, 2200)],
)
async def test_a_call_waits_for_as_long_as_its_caller_sounds(
    told: Opinion, waited_ms: int, answered_ms: int
) -> None:
    heard: list[bytes] = []
    async with scene(echo("Yes."), agent=telling(told, heard), settings=PATIENT) as call:
        await call.ready()
        call.line.let_play(1000)
        await call.caller(silence=1000)
        await call.caller(voice=600, silence=300)
        await eventually(lambda: len(heard) == 1, "the question how it sounds")
        await call.caller(silence=waited_ms - 300)
        assert not call.line.played
        await call.caller(silence=answered_ms - waited_ms)
        await eventually(lambda: bool(call.seen(page.BotText)), "the answer")
    # the turn, half a second before it, and what there was of the pause
    assert 500 + 600 + 100 <= 1000 * len(heard[0]) / 2 / INPUT_RATE <= 500 + 600 + 300


async def test_a_caller_who_goes_on_is_not_waited_for_and_a_call_may_end_meanwhile() -> None:
    asked = asyncio.Event()

    async def slow(pcm: bytes) -> Opinion:
        asked.set()
        await asyncio.sleep(3600)
        raise AssertionError

    agent: CallAgent = CallAgent("Mute", turn_end=slow)
    async with scene(echo("Yes."), agent=agent, settings=PATIENT) as call:
        await call.ready()
        call.line.let_play(1000)
        await call.caller(voice=600, silence=1200)  # nobody has said anything: silence decides
        assert asked.is_set()
        await eventually(lambda: bool(call.seen(page.BotText)), "the answer")
        assert len(call.engine.all(Respond)) == 1
    # ``scene`` sees that no task is left of it


def test_what_is_asked_has_the_agreed_shape() -> None:
    async def never(pcm: bytes) -> Opinion:
        return "open"

    named: TurnEnd = never
    assert CallAgent("A", turn_end=named).turn_end is never
    assert CallAgent("A").turn_end is None
