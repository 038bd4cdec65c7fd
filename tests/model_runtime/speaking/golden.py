"""The golden set: a tiny checkpoint and what the reference implementation computes with it.

The folder comes from the environment variable GOLDEN; without one, and without the default folder, the parity
tests are skipped and everything else still runs.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from model_runtime.speaking.conformer import EncoderConfig
from model_runtime.speaking.dit import DiTConfig
from model_runtime.speaking.flow import Flow, FlowConfig
from model_runtime.speaking.token2wav import Token2Wav
from model_runtime.speaking.vocoder import HiFT, HiFTConfig, fold_weight_norm
from model_runtime.speaking.voice import Voice

FOLDER = Path(os.environ.get("GOLDEN") or Path(__file__).parents[4] / "shared/golden")
TOKEN2WAV = FOLDER / "checkpoint/token2wav"

needs_golden = pytest.mark.skipif(not FOLDER.is_dir(), reason="no golden set: set GOLDEN to its folder")


@cache
def values() -> dict[str, Tensor]:
    """All tensors of golden.safetensors."""
    return load_file(FOLDER / "golden.safetensors")


def tiny_flow(seed: int = 0) -> Flow:
    """A random flow of the golden set's kind of size, with no zero-initialised output."""
    torch.manual_seed(seed)
    flow = Flow(
        FlowConfig(
            50,
            32,
            80,
            192,
            0.0,
            EncoderConfig(32, 32, 3, 2, 1, 2, 2, 64),
            DiTConfig(depth=2, num_heads=2, head_dim=16, hidden_size=32),
        )
    )
    for name, parameter in flow.named_parameters():
        if "adaLN" in name or "final_layer" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return flow.eval()


def tiny_hift(seed: int = 0) -> HiFT:
    """A random vocoder of 16 channels."""
    torch.manual_seed(seed)
    return HiFT(HiFTConfig(16, 8)).eval()


def golden_hift() -> HiFT:
    """The golden set's vocoder."""
    tensors = fold_weight_norm(torch.load(TOKEN2WAV / "hift.pt", weights_only=True))
    hift = HiFT(HiFTConfig.of(tensors))
    hift.load_state_dict(tensors)
    return hift.eval()


def tiny_token2wav(steps: int = 2, cfg: float = 0.0) -> Token2Wav:
    """A random flow and vocoder of the smallest size that does all that the large ones do."""
    return Token2Wav(
        tiny_flow().requires_grad_(False), tiny_hift().requires_grad_(False), steps=steps, cfg=cfg
    )


def tiny_voice(codes: int = 8, seed: int = 0) -> Voice:
    """A random voice of that many codes, for `tiny_flow`."""
    generator = torch.Generator().manual_seed(seed)
    return Voice(
        torch.randint(50, (codes,), generator=generator, dtype=torch.int32),
        torch.randn(192, generator=generator),
        torch.randn(2 * codes, 80, generator=generator),
        "a random voice",
        "CC0-1.0",
        "made for tests",
    )


def golden_voice() -> Voice:
    """The golden set's prompt as a voice."""
    g = values()
    return Voice(g["flow.prompt_tokens"].int(), g["flow.speaker"], g["flow.prompt_mel"])
