from __future__ import annotations

import pytest
import torch
from torch import nn

from model_runtime.speaking.vocoder import HARMONICS, HOP, fold_weight_norm
from tests.model_runtime.speaking.golden import tiny_hift


def test_a_frame_becomes_480_samples_within_limits() -> None:
    wave, f0 = tiny_hift()(torch.randn(2, 80, 11))
    assert wave.shape == (2, 11 * HOP)
    assert f0.shape == (2, 11)
    assert float(wave.abs().max()) <= 0.99


def test_beyond_the_length_there_is_silence() -> None:
    wave, _ = tiny_hift()(torch.randn(2, 80, 6), torch.tensor([4, 6]))
    assert not bool(wave[0, 4 * HOP :].any())
    assert bool(wave[1, 4 * HOP :].any())


def test_training_reaches_the_generator_and_f0() -> None:
    hift = tiny_hift().train()
    wave, f0 = hift(torch.randn(1, 80, 6))
    torch.autograd.backward(wave.square().mean() + f0.mean())
    assert [n for n, p in hift.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("hertz", [97.0, 231.0])
def test_the_source_hums_at_f0(hertz: float) -> None:
    hift = tiny_hift()
    with torch.no_grad():
        hift.m_source.l_linear.weight.copy_(torch.eye(1, HARMONICS))
        hift.m_source.l_linear.bias.zero_()
        source = hift.source(torch.full((1, 50), hertz))[0]
    spectrum = torch.fft.rfft(source * torch.hann_window(len(source))).abs()
    assert abs(float(spectrum.argmax()) - hertz) <= 1  # 1 s long: one bin a hertz


def test_unvoiced_frames_are_noise_only() -> None:
    hift = tiny_hift()
    f0 = torch.zeros(1, 4)
    silent = hift.source(f0)
    assert float(silent.std()) < 1e-6
    assert float(hift.source(f0, torch.randn(1, 4 * HOP, HARMONICS)).std()) > 0


def test_a_source_in_two_parts_is_the_source_in_one() -> None:
    hift = tiny_hift()
    f0 = torch.linspace(90, 180, 20).unsqueeze(0)
    with torch.no_grad():
        whole = hift.source(f0)
        middle = hift.phase(f0)
        second = hift.source(f0[:, 8:], before=middle[:, 7])
    torch.testing.assert_close(second, whole[:, 8 * HOP :], atol=1e-4, rtol=0)


@pytest.mark.parametrize("spelling", ["old", "new"])
def test_weight_norm_is_folded(spelling: str) -> None:
    conv = nn.ConvTranspose1d(3, 4, 5)
    with torch.no_grad():
        normed = nn.utils.parametrizations.weight_norm(nn.ConvTranspose1d(3, 4, 5))
        normed.weight = conv.weight * 2
    state = {f"generator.up.{k}": v for k, v in normed.state_dict().items()}
    if spelling == "old":
        for new, old in (("original0", "weight_g"), ("original1", "weight_v")):
            state[f"generator.up.{old}"] = state.pop(f"generator.up.parametrizations.weight.{new}")
    folded = fold_weight_norm(state)
    assert sorted(folded) == ["up.bias", "up.weight"]
    torch.testing.assert_close(folded["up.weight"], conv.weight.detach() * 2)
