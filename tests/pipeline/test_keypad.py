"""What is entered on a phone's keypad, and when it counts as entered."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.keypad import MOST, PAUSE, Keypad


def test_an_entry_is_complete_at_the_hash_or_after_a_pause() -> None:
    keypad = Keypad()
    keypad.press("1", 0)
    keypad.press("5", 100)
    assert keypad.take(100 + PAUSE - 1) == ""
    assert keypad.take(100 + PAUSE) == "15"
    assert keypad.take(10 * PAUSE) == ""
    keypad.press("7", 10 * PAUSE)
    keypad.press("#", 10 * PAUSE)
    assert keypad.take(10 * PAUSE) == "7#"


@given(st.lists(st.tuples(st.sampled_from("0123456789*#"), st.integers(0, 2 * PAUSE)), max_size=80))
def test_no_key_is_told_twice_and_none_is_lost_before_the_limit(presses: list[tuple[str, int]]) -> None:
    keypad, now, told, pressed = Keypad(), 0, [], ""
    for key, later in presses:
        now += later
        told.append(keypad.take(now))
        keypad.press(key, now)
        pressed += key
    told.append(keypad.take(now + PAUSE))
    assert all(len(entry) <= MOST for entry in told)
    if len(pressed) <= MOST:
        assert "".join(told) == pressed
