"""How many calls in how much time, in virtual seconds."""

from __future__ import annotations

from copy import deepcopy

from hypothesis import given
from hypothesis import strategies as st

from bot.ingress.sip.rates import Rate


def test_the_one_too_many_is_told_how_long_to_wait() -> None:
    rate = Rate(2, 60.0)
    for at in (0.0, 10.0):
        assert rate.wait_s("a", at) == 0
        rate.count("a", at)
    assert rate.wait_s("a", 20.0) == 40.0
    assert rate.wait_s("b", 20.0) == 0  # another's
    assert rate.wait_s("a", 60.0) == 0
    rate.count("a", 60.0)
    assert rate.wait_s("a", 61.0) == 9.0


@given(st.lists(st.floats(0, 30), max_size=60), st.integers(1, 4))
def test_no_window_has_more_than_the_limit_and_who_waits_as_told_is_let_through(
    gaps: list[float], limit: int
) -> None:
    rate, now, counted = Rate(limit, 60.0), 0.0, []
    for gap in gaps:
        now += gap
        wait = rate.wait_s("", now)
        if wait:
            assert deepcopy(rate).wait_s("", now + wait + 1e-6) == 0
        else:
            rate.count("", now)
            counted.append(now)
    for start in counted:
        assert sum(start <= at < start + 60.0 for at in counted) <= limit
