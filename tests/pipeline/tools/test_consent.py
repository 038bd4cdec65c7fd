"""Whether a caller has agreed, and to what."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.conversation import Exchange
from pipeline.tools.consent import ENGLISH, consented, words_of
from pipeline.tools.permission import needs_consent
from pipeline.tools.tool import Line, Tool

QUESTION = "Shall I put you through to sales?"


def asked(said: str | None, heard: str = QUESTION, **about: Any) -> bool:
    exchanges = [Exchange(3, "hello", heard), Exchange(4, said, "One moment.", **about)]
    return consented(exchanges, 4, QUESTION, ENGLISH)


@pytest.mark.parametrize(
    "said",
    [
        "Yes.",
        "yes please",
        "OK!",
        "Yeah, sure.",
        "Um, yes, put me through to sales.",
        "of course",
        "go ahead",
    ],
)
def test_a_yes_is_a_yes(said: str) -> None:
    assert asked(said)


@pytest.mark.parametrize(
    "said",
    ["", None, "no", "not now", "yes but not today", "yesterday", "please", "is it free?", "yes, refund me",
     "he said yes", "don't", "no, yes", "через час", "yes if you say so", "I do not think so, ok?"],
)  # fmt: skip
def test_anything_else_is_none(said: str | None) -> None:
    assert not asked(said)


@pytest.mark.parametrize(
    ("heard", "agreed"),
    [
        ("Certainly. Shall I put you through to sales?", True),
        ("shall i put you through, to SALES", True),
        ("Shall I put you through to", False),  # cut in on
        ("Shall I put you through to sales? Or do you like ice?", False),
        ("Shall I put you through to support?", False),
        ("Marshall I put you through to sales?", False),
        ("", False),
    ],
)
def test_the_whole_question_must_be_the_last_they_heard(heard: str, agreed: bool) -> None:
    assert asked("yes", heard) is agreed


def test_only_what_the_caller_said_themselves_counts() -> None:
    assert not asked("yes", spoken=False)
    assert not consented([Exchange(4, "yes")], 4, QUESTION, ENGLISH)  # nothing was asked before
    assert not consented([], 4, QUESTION, ENGLISH)
    assert not consented([Exchange(3, "a", "b"), Exchange(4, "yes")], 4, "?!", ENGLISH)  # no question at all


def test_other_languages_have_words_of_their_own() -> None:
    exchanges = [Exchange(0, "", "Soll ich Sie verbinden?"), Exchange(1, "Ja, bitte!")]
    german = words_of("ja genau", "bitte danke")
    assert consented(exchanges, 1, "Soll ich Sie verbinden?", german)
    assert not consented(exchanges, 1, "Soll ich Sie verbinden?", ENGLISH)


@given(st.text(), st.text())
def test_no_question_heard_is_no_consent(said: str, heard: str) -> None:
    assert not asked(said, heard + " 1")


async def nothing(_: dict[str, object], __: Line) -> str:
    raise AssertionError


@pytest.mark.parametrize(
    ("privileged", "confirm", "to_voice", "outside", "needs"),
    [
        (False, False, False, True, False),
        (True, False, True, False, False),
        (True, False, True, True, True),
        (True, False, False, False, True),
        (True, True, True, False, True),
    ],
)
def test_who_must_be_asked(
    privileged: bool, confirm: bool, to_voice: bool, outside: bool, needs: bool
) -> None:
    tool = Tool({}, nothing, privileged=privileged, confirm=confirm)
    assert needs_consent(tool, to_voice, outside) is needs
    assert tool.question({}) == "Shall I do that?"
