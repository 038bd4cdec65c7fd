"""Somebody knows by its sound what is said over an answer: while it goes on, and at the pause behind it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.segmenter import SpeechStart
from pipeline.turns import (
    Action,
    Dip,
    Duck,
    Hold,
    Judge,
    Judged,
    Meaning,
    Resume,
    Speculate,
    Stop,
    Tick,
    Turns,
)
from tests.pipeline.floor import INTERRUPTED, SETTINGS, Floor, answered, at

JUDGED = replace(SETTINGS, judge_ms=80)


def judging() -> Floor:
    """... at the pause after 300 ms of speech over an answer, and 80 ms of silence."""
    floor = Floor(Turns(JUDGED), ms=1000, midway="open")
    answered(floor)
    begun = floor.ms
    assert floor.speak(300) + floor.silent(60) == [Duck(0), Hold(0)]
    assert floor.silent(20, begun=60) == [Judge(0, (at(begun), at(begun + 300)))]
    return floor


def test_a_word_that_wants_the_floor_gets_it_at_the_pause() -> None:
    floor = judging()
    assert floor.go(Judged(0, "barge-in")) == [Stop(0)]
    (begun,) = floor.silent(80, begun=80)
    assert isinstance(begun, Speculate)
    assert begun.turn == 1  # it is answered


def test_after_a_back_channel_the_answer_goes_on_at_the_pause() -> None:
    floor = judging()
    assert floor.go(Judged(0, "back-channel")) == [Resume(0)]
    assert floor.silent(400, begun=80) == []


def test_a_judgement_may_take_its_time() -> None:
    floor = judging()
    assert floor.silent(200, begun=80) == []
    assert floor.go(Judged(0, "back-channel")) == [Resume(0)]


def test_back_channels_do_not_add_up_to_an_interruption() -> None:
    floor = judging()
    floor.go(Judged(0, "back-channel"))
    floor.silent(420, begun=80)
    for _ in range(3):
        assert floor.speak(300) == [Duck(0), Hold(0)]
        assert isinstance(floor.silent(80)[-1], Judge)
        assert floor.go(Judged(0, "back-channel")) == [Resume(0)]
        floor.silent(320, begun=80)


def test_a_back_channel_that_goes_on_as_a_sentence_stops_the_answer() -> None:
    floor = judging()
    floor.go(Judged(0, "back-channel"))
    assert floor.quiet(20) + floor.speak(700, begun=400) == INTERRUPTED


def test_what_nobody_is_sure_of_is_left_to_its_length() -> None:
    floor = judging()
    assert floor.go(Judged(0, "open")) == []
    assert floor.silent(500, begun=80) == [Resume(0)]


def test_after_what_may_be_a_back_channel_it_goes_on_but_does_not_forget() -> None:
    floor = judging()
    assert floor.go(Judged(0, "likely back-channel")) == [Resume(0)]
    floor.silent(220, begun=80)
    assert floor.speak(200) == [Duck(0), Hold(0)]
    assert floor.speak(100, begun=200) == [Stop(0)]  # 600 ms with what was said before


def test_a_judgement_that_comes_too_late_is_none() -> None:
    floor = judging()
    floor.speak(20)
    assert floor.go(Judged(0, "back-channel")) == []
    assert floor.go(Judged(3, "barge-in")) == []


def talked_over(midway: Meaning | None = None) -> Floor:
    floor = Floor(Turns(JUDGED), ms=1000, midway=midway)
    answered(floor)
    return floor


def test_speech_long_enough_to_hold_still_for_is_judged_first() -> None:
    floor = talked_over()
    begun = floor.ms
    assert floor.speak(200) == [Duck(0), Judge(0, (at(begun), at(begun + 200)))]
    assert floor.go(Judged(0, "open")) == [Hold(0)]
    assert floor.speak(20, begun=200) == []
    assert floor.speak(20, begun=220) == [
        Judge(0, (at(begun), at(begun + 240)))
    ]  # and again, with more of it


def test_who_is_not_judged_in_time_is_given_way_to() -> None:
    floor = talked_over()
    floor.speak(200)
    assert floor.speak(20, begun=200) == [Hold(0)]
    assert floor.go(Judged(0, "back-channel")) == []


def test_a_back_channel_known_midway_is_not_held_still_for() -> None:
    floor = talked_over("back-channel")
    assert floor.speak(220) == [Duck(0)]
    assert floor.speak(280, begun=220) == [Resume(0)]  # known twice
    assert isinstance(floor.silent(80)[-1], Judge)
    assert floor.go(Judged(0, "back-channel")) == []


def test_what_only_began_like_a_back_channel_stops_it_at_the_pause() -> None:
    floor = talked_over("back-channel")
    assert floor.speak(300) == [Duck(0), Resume(0)]
    assert isinstance(floor.silent(80)[-1], Judge)
    assert floor.go(Judged(0, "barge-in")) == [Stop(0)]


def test_one_that_is_known_later_lets_the_answer_go_on_in_a_lower_voice() -> None:
    floor = talked_over("open")
    assert floor.speak(240) == [Duck(0), Hold(0)]
    floor.midway = "back-channel"
    assert floor.speak(40, begun=240) == [Duck(0)]
    floor.midway = "open"
    assert floor.speak(40, begun=280) == [Hold(0)]  # "okay, but ..."


def test_words_known_again_and_again_stop_it_before_they_are_long() -> None:
    floor = talked_over("barge-in")
    assert floor.speak(300) == [Duck(0), Hold(0)]
    assert floor.speak(20, begun=300) == [Stop(0)]


def test_what_sounds_like_words_for_a_moment_does_not() -> None:
    floor = talked_over("barge-in")
    floor.speak(300)
    floor.midway = "open"
    assert floor.speak(40, begun=300) == []
    floor.midway = "barge-in"
    assert floor.speak(120, begun=340) == []
    assert floor.speak(20, begun=460) == [Stop(0)]


def test_a_long_back_channel_stops_nothing_but_nobody_nods_for_ever() -> None:
    floor = talked_over("back-channel")
    assert floor.speak(880) == [Duck(0), Resume(0)]
    assert floor.speak(60, begun=880) == [Stop(0)]


def test_what_is_likely_a_back_channel_is_heard_a_little_longer_before_it_is_held_still_for() -> None:
    floor = talked_over("likely back-channel")
    assert floor.speak(220) == [Duck(0)]
    assert floor.speak(20, begun=220) == [Hold(0)]
    assert floor.speak(640, begun=240) == []
    assert floor.speak(60, begun=880) == [Stop(0)]  # by then it is none, whatever it sounds like


def test_a_noise_neither_stops_the_answer_nor_lowers_it_for_long() -> None:
    floor = talked_over("noise")
    assert floor.speak(5000) == [Duck(0), Resume(0)]
    assert floor.silent(1000) == []
    assert floor.turns.answering == 0


def test_something_that_begins_in_a_noise_lowers_the_voice_for_a_moment() -> None:
    floor = talked_over("noise")
    floor.speak(1000)
    floor.ms += 20
    assert floor.go(Tick(at(floor.ms), voiced=True, onset=True)) == [Dip(0)]
    assert floor.speak(120, begun=1020) == [Resume(0)]


def test_who_speaks_up_in_a_noise_is_yielded_to() -> None:
    floor = talked_over("noise")
    floor.speak(2000)
    floor.midway = "open"
    said: list[Action] = floor.speak(200, begun=2000)
    assert said == [Hold(0)]
    assert floor.speak(600, begun=2200) == [Stop(0)]


def test_of_a_noise_only_the_last_is_judged() -> None:
    floor = talked_over("noise")
    floor.speak(2000)
    floor.midway = None
    (asked,) = [action for action in floor.speak(220, begun=2000) if isinstance(action, Judge)]
    assert asked.span[1] - asked.span[0] == at(600)


def test_after_a_noise_a_voice_is_given_way_to_as_ever() -> None:
    floor = talked_over("noise")
    floor.speak(1000)
    floor.silent(500)
    floor.midway = "open"
    assert floor.speak(240) == [Duck(0), Hold(0)]


@pytest.mark.parametrize("meaning", ["noise", "back-channel"])
def test_what_is_too_short_to_hold_still_for_is_judged_at_the_pause(meaning: Meaning) -> None:
    floor = talked_over()
    assert floor.speak(100) == [Duck(0)]
    assert isinstance(floor.silent(80)[-1], Judge)
    assert floor.go(Judged(0, meaning)) == [Resume(0)]


def test_a_word_of_a_tenth_of_a_second_can_stop_it() -> None:
    floor = talked_over()
    floor.speak(100)
    floor.silent(80)
    assert floor.go(Judged(0, "barge-in")) == [Stop(0)]


def test_a_voice_only_lowered_waits_for_more_than_a_moments_pause_where_it_is_not_sure() -> None:
    floor = talked_over("likely back-channel")
    assert floor.speak(220) == [Duck(0)]
    assert isinstance(floor.silent(80)[-1], Judge)
    assert floor.go(Judged(0, "likely back-channel")) == []
    assert floor.quiet(20) == [Resume(0)]


def test_a_voice_that_is_no_segment_yet_is_not_judged() -> None:
    floor = talked_over()
    assert floor.speak(40) == [Duck(0)]
    assert floor.quiet(200) == [Resume(0)]


def test_a_click_in_a_segment_that_is_open_still_is_judged_once() -> None:
    floor = talked_over()
    assert floor.go(SpeechStart(at(floor.ms - 60), at(floor.ms))) == [Duck(0)]
    assert [type(action) for action in floor.quiet(140)] == [Judge, Resume]
