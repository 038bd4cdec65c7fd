"""Whether a caller who pauses has finished: what is made of a likelihood, and what a call does with it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from model_runtime.protocol import INPUT_RATE, Respond
from pipeline import page_messages as page
from pipeline.agent import CallAgent
from pipeline.turn_end import FINISHED, UNFINISHED, TurnEnd, opinion
from pipeline.turns import Opinion, TurnSettings
from tests.pipeline.scene import SETTINGS, echo, scene
from tests.pipeline.scripted_engine import eventually

PATIENT = replace(SETTINGS, turns=TurnSettings(end_ms=1000, finished_ms=350, unfinished_ms=2000))


@pytest.mark.parametrize(
    ("likelihood", "wanted"),
    [
        (None, "open"), (1.0, "finished"), (FINISHED, "finished"), (FINISHED - 0.01, "open"),
        (UNFINISHED + 0.01, "open"), (UNFINISHED, "unfinished"), (0.0, "unfinished"),
    ],
)  # fmt: skip
def test_only_what_is_sure_counts(likelihood: float | None, wanted: Opinion) -> None:
    assert opinion(likelihood) == wanted


def telling(likelihood: float | None, heard: list[bytes]) -> CallAgent:
    """An agent whose callers all sound so."""

    async def turn_end(pcm: bytes) -> float | None:
        heard.append(pcm)
        return likelihood

    return CallAgent("Mute", turn_end=turn_end)


@pytest.mark.parametrize(
    ("likelihood", "waited_ms", "answered_ms"), [(0.99, 300, 500), (None, 900, 1200), (0.01, 1900, 2200)]
)
async def test_a_call_waits_for_as_long_as_its_caller_sounds(
    likelihood: float | None, waited_ms: int, answered_ms: int
) -> None:
    heard: list[bytes] = []
    async with scene(echo("Yes."), agent=telling(likelihood, heard), settings=PATIENT) as call:
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

    async def slow(pcm: bytes) -> float | None:
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
    async def never(pcm: bytes) -> float | None:
        return None

    named: TurnEnd = never
    assert CallAgent("A", turn_end=named).turn_end is never
    assert CallAgent("A").turn_end is None
