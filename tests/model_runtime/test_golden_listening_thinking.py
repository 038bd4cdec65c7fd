"""The listening and thinking halves give the reference implementation's numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model_runtime.chat import AudioSlot
from model_runtime.listening.features import log_mel, mel_frames, token_count
from model_runtime.model import SpeechModel

TOLERANCE = 1e-4
INPUTS = range(4)


def far(found: Tensor, wanted: Tensor) -> float:
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max())


@pytest.mark.parametrize("item", INPUTS)
def test_log_mel(golden: dict[str, Tensor], item: int) -> None:
    mel = log_mel(golden[f"frontend.wav16k.{item}"])
    wanted = golden[f"frontend.log_mel.{item}"]
    if wanted.shape[1] != mel.shape[1]:
        mel = mel[:, ::16]  # the longest is kept thinned out
    assert far(mel, wanted) < TOLERANCE


def test_voice_log_mel_has_no_right_pad(golden: dict[str, Tensor]) -> None:
    assert far(log_mel(golden["voice.wav16k"], right_pad=0), golden["voice.log_mel128"]) < TOLERANCE


def test_token_count(golden: dict[str, Tensor]) -> None:
    counts = [token_count(len(golden[f"frontend.wav16k.{item}"])) for item in INPUTS]
    assert counts == golden["frontend.token_count"].tolist()


def test_encoder_and_adaptor_as_one_batch(golden: dict[str, Tensor], golden_model: SpeechModel) -> None:
    wavs = [golden[f"frontend.wav16k.{item}"] for item in INPUTS]
    mels = [log_mel(wav) for wav in wavs]
    longest = max(mel.shape[1] for mel in mels)
    batch = torch.stack([F.pad(mel, (0, longest - mel.shape[1])) for mel in mels])
    with torch.inference_mode():
        states, frames = golden_model.encoder(batch, torch.tensor([mel_frames(len(wav)) for wav in wavs]))
        rows, lengths = golden_model.adaptor(states, frames)
    assert frames.tolist() == golden["encoder.lengths"].tolist()
    assert lengths.tolist() == golden["adapter.lengths"].tolist()
    for item in INPUTS:
        assert far(rows[item, : lengths[item]], golden[f"adapter.features.{item}"]) < TOLERANCE


def test_the_longest_input_heard_alone(golden: dict[str, Tensor], golden_model: SpeechModel) -> None:
    # Only the longest of the batch had no padding, so only it must be the same when heard alone.
    assert far(golden_model.hear(golden["frontend.wav16k.2"]), golden["adapter.features.2"]) < TOLERANCE


def prompt(model: SpeechModel, golden: dict[str, Tensor]) -> tuple[list[int], Tensor]:
    rows = golden["adapter.features.1"]
    human = model.template.human([AudioSlot(len(rows))])
    pieces = [*model.conversation("You are a helpful assistant."), *human, *model.template.opening()]
    return model.prompt(pieces, [rows])


def test_prompt_ids(golden: dict[str, Tensor], golden_model: SpeechModel) -> None:
    ids, _ = prompt(golden_model, golden)
    assert ids == golden["llm.prompt_ids"].tolist()


def test_logits(golden: dict[str, Tensor], golden_model: SpeechModel) -> None:
    _, embeddings = prompt(golden_model, golden)
    with torch.inference_mode():
        logits = golden_model.backbone(embeddings[None])[0]
    assert far(logits[-1], golden["llm.last_logits"]) < TOLERANCE
    assert far(logits[:, ::97], golden["llm.logits_slice"]) < TOLERANCE


def test_greedy_continuation_with_a_cache(golden: dict[str, Tensor], golden_model: SpeechModel) -> None:
    ids, embeddings = prompt(golden_model, golden)
    cache = golden_model.new_cache()
    logits = golden_model.prefill(cache, ids, embeddings)
    assert far(logits, golden["llm.last_logits"]) < TOLERANCE
    written = []
    for _ in range(64):
        written.append(int(logits.argmax()))
        logits = golden_model.step(cache, written[-1])
    assert written == golden["llm.greedy_ids"].tolist()
