"""Marking speech: thresholds on scripted decisions, and webrtcvad on a sound and on silence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.segmenter import (
    FRAME_BYTES,
    FRAME_SAMPLES,
    Segmenter,
    SegmenterSettings,
    SpeechStart,
    SpeechStop,
)
from tests.pipeline.virtual_transport import SILENCE_20MS, VOICE_20MS

SETTINGS = SegmenterSettings(start_ms=60, start_window_ms=100, stop_ms=160)


def decided(decisions: str) -> Segmenter:
    """A segmenter whose frames are decided by a string of 0 and 1; ``frames`` feeds it."""
    script = iter(decisions)
    return Segmenter(SETTINGS, lambda _: next(script) == "1")


def frames(text: str) -> bytes:
    return bytes(FRAME_BYTES * len(text))


def run(decisions: str) -> list[SpeechStart | SpeechStop]:
    return decided(decisions).push(frames(decisions))


def at(frame: int) -> int:
    return frame * FRAME_SAMPLES


def test_three_voiced_frames_of_five_open_a_segment_where_the_first_was() -> None:
    assert run("0010101") == [SpeechStart(at(2), at(7))]


def test_a_click_opens_nothing() -> None:
    assert run("0011000001000001") == []


def test_eight_unvoiced_frames_close_it_where_the_last_voiced_one_ended() -> None:
    assert run("111" + "0" * 8) == [SpeechStart(0, at(3)), SpeechStop(at(3), at(11))]


def test_a_gap_inside_speech_closes_nothing() -> None:
    assert run("111" + "0" * 7 + "1" + "0" * 7 + "1") == [SpeechStart(0, at(3))]


def test_a_segment_can_follow_another() -> None:
    events = run("111" + "0" * 8 + "111" + "0" * 8)
    assert [type(event) for event in events] == [SpeechStart, SpeechStop] * 2
    assert events[2].at == at(11)


def test_says_where_it_stands() -> None:
    segmenter = decided("1110")
    stood = [(segmenter.position, segmenter.voiced)]
    for _ in range(4):
        segmenter.push(frames("?"))
        stood.append((segmenter.position, segmenter.voiced))
    assert stood == [(at(0), False), (at(1), True), (at(2), True), (at(3), True), (at(4), False)]


@given(st.text("01", min_size=1, max_size=120), st.lists(st.integers(0, 2000), max_size=60))
def test_how_the_audio_is_cut_makes_no_difference(decisions: str, cuts: list[int]) -> None:
    whole = run(decisions)
    segmenter, events, rest = decided(decisions), [], frames(decisions)
    for cut in cuts:
        events += segmenter.push(rest[:cut])
        rest = rest[cut:]
    events += segmenter.push(rest)
    assert events == whole


@given(st.text("01", max_size=200))
def test_starts_and_stops_alternate_in_order(decisions: str) -> None:
    events = run(decisions)
    for i, event in enumerate(events):
        assert isinstance(event, SpeechStart if i % 2 == 0 else SpeechStop)
        assert 0 <= event.at < event.now
    positions = [event.at for event in events]
    assert positions == sorted(positions)


@pytest.mark.parametrize("aggressiveness", [0, 1, 2, 3])
def test_webrtcvad_hears_a_vowel_and_not_silence(aggressiveness: int) -> None:
    segmenter = Segmenter(SegmenterSettings(aggressiveness))
    assert segmenter.push(SILENCE_20MS * 50) == []
    (start,) = segmenter.push(VOICE_20MS * 25)
    assert isinstance(start, SpeechStart)
    assert abs(start.at - at(50)) <= FRAME_SAMPLES
    (stop,) = segmenter.push(SILENCE_20MS * 50)
    assert isinstance(stop, SpeechStop)
    assert (
        at(75) <= stop.at <= at(75 + 9)
    )  # webrtcvad has a tail of its own, longer when it is less aggressive
