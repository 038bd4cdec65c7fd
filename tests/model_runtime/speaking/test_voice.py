from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from model_runtime.errors import CheckpointError, VoiceError
from model_runtime.speaking.voice import Voice, VoicePreparer, check_recording, fit
from tests.model_runtime.speaking.golden import tiny_voice

HUM = (0.1 * np.sin(np.arange(32000) / 30)).astype(np.float32)


def test_a_voice_survives_its_file(tmp_path: Path) -> None:
    voice, path = tiny_voice(), tmp_path / "anna.safetensors"
    voice.save(path)
    again = Voice.load(path)
    for name in ("tokens", "speaker", "mel"):
        assert torch.equal(getattr(again, name), getattr(voice, name))
    assert again.tokens.dtype == torch.int32
    assert (again.description, again.licence, again.source) == ("a random voice", "CC0-1.0", "made for tests")
    assert again.seconds == pytest.approx(8 / 25)


def test_half_precision_is_widened(tmp_path: Path) -> None:
    voice, path = tiny_voice(), tmp_path / "anna.safetensors"
    save_file({"tokens": voice.tokens, "speaker": voice.speaker.half(), "mel": voice.mel.half()}, path)
    assert Voice.load(path).mel.dtype == torch.float32


BROKEN: dict[str, tuple[dict[str, torch.Tensor], str]] = {
    "no mel": ({"mel": torch.empty(0)}, "has no mel"),
    "short mel": ({"mel": torch.zeros(15, 80)}, r"mel must be float \[16, 80\] beside 8 tokens"),
    "wrong speaker": ({"speaker": torch.zeros(256)}, r"speaker must be float \[192\]"),
    "no tokens": ({"tokens": torch.zeros(0, dtype=torch.int32)}, "tokens must be whole numbers"),
    "fractional tokens": ({"tokens": torch.zeros(8)}, "tokens must be whole numbers"),
    "a pad among the tokens": ({"tokens": torch.full((8,), 6561, dtype=torch.int32)}, r"0\.\.6560"),
    "not a number": ({"speaker": torch.full((192,), float("nan"))}, "not a number"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_voice_file_is_told_by_name(case: str, tmp_path: Path) -> None:
    change, says = BROKEN[case]
    voice, path = tiny_voice(), tmp_path / "anna.safetensors"
    tensors = {"tokens": voice.tokens, "speaker": voice.speaker, "mel": voice.mel} | change
    if case == "no mel":
        del tensors["mel"]
    save_file(tensors, path)
    with pytest.raises(VoiceError, match=rf"^anna\.safetensors: .*{says}"):
        Voice.load(path)


@pytest.mark.parametrize("content", [b"", b"RIFF....WAVE", None])
def test_what_is_no_voice_file_is_told_by_name(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "anna.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VoiceError, match=r"^anna\.safetensors: cannot be read"):
        Voice.load(path)


def test_a_truncated_voice_file_is_told_by_name(tmp_path: Path) -> None:
    path = tmp_path / "anna.safetensors"
    tiny_voice().save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(VoiceError, match=r"^anna\.safetensors: cannot be read"):
        Voice.load(path)


@pytest.mark.parametrize(
    ("wav", "rate", "says"),
    [
        (HUM[:15000], 16000, "lasts 0.9"),
        (np.tile(HUM, 16), 16000, "lasts 32.0"),
        (np.zeros(32000, np.float32), 16000, "silent"),
        (np.where(np.arange(32000) == 7, np.nan, HUM), 16000, "not numbers"),
        (HUM.astype(np.int16), 16000, "floating-point"),
        (HUM, 6000, "8000 samples a second"),
        (np.zeros((2, 2, 2), np.float32), 16000, "one row"),
    ],
)
def test_a_recording_that_cannot_serve_is_refused_in_words(wav: np.ndarray, rate: int, says: str) -> None:
    with pytest.raises(VoiceError, match=says):
        check_recording(wav, rate)


def test_channels_are_averaged() -> None:
    mono = check_recording(np.stack([HUM, np.zeros_like(HUM)], 1), 16000)
    np.testing.assert_allclose(mono, HUM / 2, atol=1e-7)


def test_the_codes_decide_the_length_of_the_mel() -> None:
    mel = torch.arange(6.0).view(3, 2)
    assert torch.equal(fit(mel, 2), mel[:2])
    assert torch.equal(fit(mel, 5), torch.cat([mel, mel[-1:], mel[-1:]]))


def test_missing_or_damaged_models_are_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"speech_tokenizer_v2_25hz\.onnx: is missing"):
        VoicePreparer(tmp_path)
    (tmp_path / "speech_tokenizer_v2_25hz.onnx").write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match=r"speech_tokenizer_v2_25hz\.onnx: cannot be read"):
        VoicePreparer(tmp_path)
