"""A sound that begins: noticed in its own packet, once, and steady noise is none."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.onset import Onset
from pipeline.segmenter import RATE

PACKET = RATE // 50  # 20 ms


def noise(seconds: float, db: float) -> NDArray[np.float64]:
    """White, so loud (root mean square, of full scale)."""
    return np.random.default_rng(1).standard_normal(round(seconds * RATE)) * 10 ** (db / 20)


def hum(seconds: float, hertz: float, db: float) -> NDArray[np.float64]:
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE) * 2**0.5 * 10 ** (db / 20)


def onsets(sound: NDArray[np.float64], packet: int = PACKET) -> list[int]:
    """In which packets."""
    pcm = np.rint(np.clip(sound, -1, 1) * 32767).astype(np.int16)
    onset = Onset()
    pieces = [pcm[at : at + packet].tobytes() for at in range(0, len(pcm), packet)]
    return [number for number, piece in enumerate(pieces) if onset.push(piece)]


def test_a_sound_is_noticed_in_the_packet_it_begins_in() -> None:
    line = np.concatenate([np.zeros(RATE), noise(0.5, -30)])
    assert onsets(line) == [50]
    late = np.concatenate([np.zeros(RATE + PACKET - RATE // 200), noise(0.5, -30)])  # 5 ms before its end
    assert onsets(late) == [50]


@pytest.mark.parametrize("packet", [160, 320, 333, 480])
def test_packets_may_be_of_any_length(packet: int) -> None:
    line = np.concatenate([np.zeros(RATE), noise(0.5, -30)])
    (number,) = onsets(line, packet)
    assert number in (RATE // packet, RATE // packet + 1)  # or as its first 5 ms are whole


@pytest.mark.parametrize("sound", [noise(10, -30), hum(10, 50, -25), hum(10, 400, -30)])
def test_what_is_always_there_begins_once_at_most(sound: NDArray[np.float64]) -> None:
    assert onsets(sound) in ([], [0])


def test_over_noise_only_what_stands_out_of_it_begins() -> None:
    line = noise(3, -40)
    line[RATE : RATE + RATE // 2] += hum(0.5, 300, -35)  # 5 dB above: lost in it
    line[2 * RATE : 2 * RATE + RATE // 2] += hum(0.5, 300, -22)
    assert onsets(line)[1:] == [100]


def test_a_quiet_leak_of_the_bots_own_voice_is_nothing() -> None:
    assert onsets(np.concatenate([np.zeros(RATE), hum(1, 300, -50)])) == []


def test_the_gaps_within_words_are_no_end() -> None:
    words = np.concatenate([noise(0.2, -20), np.zeros(RATE // 20)] * 4)
    assert onsets(np.concatenate([np.zeros(RATE), words])) == [50]
    apart = np.concatenate([noise(0.2, -20), np.zeros(RATE // 5)] * 3)
    assert len(onsets(np.concatenate([np.zeros(RATE), apart]))) == 3
