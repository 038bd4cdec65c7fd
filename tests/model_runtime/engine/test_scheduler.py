"""Who is served first, on a virtual clock."""

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


def test_calls_that_begin_together_share_one_device_without_a_gap() -> None:
    """Four ask at once; 200 ms of speech take 30 ms. Each begins when its speech will last."""
    pace, now = Pace(), 0.0
    pace.active = 4
    made, served = [0.0] * 4, [0] * 4
    playing: list[float | None] = [None] * 4
    for count in range(1, 400):
        due = [Candidate(i, response_due(0.0, playing[i], now), 0.0, served[i]) for i in range(4)]
        chosen = pick(due)
        assert chosen is not None
        served[chosen] = count
        pace.begin(now)
        now += 0.03
        pace.end(now)
        pace.made(0.2)
        until = playing[chosen]
        if until is not None:
            assert until > now, "a gap"
            playing[chosen] = until + 0.2
        else:
            made[chosen] += 0.2
            if pace.lasts(made[chosen], 0.2):
                playing[chosen] = now + made[chosen]
        if count == 12:
            assert None not in playing  # nobody waits long for the first word
    assert pace.cost == pytest.approx(0.15, rel=0.01)


def test_a_call_alone_on_a_quick_machine_is_never_held_back() -> None:
    pace = Pace()
    with pace.one_more():
        assert pace.lasts(0.24, 0.6)
        for _ in range(7):
            with pace.one_more():
                pass
        assert pace.active == 1


def test_a_call_on_a_slow_machine_begins_with_more() -> None:
    pace = Pace()
    pace.begin(0.0)
    pace.end(20.0)
    pace.made(30.0)
    with pace.one_more():
        assert not pace.lasts(0.24, 0.6)
        assert pace.lasts(0.9, 1.0)


def test_work_done_side_by_side_counts_once() -> None:
    pace = Pace()
    for at, (begins, ends) in enumerate(((0.0, 2.0), (5.0, 8.0))):
        pace.begin(begins)
        pace.begin(begins + 1.0)
        pace.made(5.0)
        pace.end(ends)
        pace.end(ends + 0.5)
        assert pace.cost == pytest.approx((0.1 + (2.5, 6.0)[at]) / (6.0, 11.0)[at])
