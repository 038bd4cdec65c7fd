"""Who answered, by scripted speech and made-up tones; by real voices it is measured in tests/bench."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.answering_machine import AnsweringMachineDetector, DetectorSettings, Found
from pipeline.segmenter import FRAME_BYTES, FRAME_MS
from tests.e2e.phone_line import voice
from tests.pipeline.test_tones import sine

RATE = 16_000
SPEECH, QUIET = b"s" * FRAME_BYTES, bytes(FRAME_BYTES)  # noise to the tones' ear; scripted to the other

Heard = list[tuple[int, Found]]


def speech(ms: int) -> bytes:
    return SPEECH * (ms // FRAME_MS)


def quiet(ms: int) -> bytes:
    return QUIET * (ms // FRAME_MS)


def tone(*hertz: float, ms: int) -> bytes:
    return (sine(hertz, ms / 1000) * 32767).astype("<i2").tobytes()


def listen(pcm: bytes, is_speech: object = lambda frame: frame == SPEECH) -> Heard:
    """What is found, each with when (ms)."""
    assert callable(is_speech)
    detector = AnsweringMachineDetector(is_speech=is_speech)
    heard: Heard = []
    for at in range(0, len(pcm), FRAME_BYTES):
        found = detector.push(pcm[at : at + FRAME_BYTES])
        if found is not None:
            heard.append(((at // FRAME_BYTES + 1) * FRAME_MS, found))
            if found not in ("machine", "ring"):
                break
    return heard


def kinds(heard: Heard) -> list[Found]:
    return [found for _, found in heard]


@settings(deadline=None)
@given(st.integers(0, 2000), st.integers(120, 1900), st.integers(0, 600))
def test_a_person_says_a_word_and_waits(before: int, word: int, breath: int) -> None:
    said = speech(word // 2) + quiet(min(breath, 1900 - word)) + speech(word // 2)
    ((when, found),) = listen(quiet(before) + said + quiet(2000))
    assert found == "person"
    assert when - (quiet_ms(quiet(before) + said)) <= 1500


def quiet_ms(pcm: bytes) -> int:
    return len(pcm) // FRAME_BYTES * FRAME_MS


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(500, 3000), st.integers(0, 500)), min_size=1, max_size=4))
def test_a_machine_speaks_on_and_is_known_before_it_has_finished(phrases: list[tuple[int, int]]) -> None:
    said = b"".join(speech(ms) + quiet(pause) for ms, pause in phrases)
    heard = listen(said + speech(2500) + quiet(2000))
    assert kinds(heard) == ["machine"]
    assert heard[0][0] <= 3000


def test_after_its_beep_it_records_and_without_one_it_does_when_it_has_nothing_more_to_say() -> None:
    greeting = speech(3000) + quiet(600)
    beeped = listen(greeting + tone(1000, ms=400) + quiet(1000))
    assert kinds(beeped) == ["machine", "beep"]
    assert 0 < beeped[1][0] - quiet_ms(greeting) - 400 < 500
    silent = listen(greeting + quiet(6000))
    assert kinds(silent) == ["machine", "quiet"]
    assert kinds(listen(greeting + quiet(2000) + speech(500) + quiet(2000))) == ["machine"]


def test_a_short_greeting_is_given_away_by_its_beep() -> None:
    assert kinds(listen(speech(1000) + quiet(400) + tone(440, ms=400) + quiet(1000))) == ["beep"]


def test_a_fax_machine_s_tone_is_no_beep() -> None:
    assert "beep" not in kinds(listen(tone(2100, ms=3300) + quiet(1000)))


@pytest.mark.parametrize("ring", [(425.0,), (440.0, 480.0), (400.0, 450.0)])
def test_a_line_that_still_rings_is_no_one_yet(ring: tuple[float, ...]) -> None:
    ringing = tone(*ring, ms=1000) + quiet(4000)
    assert kinds(listen(ringing * 3)) == ["ring"] * 3
    assert kinds(listen(ringing + speech(600) + quiet(2000))) == ["ring", "person"]
    assert kinds(listen(ringing + quiet(3000))) == ["ring", "silence"]


@pytest.mark.parametrize("three", [(914.0, 1371.0, 1777.0), (985.0, 1429.0, 1777.0)])
def test_the_networks_three_tones_are_an_announcement(three: tuple[float, ...]) -> None:
    assert kinds(listen(b"".join(tone(hz, ms=380) for hz in three) + speech(3000))) == ["intercept"]
    assert kinds(listen(b"".join(tone(hz, ms=380) for hz in three[::-1]) + quiet(1000))) == ["beep"]


def test_where_nobody_speaks_it_is_told_and_a_click_is_no_word() -> None:
    for said in (quiet(4000), quiet(500) + speech(80) + quiet(5000)):
        ((when, found),) = listen(said)
        assert found == "silence"
        assert when <= 5000


def test_by_webrtcvad_a_tone_is_no_voice_whatever_it_says() -> None:
    """It takes most tones for one, and what follows them as well."""
    buzz = (voice(0.6, RATE) * 32767).astype("<i2").tobytes()
    for ring in (440, 480), (425,):
        detector = AnsweringMachineDetector()
        assert detector.push(tone(*ring, ms=2000) + quiet(1000)) == "ring"
        assert detector.push(buzz + quiet(1200)) == "person"


def test_pieces_of_any_size_are_the_same() -> None:
    pcm = quiet(300) + (voice(0.6, RATE) * 32767).astype("<i2").tobytes() + quiet(1500)
    detector = AnsweringMachineDetector(DetectorSettings())
    found = {detector.push(pcm[at : at + 999]) for at in range(0, len(pcm), 999)}
    assert "person" in found
    assert found <= {None, "person"}
