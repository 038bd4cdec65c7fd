"""Who is served first, on a virtual clock."""

from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from model_runtime.engine.pace import Pace
from model_runtime.engine.scheduler import (
    MARGIN_S,
    PATIENCE_S,
    TRANSCRIBE_S,
    Candidate,
    background_due,
    pick,
    response_due,
)


def test_whose_audio_runs_out_soonest_goes_first() -> None:
    assert pick([Candidate("ahead", 12.0), Candidate("short", 10.4), Candidate("far", 30.0)]) == "short"


def test_a_new_turn_goes_before_one_with_audio_to_spare() -> None:
    new = Candidate("new", response_due(10.0, None, 10.0))
    speaking = Candidate("speaking", response_due(3.0, 10.0 + 2 * MARGIN_S, 10.0))
    almost_dry = Candidate("dry", response_due(3.0, 10.0 + MARGIN_S / 2, 10.0))
    assert pick([speaking, new]) == "new"
    assert pick([new, almost_dry]) == "dry"


def test_a_new_turn_is_not_put_off_for_ever() -> None:
    now = 10.0
    waited = Candidate("waited", response_due(now - PATIENCE_S - 0.1, None, now))
    assert pick([Candidate("dry", response_due(1.0, now + 0.01, now)), waited]) == "waited"


def test_of_two_new_turns_the_first_to_ask_is_first() -> None:
    late, early = response_due(9.9, None, 10.5), response_due(9.8, None, 10.5)
    assert pick([Candidate("late", late, 9.9), Candidate("early", early, 9.8)]) == "early"


def test_equals_take_turns() -> None:
    served = {"a": 0, "b": 0}
    order = []
    for count in range(1, 5):
        chosen = pick([Candidate(name, 1.0, 0.0, last) for name, last in served.items()])
        assert chosen is not None
        served[chosen] = count
        order.append(chosen)
    assert order in (["a", "b", "a", "b"], ["b", "a", "b", "a"])


def test_background_work_waits_for_speech_however_old_it_is() -> None:
    now = 100.0
    old = Candidate("transcript", background_due(1.0, TRANSCRIBE_S, now), 1.0)
    assert pick([old, Candidate("speech", response_due(1.0, now + 0.5, now), 2.0)]) == "speech"
    assert pick([old, Candidate("first word", response_due(99.9, None, now), 99.9)]) == "first word"
    assert pick([old, Candidate("speech", response_due(1.0, now + 20.0, now), 2.0)]) == "transcript"


def test_nothing_to_do_is_nothing() -> None:
    assert pick([]) is None


@dataclass
class Speaker:
    """A reply in the making, as the pace sees it: a chunk of 200 ms after the other."""

    following: float = 0.2
    playing_until: float | None = None
    to_write: int = 5


def pace_of(cost: float) -> Pace:
    """One that has seen speech cost so much."""
    pace = Pace()
    pace.begin(0.0)
    pace.end(1000 * cost)
    pace.made(1000.0)
    assert pace.cost == pytest.approx(cost, rel=0.01)
    return pace


def test_calls_that_begin_together_share_one_device_without_a_gap() -> None:
    """Four ask at once; 200 ms of speech take 30 ms. Each begins when its speech will last."""
    pace, now = Pace(), 0.0
    speakers = [Speaker() for _ in range(4)]
    made, served = [0.0] * 4, [0] * 4
    with ExitStack() as stack:
        for one in speakers:
            stack.enter_context(pace.one_more(one))
        for count in range(1, 400):
            due = (response_due(0.0, one.playing_until, now) for one in speakers)
            chosen = pick([Candidate(i, when, 0.0, served[i]) for i, when in enumerate(due)])
            assert chosen is not None
            served[chosen] = count
            pace.begin(now)
            now += 0.03
            pace.end(now)
            pace.made(0.2)
            until = speakers[chosen].playing_until
            if until is not None:
                assert until > now, "a gap"
                speakers[chosen].playing_until = until + 0.2
            else:
                made[chosen] += 0.2
                if pace.lasts(speakers[chosen], made[chosen], now):
                    speakers[chosen].playing_until = now + made[chosen]
            if count == 12:
                assert all(one.playing_until for one in speakers)  # nobody waits long for the first word
    assert pace.cost == pytest.approx(0.15, rel=0.01)


