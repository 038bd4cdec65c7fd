"""The caller's audio is found again by its clock, however it came in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.engine.ring import AudioRing

SECOND = 16_000


@given(st.lists(st.integers(0, 9000), max_size=20))
def test_what_is_held_is_what_was_put(sizes: list[int]) -> None:
    ring = AudioRing(1.0)
    heard = np.zeros(0, np.int16)
    for size in sizes:
        piece = (np.arange(len(heard), len(heard) + size) % 32000).astype(np.int16)
        ring.put(piece.tobytes())
        heard = np.concatenate([heard, piece])
    assert ring.end == len(heard)
    assert ring.start == max(0, len(heard) - SECOND)
    assert np.array_equal(ring.get(ring.start, ring.end), heard[ring.start :])


def test_one_piece_longer_than_the_ring_keeps_its_end() -> None:
    ring = AudioRing(1.0)
    ring.put(np.arange(20_000, dtype=np.int16).tobytes())
    assert (ring.start, ring.end) == (4_000, 20_000)
    assert ring.get(19_990, 20_000).tolist() == list(range(19_990, 20_000))


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (15_000, 21_000), (-1, 5), (9, 8)])
def test_audio_that_is_not_there_is_refused(start: int, stop: int) -> None:
    ring = AudioRing(1.0)
    ring.put(bytes(2 * 20_000))
    with pytest.raises(ValueError, match="audio"):
        ring.get(start, stop)


def test_half_a_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        AudioRing(1.0).put(b"abc")
