"""When a caller who waits for a tool is told so."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipeline.tools.waiting import Waiting, WaitingPolicy
from pipeline.turns.clock import samples

STEP_MS = 20
POLICY = WaitingPolicy("One moment.", after_ms=700, again_ms=8000, times=2)


def run(*stretches: tuple[int, bool]) -> list[int]:
    """When words are due (ms), over stretches of so many ms that are quiet or not."""
    waiting, said, now = Waiting(POLICY), [], 0
    for length, quiet in stretches:
        for _ in range(length // STEP_MS):
            now += STEP_MS
            if waiting.tick(samples(now), quiet):
                said.append(now)
                waiting.tick(samples(now), False)  # the words have the floor
    return said


def test_after_so_much_silence_and_once_more_after_more() -> None:
    assert run((1000, False), (30_000, True)) == [1700, 9700]


def test_only_silence_in_one_piece_counts() -> None:
    assert run((680, True), (20, False), (680, True), (20, False), (700, True)) == [2100]


def test_the_second_time_is_counted_from_the_end_of_the_words() -> None:
    assert run((700, True), (1500, False), (7980, True), (20, True)) == [700, 10_200]


def test_a_new_request_has_its_own() -> None:
    waiting = Waiting(POLICY)
    assert waiting.tick(samples(700), True) == "One moment."
    waiting.tick(samples(2000), False)
    assert not waiting.tick(samples(2700), True)
    waiting.asked()
    assert waiting.tick(samples(2720), True) == "One moment."


def test_nothing_without_words() -> None:
    assert not Waiting(None).tick(samples(60_000), True)


@given(st.lists(st.tuples(st.integers(1, 20_000), st.booleans()), max_size=20))
def test_never_more_often_nor_sooner_than_it_should(stretches: list[tuple[int, bool]]) -> None:
    said = run(*stretches)
    assert len(said) <= POLICY.times
    assert all(at >= POLICY.after_ms for at in said)
    assert all(later - at >= POLICY.again_ms for at, later in pairwise(said))