def test_a_call_alone_on_a_quick_machine_is_never_held_back() -> None:
    pace, call, gone = Pace(), Speaker(0.6), Speaker(60.0)
    with pace.one_more(call):
        assert pace.lasts(call, 0.24, now=5.0)
        with pace.one_more(gone):
            assert not pace.lasts(call, 0.24, now=5.0)
        assert pace.lasts(call, 0.24, now=5.0)


def test_a_call_on_a_slow_machine_begins_with_more() -> None:
    pace, call = pace_of(0.67), Speaker(0.6)
    with pace.one_more(call):
        assert not pace.lasts(call, 0.24, now=0.0)
        assert pace.lasts(call, 0.9, now=0.0)


def test_a_first_word_waits_only_for_those_who_are_about_to_run_out() -> None:
    pace, call, now = pace_of(0.2), Speaker(0.6), 50.0
    others = [Speaker(1.0, playing_until=now + 3.0) for _ in range(6)]
    with ExitStack() as stack:
        for one in [call, *others]:
            stack.enter_context(pace.one_more(one))
        assert pace.lasts(call, 0.24, now)  # six who speak for three seconds yet
        for one in others:
            one.playing_until = now + 0.1
        assert not pace.lasts(call, 0.24, now)
        assert pace.lasts(call, 0.24, now - 0.3)  # their audio lasts longer than the call's own


def test_work_done_side_by_side_counts_once() -> None:
    pace = Pace()
    for at, (begins, ends) in enumerate(((0.0, 2.0), (5.0, 8.0))):
        pace.begin(begins)
        pace.begin(begins + 1.0)
        pace.made(5.0)
        pace.end(ends)
        pace.end(ends + 0.5)
        assert pace.cost == pytest.approx((0.1 + (2.5, 6.0)[at]) / (6.0, 11.0)[at])


def test_callers_are_read_only_while_everybody_has_something_to_hear() -> None:
    """A step takes 10 ms, reading one caller 30, a pass of token2wav 20; 8 codes are 10 steps."""
    pace, now = Pace(), 20.0
    for _ in range(200):
        pace.took("step", 0.01)
        pace.took("read", 0.03)
        pace.took("pass", 0.02)
    speaker = Speaker(playing_until=now + 0.2, to_write=8)
    assert pace.needs(speaker) == pytest.approx(1.1 * (10 * 0.01 + 2 * 0.02), rel=0.01)
    assert pace.spare(now) > 1000  # nobody is heard
    with pace.one_more(speaker), pace.one_more(Speaker()), pace.one_more(Speaker(0.0, now)):
        assert pace.spare(now) == pytest.approx(0.2 - 0.154 - 0.03, abs=0.001)
        speaker.playing_until = now + 0.1
        assert pace.spare(now) < 0
        speaker.to_write = 0  # only its sound is to come
        assert pace.spare(now) > 0
        speaker.playing_until = now - 5.0  # nothing can be done for it
        assert pace.spare(now) > 1000


def test_a_first_word_waits_for_the_steps_that_the_second_takes() -> None:
    """Cheap by the second of speech, since many share a step, and yet slow for each."""
    pace, call = pace_of(0.01), Speaker(0.6, to_write=12)
    with pace.one_more(call):
        assert pace.lasts(call, 0.24, now=0.0)
        for _ in range(200):
            pace.took("step", 0.02)
        assert not pace.lasts(call, 0.24, now=0.0)
        assert pace.lasts(call, 0.48, now=0.0)
