"""What the call's clock calls a sample is found in the engine's session, or known to be missing from it."""

from __future__ import annotations

from pipeline.session_clock import SessionClock


def test_the_first_session_has_the_call_s_clock() -> None:
    assert SessionClock().spans([(3, 9), (20, 30)]) == [(3, 9), (20, 30)]


def test_a_later_session_knows_nothing_of_what_was_before_it() -> None:
    clock = SessionClock()
    clock.begin(100, again=0)
    assert clock.spans([(20, 90), (95, 110), (120, 130)]) == [(0, 10), (20, 30)]


def test_what_is_sent_again_comes_first() -> None:
    clock = SessionClock()
    clock.begin(100, again=40)
    assert clock.spans([(95, 110)]) == [(40, 50)]
