"""Which recordings become voices, and what a person is told of the others."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import soxr

from model_runtime.errors import VoiceError
from model_runtime.library import audio_file, checks
from tests.model_runtime.library.recordings import RATE, Sound, buzz, espeak, hiss


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sound, int]:
    return audio_file.read(espeak(tmp_path_factory.mktemp("speech") / "said.wav"))


@pytest.mark.e2e
def test_clean_speech_becomes_a_voice_at_the_common_level(speech: tuple[Sound, int]) -> None:
    recording, rate = speech
    quiet = np.pad(recording * 0.05, ((0, 0), (rate, rate)))
    fit = checks.fit(quiet, rate)
    assert fit.rate == rate
    assert len(fit.sound) < quiet.shape[1] - rate  # silence around it is gone
    assert np.abs(fit.sound).max() <= checks.PEAK
    loud = np.percentile(checks.frame_levels(fit.sound, rate), 90)
    assert loud == pytest.approx(checks.LEVEL, abs=2) or np.abs(fit.sound).max() > checks.PEAK - 0.01
    assert fit.noise_db > 20


@pytest.mark.e2e
def test_speech_that_is_spoilt_is_refused_with_what_to_do(speech: tuple[Sound, int]) -> None:
    recording, rate = speech
    peak = np.abs(recording).max()
    noise = np.random.default_rng(0).standard_normal(recording.shape).astype(np.float32)
    spoilt = {
        "is too quiet.*nearer to the microphone": recording * (0.001 / peak),
        "is clipped.*less gain": np.clip(recording * (4 / peak), -1, 1),
        "is clipped ": np.clip(recording * (4 / peak), -1, 1) * 0.3,  # turned down afterwards
        "is too noisy.*quiet room": recording * (0.5 / peak) + 0.05 * noise,
    }
    for said, sound in spoilt.items():
        with pytest.raises(VoiceError, match=said):
            checks.fit(sound, rate)


SPOILT: dict[str, tuple[Sound, int, str]] = {
    "silence": (np.zeros(5 * RATE, np.float32), RATE, "is too quiet"),
    "noise": (hiss(5), RATE, "is too noisy"),
    "too short": (buzz(120, seconds=2), RATE, "lasts 2.0 s, and a voice takes 3 to 15 s: record"),
    "too long": (buzz(120, seconds=16), RATE, "cut out its best part, as with: ffmpeg .*-i long.mp3"),
    "no speech": (
        np.concatenate([buzz(120, seconds=0.5), 1e-4 * hiss(5, 1.0), buzz(120, seconds=0.5)]),
        RATE,
        "sounds like speech|s of speech|is too quiet",
    ),
    "a broken export": (np.full(4 * RATE, np.nan, np.float32), RATE, "not numbers"),
    "hardly a recording": (buzz(120), 6000, "6000 samples a second"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_what_is_no_speech_is_refused_with_what_to_do(case: str) -> None:
    sound, rate, said = SPOILT[case]
    with pytest.raises(VoiceError, match=said):
        checks.fit(sound[None], rate, "long.mp3")


def test_silence_put_around_a_noisy_recording_does_not_make_it_clean() -> None:
    noisy = checks.frame_levels(buzz(120) + hiss(4, 0.05), RATE)
    padded = np.concatenate([np.full(100, -120.0), noisy, np.full(100, -120.0)])
    assert checks.speech_to_noise(padded) == pytest.approx(checks.speech_to_noise(noisy), abs=1)


def test_speech_that_nearly_reaches_full_scale_is_not_clipped() -> None:
    assert checks.clipped(buzz(120) * np.float32(3.3)) < checks.CLIPPED


@pytest.mark.e2e
@pytest.mark.parametrize("suffix", ["mp3", "webm", "flac", "m4a"])
def test_recordings_of_any_format_are_read(suffix: str, speech: tuple[Sound, int], tmp_path: Path) -> None:
    recording, rate = speech
    if suffix == "webm":  # as browsers record
        recording, rate = soxr.resample(recording[0], rate, 48_000)[None], 48_000
    path = tmp_path / f"said.{suffix}"
    stereo = np.concatenate([recording, recording]).astype(np.float32)
    codec = {"mp3": "mp3", "webm": "libopus", "flac": "flac", "m4a": "aac"}[suffix]
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, layout="stereo")
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(stereo), format="fltp", layout="stereo")
        frame.sample_rate = rate
        for packet in (*stream.encode(frame), *stream.encode(None)):
            out.mux(packet)
    sound, found = audio_file.read(path)
    assert (sound.shape[0], found, str(sound.dtype)) == (2, rate, "float32")
    assert sound.shape[1] == pytest.approx(recording.shape[1], abs=rate // 10)


def test_what_is_no_recording_is_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "words.wav").write_text("These are words.")
    (tmp_path / "empty.wav").touch()
    for name in ("words.wav", "empty.wav", "missing.wav", "."):
        with pytest.raises(VoiceError, match=r"cannot be read as audio|holds no audio"):
            audio_file.read(tmp_path / name)
