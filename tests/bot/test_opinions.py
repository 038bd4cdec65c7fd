"""Who tells calls by sound what silence leaves open: who is asked, and whose word counts."""

from __future__ import annotations

import pytest

from bot.agents import Agent
from bot.opinions import opinions
from bot.settings import Settings
from bot.turn_end_judges import TurnEndJudges
from bot.turn_settings import TurnSettings
from pipeline.turn_end import NET, SMART_TURN
from pipeline.turns import Opinion

ENGLISH, GERMAN = Agent(name="A"), Agent(name="A", language="de")
SURE, UNSURE, SURE_NOT = NET.finished, (NET.finished + NET.unfinished) / 2, NET.unfinished


def settings(**turns: object) -> Settings:
    return Settings.model_construct(turns=TurnSettings.model_validate(turns))


async def test_an_agents_callers_are_judged_by_who_knows_their_language() -> None:
    english, german = await opinions(settings(), ENGLISH), await opinions(settings(), GERMAN)
    assert english.kinds is not None
    assert german.kinds is None
    assert english.turn_end is not None
    assert german.turn_end is not None
    assert english.turn_end is not german.turn_end
    assert (await opinions(settings(), ENGLISH)).turn_end is english.turn_end  # one for all calls
    without = await opinions(settings(smart_turn=False, judge_ms=0), GERMAN)
    assert (without.turn_end, without.kinds) == (None, None)
    assert (await opinions(settings(smart_turn=False, judge_ends=False), ENGLISH)).turn_end is None
    assert (await opinions(settings(smart_turn=False), ENGLISH)).turn_end is not None


@pytest.mark.parametrize(
    ("net", "smart_turn", "wanted", "asks"),
    [
        (SURE, 0.0, "finished", False),  # sure of that it is not doubted
        (UNSURE, 1.0, "finished", True), (0.3, 0.0, "unfinished", True), (UNSURE, None, "open", True),
        (SURE_NOT, 1.0, "open", True), (SURE_NOT, 0.1, "unfinished", True),
        (SURE_NOT, None, "unfinished", True),
        (None, SMART_TURN.finished, "finished", True), (None, SMART_TURN.unfinished, "unfinished", True),
        (None, None, "open", True),
    ],
)  # fmt: skip
async def test_smart_turn_is_asked_unless_the_net_is_sure_that_it_is_over(
    net: float | None, smart_turn: float | None, wanted: Opinion, asks: bool
) -> None:
    asked = []

    async def second(pcm: bytes) -> float | None:
        asked.append(pcm)
        return smart_turn

    judges = TurnEndJudges(None if net is None else lambda _: net, second)
    assert await judges(b"sound") == wanted
    assert asked == [b"sound"] * asks


@pytest.mark.parametrize(("net", "wanted"), [(SURE, "finished"), (UNSURE, "open"), (SURE_NOT, "unfinished")])
async def test_the_net_alone_says_what_it_is_sure_of(net: float, wanted: Opinion) -> None:
    assert await TurnEndJudges(lambda _: net, None)(b"sound") == wanted
