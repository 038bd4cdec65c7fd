"""What nets that judge a short sound learn by, and how their sounds are kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from model_runtime.training.sound_net import MELS, PACE, Sound, keep, kept, somebody_elses

T = 318  # moments of 10 ms
QUIET = -1.8


def test_somebody_else_has_other_formants_and_another_pace_and_ends_at_the_same_moment() -> None:
    torch.manual_seed(1)
    ends, band, begins = T - 30, 20, T - 130  # a second of one formant, and then a pause
    seen = torch.full((64, MELS, T), QUIET)
    seen[:, band - 1 : band + 2, begins:ends] = 1.0
    moved = somebody_elses(seen)
    assert moved.shape == seen.shape
    loud = moved.amax(1) > 0  # [B, T]
    lasted = loud.sum(1)
    assert 100 / PACE[1] - 3 <= lasted.min() < 92
    assert 108 < lasted.max() <= 100 / PACE[0] + 3
    pause = T - 1 - torch.tensor([int(torch.nonzero(one)[-1]) for one in loud])
    torch.testing.assert_close(pause / lasted, torch.full((64,), 0.3), atol=0.03, rtol=0)
    bands = moved.amax(2).argmax(1)
    assert bands.min() < band < bands.max()
    assert (bands - band).abs().max() <= 6


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    sounds = [
        Sound(draw.uniform(-1, 1, length).astype(np.float32), kind, phones)
        for length, kind, phones in ((400, 1, "hh ow"), (90, 0, ""))
    ]
    keep(sounds, tmp_path / "some.npz")
    again = kept(tmp_path)
    assert [(one.kind, one.phones) for one in again] == [(1, "hh ow"), (0, "")]
    for one, other in zip(sounds, again, strict=True):
        np.testing.assert_allclose(one.wave, other.wave, atol=1e-4)
