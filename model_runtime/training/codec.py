"""Stage codec: nano's speech tokenizer, 100 Hz log-mel in, 25 codes of 0..6560 a second out.

The shape of S3 v2: two stride-2 convolutions, a few blocks, 8 numbers a frame rounded to three levels each
(FSQ). It is trained to let a throw-away decoder rebuild the 24 kHz mel when that is told the speaker, while
its own input is warped along frequency: what remains in the codes is what is said and how, less who says
it.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_runtime.training.speech_corpus import SPEAKERS, Utterance
from model_runtime.training.speech_loop import Loop, Losses

LEVELS, DIGITS = 3, 8
CODES = LEVELS**DIGITS


class Block(nn.Module):
    """ConvNeXt: depthwise convolution in time, pointwise net, residual. [B, C, N] -> [B, C, N]."""

    def __init__(self, width: int, inner: int, kernel: int = 7) -> None:
        """`width` channels, `inner` of them between the pointwise layers, `kernel` frames."""
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, inner)
        self.narrow = nn.Linear(inner, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        """Sees three frames either side."""
        y = self.norm(self.depthwise(x).transpose(1, 2))
        y = self.narrow(F.gelu(self.widen(y))) * self.scale
        moved: Tensor = y.transpose(1, 2)
        return x + moved


def normalise(feats: Tensor) -> Tensor:
    """[B, 128, T] log-mel, each bin brought to mean 0 and spread 1 over the utterance's speech.

    Takes away loudness, channel and much of the timbre. Speech is what lies within 30 dB of the loudest frame
    (0.75 in the log-mel's units), so that pauses do not change how words are coded.
    """
    energy = feats.mean(1, keepdim=True)
    speech = (energy > energy.amax(-1, keepdim=True) - 0.75).to(feats.dtype)
    count = speech.sum(-1, keepdim=True)
    mean = (feats * speech).sum(-1, keepdim=True) / count
    spread = (((feats - mean) ** 2 * speech).sum(-1, keepdim=True) / count).sqrt()
    return (feats - mean) / spread.clamp(min=0.08)


def quantise(x: Tensor) -> Tensor:
    """[..., 8] -> rounded to -1, 0, 1 after a tanh; the gradient passes as if it had not been rounded."""
    bounded = x.tanh() * 0.999
    return bounded + (bounded.round() - bounded).detach()


def code_of(levels: Tensor) -> Tensor:
    """[..., 8] in {-1, 0, 1} -> [...] int64 in 0..6560: base-3 digits, the first the lowest."""
    powers = torch.tensor([float(LEVELS**i) for i in range(DIGITS)])
    return ((levels + 1) * powers).sum(-1).round().to(torch.int64)


class Codec(nn.Module):
    """The tokenizer: [1, 128, T] log-mel and its length -> [1, T // 4] codes."""

    def __init__(self, width: int = 192, blocks: int = 4) -> None:
        """`width` channels, `blocks` of them in a row."""
        super().__init__()
        self.conv1 = nn.Conv1d(128, width, 4, stride=2, padding=1)
        self.conv2 = nn.Conv1d(width, width, 4, stride=2, padding=1)
        self.blocks = nn.ModuleList(Block(width, 3 * width) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, DIGITS)

    def levels(self, normalised: Tensor) -> Tensor:
        """[B, 128, T] normalised -> [B, T // 4, 8] in {-1, 0, 1}."""
        x = F.gelu(self.conv2(F.gelu(self.conv1(normalised))))
        for block in self.blocks:
            x = block(x)
        return quantise(self.project(self.norm(x.transpose(1, 2))).float())

    def forward(self, feats: Tensor, feats_length: Tensor) -> Tensor:
        """feats [1, 128, T] float32, feats_length int32 [1] -> indices int64 [1, N], as published."""
        return code_of(self.levels(normalise(feats[:, :, : feats_length.to(torch.int64)[0]])))


class MelDecoder(nn.Module):
    """Throw-away judge of the codes: levels [B, N, 8] and speaker index [B] -> mel [B, 2N, 80] float32."""

    def __init__(self, speakers: int, width: int = 192, blocks: int = 6) -> None:
        """Knows that many speakers; half of the blocks run at 25 Hz, half at 50 Hz."""
        super().__init__()
        self.enter = nn.Linear(DIGITS, width)
        self.speaker = nn.Embedding(speakers, width)
        self.coarse = nn.ModuleList(Block(width, 3 * width) for _ in range(blocks // 2))
        self.up = nn.ConvTranspose1d(width, width, 2, stride=2)
        self.fine = nn.ModuleList(Block(width, 3 * width) for _ in range(blocks - blocks // 2))
        self.leave = nn.Linear(width, 80)

    def forward(self, levels: Tensor, speaker: Tensor) -> Tensor:
        """The regressed log-mel."""
        x = (self.enter(levels) + self.speaker(speaker)[:, None]).transpose(1, 2)
        for block in self.coarse:
            x = block(x)
        x = self.up(x)
        for block in self.fine:
            x = block(x)
        mel: Tensor = self.leave(x.transpose(1, 2))
        return mel.float()


def warp(feats: Tensor, factor: float) -> Tensor:
    """[128, T] with its mel axis stretched by `factor` (formants and harmonics move together), edges held."""
    at = torch.arange(feats.shape[0]) / factor
    low = at.floor().long().clamp(max=feats.shape[0] - 2)
    share = (at - low).clamp(0, 1)[:, None]
    return feats[low] * (1 - share) + feats[low + 1] * share


@dataclass
class CodecData:
    """Normalised utterances, cut into crops of `tokens` codes."""

    utterances: list[Utterance]
    tokens: int = 50

    def __post_init__(self) -> None:
        """Normalises every utterance once, over all of it, as the exported model does."""
        self.inputs = [normalise(u.log_mel.float()[None])[0].half() for u in self.utterances]
        self.ids = {speaker.name: i for i, speaker in enumerate(SPEAKERS)}
        # Long sentences are drawn oftener: every second of speech counts the same.
        self.weights = np.cumsum([u.seconds for u in self.utterances])

    def batch(self, size: int, rng: random.Random, warped: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """(input [B, 128, 4n], target mel [B, 2n, 80], speaker [B]); six in ten inputs are warped."""
        feats, mels, who = [], [], []
        for _ in range(size):
            index = int(np.searchsorted(self.weights, rng.random() * self.weights[-1]))
            utterance, x = self.utterances[index], self.inputs[index].float()
            spare = len(utterance.mel) // 2 - self.tokens
            start = rng.randint(0, max(0, spare))
            x = x[:, 4 * start : 4 * (start + self.tokens)]
            y = utterance.mel[2 * start : 2 * (start + self.tokens)].float()
            if warped and rng.random() < 0.6:
                x = warp(x, rng.uniform(0.86, 1.16))
            # What is short is padded with its own last frame (a pause).
            feats.append(F.pad(x[None], (0, 4 * self.tokens - x.shape[1]), mode="replicate")[0])
            mels.append(F.pad(y.T[None], (0, 2 * self.tokens - len(y)), mode="replicate")[0].T)
            who.append(self.ids[utterance.speaker])
        return torch.stack(feats), torch.stack(mels), torch.tensor(who)


def train(
    train_set: list[Utterance], held_out: list[Utterance], folder: Path, steps: int, seed: int = 1
) -> tuple[Codec, Loop]:
    """Trains codec and judge together on the mel's mean absolute error; returns the codec and its loop."""
    torch.manual_seed(seed)
    codec, judge = Codec(), MelDecoder(len(SPEAKERS))
    data, unseen = CodecData(train_set), CodecData(held_out)
    loop = Loop("codec", folder, {"codec": codec, "judge": judge}, steps, rate=2e-3, seed=seed)

    def error(batch: tuple[Tensor, Tensor, Tensor]) -> Losses:
        feats, mel, who = batch
        with torch.autocast("cpu", torch.bfloat16):
            rebuilt = judge(codec.levels(feats), who)
        level = (rebuilt - mel).abs().mean()
        change = (rebuilt.diff(dim=1) - mel.diff(dim=1)).abs().mean()
        return {"loss": level + 0.5 * change, "mel_l1": level}

    def losses(step: int) -> Losses:
        return error(data.batch(16, random.Random(f"{seed}/{step}")))

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        codec.eval(), judge.eval()
        batch = unseen.batch(64, random.Random(seed), warped=False)
        found = float(error(batch)["mel_l1"])
        used = len(torch.unique(code_of(codec.levels(batch[0]))))
        codec.train(), judge.train()
        return {"mel_l1": found, "codes_in_128_s": float(used)}

    loop.run(losses, evaluate)
    return codec.eval(), loop


@torch.no_grad()
def encode(codec: Codec, utterance: Utterance) -> list[int]:
    """The codes of one utterance."""
    feats = utterance.log_mel.float()[None]
    return [int(code) for code in codec(feats, torch.tensor([feats.shape[-1]], dtype=torch.int32))[0]]
