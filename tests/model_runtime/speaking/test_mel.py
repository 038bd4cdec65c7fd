from __future__ import annotations

import numpy as np
import torch

from model_runtime.speaking.mel import fbank, mel24k


def test_50_frames_a_second_and_the_tone_in_its_bin() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(24000) / 24000).astype(np.float32)
    mel = mel24k(tone)
    assert mel.shape == (50, 80)
    # Slaney's scale: 15 mels at 1 kHz of 15 + 27 ln(8) / ln(6.4) = 45.2 at 8 kHz, in 81 equal steps.
    assert set(mel[5:45].argmax(1).tolist()) == {26}


def test_silence_is_the_floor() -> None:
    assert torch.all(mel24k(np.zeros(4800, np.float32)) == torch.tensor(1e-5).log())
    assert torch.all(fbank(np.zeros(1600, np.float32)) == torch.tensor(torch.finfo(torch.float32).eps).log())


def test_fbank_snips_the_edges() -> None:
    assert fbank(np.zeros(400, np.float32)).shape == (1, 80)
    assert fbank(np.zeros(559, np.float32)).shape == (1, 80)
    assert fbank(np.zeros(560, np.float32)).shape == (2, 80)
