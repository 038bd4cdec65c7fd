"""What a call hears of its caller."""

from __future__ import annotations

import numpy as np

from pipeline.ear import Ear
from pipeline.segmenter import SegmenterSettings, SpeechStart
from tests.pipeline.virtual_transport import SILENCE_20MS, VOICE_20MS


def test_every_packet_is_heard_as_it_comes_though_a_resampler_held_samples_back() -> None:
    ear = Ear(SegmenterSettings(), None)
    first, *rest = (SILENCE_20MS[32:], *[SILENCE_20MS] * 3, *[VOICE_20MS] * 3)
    ear.push(ear.aligned(first))
    assert ear.tick.now == 320
    events = []
    for number, packet in enumerate(rest, 2):
        assert ear.aligned(packet) == packet
        events += ear.push(packet)
        assert ear.tick.now == 320 * number
    assert events == [SpeechStart(4 * 320, 7 * 320)]


def test_a_sound_is_noticed_with_its_packet_and_forgotten_with_the_next() -> None:
    ear = Ear(SegmenterSettings(), None)
    begun = []
    for packet in (SILENCE_20MS, VOICE_20MS, VOICE_20MS):
        ear.push(packet)
        begun.append(ear.tick.onset)
    assert begun == [False, True, False]


def test_words_as_faint_as_somebody_elses_are_in_no_hurry() -> None:
    ear = Ear(SegmenterSettings(), lambda _: {"back-channel": 0.0, "words": 1.0, "noise": 0.0})
    said = np.frombuffer(VOICE_20MS, np.int16)

    def meaning(times: float) -> str:
        packet = np.rint(said * times).astype(np.int16).tobytes()
        for pcm in (*[SILENCE_20MS] * 20, *[packet] * 10):
            ear.push(pcm)
        now = ear.tick.now
        return ear.meaning((now - 3200, now))

    for _ in range(6):
        assert meaning(1.0) == "barge-in"
    assert meaning(0.2) == "open"
    assert meaning(1.0) == "barge-in"


def test_without_a_judge_all_is_open() -> None:
    ear = Ear(SegmenterSettings(), None)
    ear.push(VOICE_20MS)
    assert ear.meaning((0, 320)) == "open"
