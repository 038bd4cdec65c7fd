"""Whether somebody takes a caller: what counts of what they press and say, and what does not."""

from __future__ import annotations

import pytest

from bot.ingress.sip.warm import Decision
from pipeline import page_messages as page
from pipeline.conversation import Exchange
from pipeline.tools.consent import ENGLISH

BRIEFING = "I have a caller for you. They want a tent! Will you take the call?"


def decision(*exchanges: Exchange) -> Decision:
    made = Decision(BRIEFING, ENGLISH)
    made.conversation.exchanges.extend(exchanges)
    return made


def said(turn: int, words: str | None, heard: str = "Thank you.") -> Exchange:
    return Exchange(turn, words, heard)


def decided(made: Decision) -> bool | None:
    return made.taken.result() if made.taken.done() else None


@pytest.mark.parametrize(
    ("keys", "taken"), [("1", True), ("2", False), ("51", True), ("21", False), ("3", None)]
)
async def test_keys_decide(keys: str, taken: bool | None) -> None:
    made = decision()
    for key in keys:
        made.pressed(key)
    assert decided(made) is taken


GREETED = Exchange(0, None, BRIEFING, spoken=False)


@pytest.mark.parametrize(
    ("heard", "words", "taken"),
    [
        (BRIEFING, "Yes, please.", True),
        (BRIEFING, "Yes, but who is it?", None),
        (BRIEFING, "Who is it?", None),
        (BRIEFING, "No, I can't now.", False),
        (BRIEFING, None, None),
        ("I have a caller", "Yes?", None),  # they had not heard what it is about
        ("I have a caller", "Not now.", False),
    ],
)
async def test_words_decide_that_answer_the_question(
    heard: str, words: str | None, taken: bool | None
) -> None:
    made = decision(Exchange(0, None, heard, spoken=False), said(1, words))
    made.told(page.BotDone(1))
    assert decided(made) is taken


async def test_a_yes_before_anything_was_said_is_how_people_answer_a_phone() -> None:
    made = decision(said(0, "Yes?"))
    made.told(page.UserText(0, "Yes?"))
    made.told(page.BotText(0, "Hello"))
    assert decided(made) is None


async def test_words_that_are_written_down_late_count_and_the_first_decision_does() -> None:
    made = decision(GREETED, said(1, None))
    made.told(page.BotDone(1))
    assert decided(made) is None
    made.conversation.transcribe(1, "Sure.")
    made.told(page.UserText(1, "Sure."))
    made.over()
    assert decided(made) is True


async def test_who_hangs_up_does_not_take_the_call() -> None:
    made = decision(GREETED)
    made.over()
    assert decided(made) is False
