"""The caller pauses, and somebody says by their sound whether they have finished."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.turns import Drop, Finished, Heard, Opinion, Sounds, Speak, Speculate, Stop, Turns, TurnSettings
from tests.pipeline.floor import SETTINGS, Floor, answered, at


def paused(settings: TurnSettings = SETTINGS) -> Floor:
    """A second of speech, ended at 2000 ms, and the silence in which its answer is begun."""
    floor = Floor(Turns(settings), ms=1000)
    floor.speak(1000)
    assert isinstance(floor.silent(160)[-1], Speculate)
    return floor


@pytest.mark.parametrize(
    ("opinion", "wanted_ms"),
    [("finished", SETTINGS.finished_ms), ("open", SETTINGS.end_ms), ("unfinished", SETTINGS.unfinished_ms)],
)
def test_how_long_a_pause_must_last_depends_on_how_the_caller_sounds(
    opinion: Opinion, wanted_ms: int
) -> None:
    floor = paused()
    assert floor.go(Sounds(at(2000), opinion)) == []
    assert floor.quiet(wanted_ms - 160 - 20) == []
    assert floor.quiet(20) == [Speak(0)]
    assert floor.quiet(1000) == []


def test_a_caller_who_was_waited_for_goes_on_and_is_answered_once() -> None:
    floor = paused()
    floor.go(Sounds(at(2000), "unfinished"))
    assert floor.quiet(600) == []
    assert floor.speak(600) == [Drop(0)]
    assert floor.silent(160) == [Speculate(1, ((at(800), at(2100)), (at(2560), at(3460))), at(3360))]
    assert floor.quiet(220) == []
    assert floor.quiet(20) == [Speak(1)]  # what was heard of the pause before says nothing of this one


def test_what_is_heard_of_a_pause_that_is_over_is_forgotten() -> None:
    floor = paused()
    floor.speak(600)
    floor.go(Sounds(at(2000), "unfinished"))
    floor.silent(160)
    floor.go(Sounds(at(2000), "unfinished"))
    assert floor.quiet(220) == []
    assert floor.quiet(20) == [Speak(1)]
    assert floor.go(Sounds(at(2760), "unfinished")) == []  # and so is what comes when it may be heard


@pytest.mark.parametrize("opinion", ["finished", "unfinished"])
def test_who_has_finished_is_never_waited_for_longer_nor_who_has_not_for_less(opinion: Opinion) -> None:
    floor = paused(TurnSettings(end_ms=300, finished_ms=500, unfinished_ms=100))
    floor.go(Sounds(at(2000), opinion))
    assert floor.quiet(120) == []
    assert floor.quiet(20) == [Speak(0)]


def cut_in() -> Floor:
    """A word over an answer, which stopped it ("no, ..."), and the silence in which its own is begun."""
    floor = Floor(Turns(replace(SETTINGS, judge_ms=40)), midway="barge-in")
    answered(floor)
    assert Stop(0) in floor.speak(460)
    assert isinstance(floor.silent(160)[-1], Speculate)
    return floor


@pytest.mark.parametrize("opinion", ["finished", "open"])
def test_who_has_cut_in_with_a_word_is_left_time_to_go_on(opinion: Opinion) -> None:
    floor = cut_in()
    floor.go(Sounds(at(floor.ms - 160), opinion))
    assert floor.quiet(SETTINGS.unfinished_ms - 160 - 20) == []
    assert floor.speak(400) == [Drop(1)]  # "... wait": by now it is more than a word
    floor.silent(160)
    floor.go(Sounds(at(floor.ms - 160), opinion))
    wanted_ms = SETTINGS.finished_ms if opinion == "finished" else SETTINGS.end_ms
    assert floor.quiet(wanted_ms - 160 - 20) == []
    assert floor.quiet(20) == [Speak(2)]


def test_a_word_that_has_cut_in_is_answered_and_the_next_turn_is_like_any_other() -> None:
    floor = cut_in()
    assert floor.quiet(SETTINGS.unfinished_ms - 160) == [Speak(1)]
    floor.go(Heard(1))
    floor.go(Finished(1))
    floor.speak(460)
    assert isinstance(floor.silent(160)[-1], Speculate)
    assert floor.quiet(SETTINGS.end_ms - 160) == [Speak(2)]
