"""Stage speaker: nano's speaker encoder, Kaldi filterbank in, 192 numbers out, in place of CAM++.

Trained to tell the corpus' voices apart, each at five formant scales, from half a second to three, with the
band cut and noise added, so that the same voice over a phone lands in the same place.
"""

import random
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_runtime.speaking.mel import fbank
from model_runtime.training.speech_corpus import SPEAKERS, Utterance
from model_runtime.training.speech_features import to_rate
from model_runtime.training.speech_loop import Loop, Losses

SCALES = (0.88, 0.94, 1.0, 1.06, 1.13)
SIZE = 192


class Residual(nn.Module):
    """A dilated convolution and a pointwise one. [B, C, T] -> [B, C, T]."""

    def __init__(self, width: int, dilation: int) -> None:
        """`width` channels."""
        super().__init__()
        self.conv = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.norm = nn.BatchNorm1d(width)
        self.mix = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Sees `dilation` frames either side."""
        mixed: Tensor = self.mix(F.relu(self.norm(self.conv(x))))
        return x + mixed


class SpeakerNet(nn.Module):
    """[B, T, 80] log filterbank less its mean over time -> [B, 192]; mean and spread over time are pooled."""

    def __init__(self, width: int = 112) -> None:
        """`width` channels."""
        super().__init__()
        self.enter = nn.Conv1d(80, width, 5, stride=2, padding=2)
        self.blocks = nn.Sequential(Residual(width, 1), Residual(width, 2), Residual(width, 4))
        self.norm = nn.BatchNorm1d(2 * width)
        self.leave = nn.Linear(2 * width, SIZE)

    def forward(self, x: Tensor) -> Tensor:
        """The embedding, not normalised in length."""
        y = F.relu(self.blocks(F.relu(self.enter(x.transpose(1, 2)))))
        mean = y.mean(-1)
        spread = ((y - mean[..., None]) ** 2).mean(-1).add(1e-5).sqrt()
        pooled: Tensor = self.leave(self.norm(torch.cat([mean, spread], 1)))
        return pooled


def stretch(bank: Tensor, factor: float) -> Tensor:
    """[T, 80] with its frequency axis stretched by `factor`, edges held."""
    at = torch.arange(bank.shape[1]) / factor
    low = at.floor().long().clamp(max=bank.shape[1] - 2)
    share = (at - low).clamp(0, 1)
    return bank[:, low] * (1 - share) + bank[:, low + 1] * share


def roughen(bank: Tensor, rng: random.Random) -> Tensor:
    """[T, 80] with noise and a phone's band, by chance."""
    if rng.random() < 0.5:
        floor = bank.amax() - rng.uniform(4.0, 12.0)
        bank = torch.logaddexp(bank, floor + 0.5 * torch.randn_like(bank))
    if rng.random() < 0.3:  # 300..3400 Hz, as far as these triangles tell
        bank = bank.clone()
        bank[:, :8] = bank[:, :8] - rng.uniform(2, 6)
        bank[:, 55:] = bank.amin() + 0.3 * torch.randn_like(bank[:, 55:])
    return bank


def train(
    train_set: list[Utterance], held_out: list[Utterance], folder: Path, steps: int, seed: int = 1
) -> tuple[SpeakerNet, Loop]:
    """Cosine softmax over voices x scales; returns the net and its loop."""
    torch.manual_seed(seed)
    net, classes = SpeakerNet(), nn.Embedding(len(SPEAKERS) * len(SCALES), SIZE)
    ids = {speaker.name: i for i, speaker in enumerate(SPEAKERS)}
    loop = Loop("speaker", folder, {"net": net, "classes": classes}, steps, rate=2e-3, seed=seed)

    def banks(utterances: list[Utterance]) -> dict[str, list[Tensor]]:
        found: dict[str, list[Tensor]] = {}
        for u in utterances:
            # So many sentences say who a voice is; more would only teach what is said.
            if len(found.setdefault(u.speaker, [])) < 60:
                found[u.speaker].append(fbank(to_rate(u.wave, 24000, 16000)))
        return found

    known, unseen = banks(train_set), banks(held_out)

    def batch(source: dict[str, list[Tensor]], size: int, rng: random.Random) -> tuple[Tensor, Tensor]:
        length = rng.randint(60, 300)
        rows, who = [], []
        for _ in range(size):
            name, scale = rng.choice(list(source)), rng.randrange(len(SCALES))
            bank = rng.choice(source[name])
            start = rng.randint(0, max(0, len(bank) - length))
            bank = bank[start : start + length]
            bank = bank.repeat(-(-length // len(bank)), 1)[:length]
            bank = roughen(stretch(bank, SCALES[scale] * rng.uniform(0.985, 1.015)), rng)
            rows.append(bank - bank.mean(0))
            who.append(ids[name] * len(SCALES) + scale)
        return torch.stack(rows), torch.tensor(who)

    def scores(x: Tensor) -> Tensor:
        return 20 * F.normalize(net(x), dim=1) @ F.normalize(classes.weight, dim=1).T

    def losses(step: int) -> Losses:
        x, who = batch(known, 48, random.Random(f"{seed}/{step}"))
        found = scores(x)
        right = F.one_hot(who, found.shape[1])
        loss = F.cross_entropy(found - 3.0 * right, who)  # a margin of 0.15 in the cosine
        return {"loss": loss, "right": (found.argmax(1) == who).float().mean()}

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        net.eval()
        x, who = batch(unseen, 128, random.Random(seed))
        best = scores(x).argmax(1)
        net.train()
        same = (best // len(SCALES) == who // len(SCALES)).float().mean()
        return {"right": float((best == who).float().mean()), "voice_right": float(same)}

    loop.run(losses, evaluate)
    return net.eval(), loop
