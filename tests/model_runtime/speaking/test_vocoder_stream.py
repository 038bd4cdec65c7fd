"""No click where chunks are joined."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model_runtime.speaking.schedule import Schedule
from model_runtime.speaking.token2wav import Draws, GivenDraws
from model_runtime.speaking.vocoder import HARMONICS, HOP, HiFT, HiFTConfig
from model_runtime.speaking.vocoder_stream import VocoderStream, fade_in
from tests.model_runtime.speaking.golden import tiny_hift

SILENT = GivenDraws(torch.zeros(1, 0, 80))


class Hum(HiFT):
    """A vocoder that says its source: a voice gliding with the mel's first bin, smooth if nothing is cut."""

    def __init__(self) -> None:
        super().__init__(HiFTConfig(16, 8))
        self.requires_grad_(False)
        self.m_source.l_linear.weight.copy_(torch.eye(1, HARMONICS))
        self.m_source.l_linear.bias.zero_()

    def f0(self, mel: Tensor) -> Tensor:
        return mel[:, 0]

    def decode(self, mel: Tensor, source: Tensor) -> Tensor:
        return source


def glide(frames: int) -> Tensor:
    """A mel whose first bin goes from 100 to 180 Hz and back."""
    mel = torch.zeros(1, frames, 80)
    mel[0, :, 0] = 140 - 40 * torch.cos(torch.arange(frames) / 20)
    return mel


def run(
    hift: HiFT, mel: Tensor, sizes: list[int], schedule: Schedule, draws: Draws | GivenDraws
) -> list[Tensor]:
    stream = VocoderStream(hift, schedule, draws)
    parts = torch.split(mel, [*sizes, mel.shape[1] - sum(sizes)], 1)
    return [stream.push(part, last=i == len(parts) - 1) for i, part in enumerate(parts)]


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    first=st.integers(1, 10),
    hold=st.integers(1, 12),
    context=st.integers(0, 12),
)
def test_joins_are_as_smooth_as_the_rest(sizes: list[int], first: int, hold: int, context: int) -> None:
    schedule = Schedule(first_hold_frames=first, hold_frames=hold, context_frames=context)
    mel = glide(sum(sizes) + 7)
    parts = run(Hum(), mel, sizes, schedule, SILENT)
    audio, whole = torch.cat(parts), Hum().decode(mel, Hum().source(mel[:, :, 0]))[0]
    assert len(audio) == len(whole)
    assert float(audio.diff().abs().max()) <= 1.1 * float(whole.diff().abs().max())


@pytest.mark.parametrize("context", [0, 6])
def test_a_stream_with_a_hold_back_says_what_is_said_at_once(context: int) -> None:
    mel = glide(100)
    schedule = Schedule(first_hold_frames=4, hold_frames=6, context_frames=context)
    audio = torch.cat(run(Hum(), mel, [16, 30, 30], schedule, SILENT))
    whole = Hum().source(mel[:, :, 0])[0]
    # What differs is the pitch of the last half frame before a cut, not yet known then; it is faded away.
    torch.testing.assert_close(audio, whole, atol=0.005, rtol=0)


def test_the_reference_schedule_clicks_and_ours_does_not() -> None:
    """Why the default is not the reference: its source starts anew in every window."""
    mel = glide(120)
    ours = torch.cat(run(Hum(), mel, [50, 50], Schedule(), SILENT))
    theirs = torch.cat(run(Hum(), mel, [50, 50], Schedule.reference(), SILENT))
    assert float(theirs.diff().abs().max()) > 2 * float(ours.diff().abs().max())


def test_joins_of_a_network_are_no_rougher_than_its_inside() -> None:
    hift = tiny_hift().requires_grad_(False)
    mel = torch.randn(1, 300, 80, generator=torch.Generator().manual_seed(0))
    schedule = Schedule()
    parts = run(hift, mel, [16, 30, 50, 50, 50, 50], schedule, Draws(0))
    audio = torch.cat(parts)
    step = audio.diff().abs()
    cuts = torch.tensor([len(part) for part in parts[:-1]]).cumsum(0)
    around = torch.cat([step[cut - 8 : cut + 8] for cut in cuts])
    assert float(around.max()) <= float(step.max())
    assert float(around.mean()) <= 1.5 * float(step.mean())


def test_unvoiced_noise_keeps_its_strength_through_a_fade() -> None:
    """The noise under a part that is made twice is drawn once; two draws would fade to half their power."""
    mel = torch.zeros(1, 300, 80)  # f0 of nought: noise alone
    schedule = Schedule(first_hold_frames=20, hold_frames=20, context_frames=0)
    audio = torch.cat(run(Hum(), mel, [100, 100], schedule, Draws(5)))
    whole = Hum().source(torch.zeros(1, 300), Draws(5).source(300 * HOP))[0]
    faded = slice(80 * HOP, 100 * HOP)
    assert float(audio[faded].std() / whole[faded].std()) == pytest.approx(1, abs=0.02)


def test_fades() -> None:
    hann, hamming = fade_in(100, "hann"), fade_in(100, "hamming")
    torch.testing.assert_close(hann + hann.flip(0), torch.ones(100))
    assert bool((hann.diff() > 0).all())
    assert float((hamming + hamming.flip(0)).max()) == pytest.approx(1.08, abs=0.01)


def test_flush_gives_what_was_held_back() -> None:
    stream = VocoderStream(Hum(), Schedule(first_hold_frames=4), SILENT)
    assert len(stream.flush()) == 0
    stream.push(glide(10))
    assert len(stream.flush()) == 4 * HOP
