"""What a call hears of its caller."""

from __future__ import annotations

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
