from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.listening.adaptor import Adaptor
from model_runtime.listening.encoder import AudioEncoder
from model_runtime.listening.features import (
    PIECE_SAMPLES,
    log_mel,
    mel_frames,
    slaney_filters,
    split_pieces,
    token_count,
)
from model_runtime.model import SpeechModel


@pytest.mark.parametrize(
    ("seconds", "tokens"),
    [(0.0, 0), (0.02, 0), (0.1, 1), (0.5, 6), (1, 13), (2, 25), (5, 63), (10, 125), (25, 313)],
)
def test_tokens_by_length(seconds: float, tokens: int) -> None:
    assert token_count(int(seconds * 16_000)) == tokens


@given(st.integers(0, PIECE_SAMPLES))
def test_tokens_are_an_eightieth_of_a_second_each(samples: int) -> None:
    assert abs(token_count(samples) - samples / 1280) <= 1.0


@given(st.integers(0, 4 * PIECE_SAMPLES))
def test_long_audio_is_cut_without_loss(samples: int) -> None:
    pieces = split_pieces(samples)
    assert all(end - start <= PIECE_SAMPLES for start, end in pieces)
    assert [start for start, _ in pieces] == [n * PIECE_SAMPLES for n in range(len(pieces))]
    lost = samples - (pieces[-1][1] if pieces else 0)
    assert lost < 1300  # at most a tail too short to be heard


def test_mel_filters_have_slaneys_area_and_are_triangles() -> None:
    filters = slaney_filters(16_000, 400, 128, 8000.0)
    assert filters.shape == (128, 201)
    assert float(filters.min()) == 0.0
    # A tone at 1 kHz is bin 25: the filters above 1 kHz grow wider, and flatter.
    assert int(filters[:, 25].argmax()) == pytest.approx(44, abs=2)
    assert float(filters[-1].max()) < float(filters[10].max())


def test_mel_of_a_batch_is_the_mel_of_each() -> None:
    wavs = torch.randn(3, 5000)
    assert torch.equal(log_mel(wavs)[1], log_mel(wavs[1]))


def test_silence_and_numpy_are_heard() -> None:
    mel = log_mel(np.zeros(1600, np.float32))
    assert mel.shape == (128, (1600 + 479) // 160)
    assert bool((mel == mel[0, 0]).all())


def test_too_little_for_a_mel_is_said() -> None:
    with pytest.raises(ValueError, match="too few"):
        log_mel(np.zeros(100, np.float32), right_pad=0)


def heard(lengths: list[int], padding: int = 0) -> list[torch.Tensor]:
    torch.manual_seed(0)
    encoder, adaptor = AudioEncoder(128, 1500, 32, 4, 2).eval(), Adaptor(32, 24, inner=16).eval()
    mel = torch.nn.functional.pad(torch.randn(len(lengths), 128, max(lengths) + 2), (0, padding))
    for row, length in zip(mel, lengths, strict=True):
        row[:, length + 2 :] = 0
    with torch.inference_mode():
        rows, counts = adaptor(*encoder(mel, torch.tensor(lengths)))
    return [row[:count] for row, count in zip(rows, counts, strict=True)]


def test_padding_changes_nothing_but_the_last_row() -> None:
    alone, padded = heard([99]), heard([99], padding=40)
    assert alone[0].shape == padded[0].shape
    assert torch.allclose(alone[0][:-1], padded[0][:-1], atol=1e-5)


def test_an_item_of_padding_alone_stays_a_number() -> None:
    rows = heard([0, 60])
    assert len(rows[0]) == 0
    assert bool(rows[1].isfinite().all())


@pytest.mark.parametrize("frames", [7, 8, 9, 10])
def test_lengths_agree_with_the_count_before(frames: int) -> None:
    samples = (frames + 2) * 160
    assert len(heard([mel_frames(samples)])[0]) == token_count(samples)


def test_gradients_reach_every_weight() -> None:
    encoder, adaptor = AudioEncoder(128, 200, 32, 4, 2), Adaptor(32, 24, inner=16)
    rows, _ = adaptor(*encoder(torch.randn(2, 128, 64), torch.tensor([64, 40])))
    rows.square().mean().backward()
    for module in (encoder, adaptor):
        assert all(parameter.grad is not None for parameter in module.parameters())


def test_hearing_splits_at_25_seconds(tiny_model: SpeechModel) -> None:
    wav = np.random.default_rng(0).standard_normal(PIECE_SAMPLES + 16_000).astype(np.float32) * 0.1
    pieces = tiny_model.hear_pieces(wav)
    assert [len(piece) for piece in pieces] == [313, 13]
    assert torch.equal(tiny_model.hear(wav), torch.cat(pieces))
    assert torch.equal(pieces[1], tiny_model.hear(wav[PIECE_SAMPLES:]))


@pytest.mark.parametrize("samples", [0, 1, 320])
def test_too_little_to_hear_is_no_rows(tiny_model: SpeechModel, samples: int) -> None:
    assert tiny_model.hear(np.zeros(samples, np.float32)).shape == (0, 32)
