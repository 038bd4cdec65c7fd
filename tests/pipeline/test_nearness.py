"""Who speaks now, beside who usually does."""

from __future__ import annotations

import numpy as np

from pipeline.nearness import FAR_DB, KNOWN_FRAMES, USUAL_FRAMES, Nearness

CALLER_DB = -20.0


def voice(nearness: Nearness, frames: int, db: float, begins: bool = True) -> list[bool]:
    """So loud, of full scale; frame by frame whether it is far."""
    frame = np.full(320, 32767 * 10 ** (db / 20), np.int16).tobytes()
    if begins:
        nearness.begins()
    found = []
    for _ in range(frames):
        nearness.push(frame)
        found.append(nearness.far)
    return found


def test_a_voice_across_the_room_is_further_away_than_the_callers() -> None:
    nearness = Nearness()
    voice(nearness, 60, CALLER_DB)
    heard = voice(nearness, 50, CALLER_DB - FAR_DB - 2)
    assert heard == [False] * 4 + [True] * 46  # nothing is said of its first 80 ms
    assert not any(voice(nearness, 50, CALLER_DB))


def test_a_faint_voice_is_noticed_in_its_first_frame() -> None:
    nearness = Nearness()
    found = [nearness.faint]
    voice(nearness, 60, CALLER_DB)
    found.append(nearness.faint)
    assert voice(nearness, 1, CALLER_DB - FAR_DB - 2) == [False]
    found.append(nearness.faint)
    nearness.begins()
    found.append(nearness.faint)
    assert found == [False, False, True, False]


def test_a_back_channel_is_near() -> None:
    nearness = Nearness()
    voice(nearness, 60, CALLER_DB)
    assert not any(voice(nearness, 30, CALLER_DB - 8))


def test_who_speaks_up_is_near_at_once() -> None:
    nearness = Nearness()
    voice(nearness, 60, CALLER_DB)
    voice(nearness, 50, CALLER_DB - 15)
    assert voice(nearness, 2, CALLER_DB, begins=False)[-1] is False  # within 40 ms


def test_nobody_is_far_while_no_caller_is_known() -> None:
    nearness = Nearness()
    voice(nearness, KNOWN_FRAMES - 30, CALLER_DB)
    assert not any(voice(nearness, 29, CALLER_DB - 30))


def test_a_caller_who_has_moved_away_is_the_caller_again_after_some_seconds() -> None:
    nearness = Nearness()
    voice(nearness, 100, CALLER_DB)
    assert voice(nearness, USUAL_FRAMES, CALLER_DB - 20)[-1] is False
