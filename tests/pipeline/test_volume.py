"""How loud the voice is: changed within 5 ms, without a click."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.volume import DUCKED, FULL, RAMP_MS, Volume

RATE = 24_000
PIECE = np.full(RATE // 100, 10_000, np.int16)  # 10 ms
RAMP = RATE * RAMP_MS // 1000


def test_at_full_volume_nothing_is_touched() -> None:
    assert Volume().apply(PIECE, RATE) is PIECE


def test_a_change_takes_five_milliseconds_and_has_no_step() -> None:
    volume = Volume()
    for level in (DUCKED, FULL):
        before = volume.wanted
        volume.wanted = level
        piece = volume.apply(PIECE, RATE) / 10_000
        assert (piece[0], piece[RAMP - 1]) == pytest.approx((before, level), abs=0.01)
        assert np.abs(np.diff(piece)).max() < 0.01
        assert piece[RAMP:] == pytest.approx(level, abs=0.001)
    assert volume.apply(PIECE, RATE) is PIECE


def test_pieces_shorter_than_the_change_arrive_too() -> None:
    volume = Volume()
    volume.wanted = DUCKED
    assert volume.apply(PIECE[:10], RATE)[-1] == pytest.approx(DUCKED * 10_000, abs=1)
    assert len(volume.apply(PIECE[:0], RATE)) == 0
