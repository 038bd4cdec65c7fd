"""Nano's hearing half as it is taught: encoder and adaptor, and the heads that are thrown away afterwards."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_runtime.listening.adaptor import Adaptor
from model_runtime.listening.encoder import AudioEncoder
from model_runtime.training.hearings import PHONES, UNKNOWN, Hearing
from model_runtime.training.texts import REFUSAL_WEIGHT, REFUSE, labels

STATE, HEADS, LAYERS, CONTEXT, INNER, HIDDEN = 192, 4, 6, 1500, 512, 256
LABELS = labels()
SIZE = 0.5  # root mean square of an embedding of the fresh backbone, and about that of the rows
LOOKS = 4  # places the intent head may look at


@dataclass
class Heard:
    """What the hearing half makes of a batch.

    ``rows`` [B, N, hidden] at 12.5 Hz, ``count`` [B] of them valid; ``intent`` scores [B, labels], from where
    the head looks, and ``mean_intent``, by the same head from the plain mean; ``frames`` [B] valid states at
    25 Hz, ``phones`` scores [B, E, phones] of the phone in each, and ``path`` [B, E, 1 + phones] for CTC.
    """

    rows: Tensor
    count: Tensor
    intent: Tensor
    mean_intent: Tensor
    frames: Tensor
    phones: Tensor
    path: Tensor


class Hearer(nn.Module):
    """Encoder and adaptor with the heads they are taught by."""

    def __init__(self) -> None:
        """Fresh weights, attention local to begin with."""
        super().__init__()
        self.encoder = AudioEncoder(128, CONTEXT, STATE, HEADS, LAYERS)
        self.adapter = Adaptor(STATE, HIDDEN, INNER)
        self.phones = nn.Linear(STATE, len(PHONES))
        self.path = nn.Linear(STATE, 1 + len(PHONES))  # 0 is CTC's blank
        self.look = nn.Linear(HIDDEN, LOOKS)
        self.intent = nn.Linear(LOOKS * HIDDEN, len(LABELS))
        see_nearby(self.encoder)

    def forward(self, mel: Tensor, lengths: Tensor) -> Heard:
        """``mel`` [B, 128, T] zero-padded, ``lengths`` [B] valid mel frames."""
        states, frames = self.encoder(mel, lengths)
        valid = torch.arange(states.shape[1]) < frames[:, None]
        rows, count = self.adapter(states * valid[..., None], frames)
        rows = rows.float()
        inside = (torch.arange(rows.shape[1]) < count[:, None])[..., None]
        # As the backbone sees them, which normalises each row before it attends: what is told by a row's size
        # alone is lost on it.
        seen = SIZE * F.rms_norm(rows, (HIDDEN,))
        weight = self.look(seen).float().masked_fill(~inside, -1e4).softmax(1)  # [B, N, looks]
        looked = torch.einsum("bnk,bnh->bkh", weight, seen).flatten(1)
        # A backbone that attends evenly, as a fresh one does, has the answer before it when the intent is in
        # the mean of the rows too: it need not first learn where to look.
        mean = (seen * inside).sum(1) / inside.sum(1).clamp(min=1)
        return Heard(
            rows, count, self.intent(looked), self.intent(mean.repeat(1, LOOKS)), frames,
            self.phones(states), self.path(states),
        )  # fmt: skip

    def scores(self, rows: Tensor) -> Tensor:
        """What the head makes of the plain mean of ``rows`` [n, hidden]: scores [labels]."""
        mean = SIZE * F.rms_norm(rows, (HIDDEN,)).mean(0)
        scores: Tensor = self.intent(mean.repeat(LOOKS))
        return scores

    def told_by(self, rows: Tensor) -> str:
        """The likeliest intent by those scores."""
        return LABELS[int(self.scores(rows).argmax())]


@torch.no_grad()
def see_nearby(encoder: AudioEncoder) -> None:
    """Positions are sinusoids, and three heads of each block begin by looking at frames nearby.

    Whisper's attention has to learn from its positions what "next to" means, which takes long on little
    data. With sinusoids in place, query and key projections that pick the same sine-cosine pairs, one of
    them rotated, score highest at a fixed distance: a head begins as a soft convolution tap. The fourth
    head begins as usual.
    """
    table = encoder.positional_embedding.weight
    positions, state = table.shape
    pairs = state // 2
    omega = torch.exp(-math.log(100.0) * torch.arange(pairs) / (pairs - 1))  # 1 to 0.01 rad a frame of 20 ms
    angle = torch.arange(positions)[:, None] * omega
    table.copy_(0.5 * torch.cat([angle.sin(), angle.cos()], dim=1))
    table.requires_grad_(False)  # so that positions longer than the training speech go on meaning the same
    for layer, block in enumerate(encoder.blocks):
        query, key = block.get_submodule("attn.query").weight, block.get_submodule("attn.key").weight
        assert isinstance(query, Tensor)
        assert isinstance(key, Tensor)
        width = state // HEADS
        reach = (1, 2, 3, 4, 6, 8, 10, 12)[min(layer, 7)]
        for head, (shift, first, last) in enumerate(((-reach, 0, 48), (reach, 0, 48), (0, 24, 95))):
            chosen = torch.linspace(first, last, width // 2).round().long()
            query[head * width : (head + 1) * width] *= 0.3
            key[head * width : (head + 1) * width] *= 0.3
            for place, pair in enumerate(chosen.tolist()):
                row, turn = head * width + 2 * place, float(omega[pair]) * shift
                gain = 1.1
                query[row, pair] += gain
                query[row + 1, pairs + pair] += gain
                key[row, pair] += gain * math.cos(turn)
                key[row, pairs + pair] -= gain * math.sin(turn)
                key[row + 1, pair] += gain * math.sin(turn)
                key[row + 1, pairs + pair] += gain * math.cos(turn)


@dataclass
class Batch:
    """Zero-padded mels [B, 128, T] and their valid lengths [B]; what is to be heard in them.

    ``phones`` [B, E] of each frame of 40 ms (-100: not known), ``path`` all phones joined and ``counts`` [B]
    of them, numbered from 1; ``labels`` [B] the intents.
    """

    mel: Tensor
    lengths: Tensor
    phones: Tensor
    path: Tensor
    counts: Tensor
    labels: Tensor
    hearings: list[Hearing]


def warped(mel: Tensor, factor: float) -> Tensor:
    """The frequency axis of [T, 128] stretched: another vocal tract, the same pitch pattern."""
    at = (torch.arange(128) * factor).clamp(max=126.99)
    low = at.floor().long()
    return mel[:, low] + (mel[:, low + 1] - mel[:, low]) * (at - low)


def dulled(mel: Tensor, draw: random.Random) -> Tensor:
    """[T, 128] as a parametric synthesiser may say it: blurred over frequency or time, with less contrast."""
    if draw.random() < 0.35:
        side = draw.uniform(0.1, 0.9)
        mel = mel + side * (F.pad(mel[:, 1:], (0, 1)) + F.pad(mel[:, :-1], (1, 0)) - 2 * mel) / 3
        mel[:, [0, -1]] = mel[:, [1, -2]]  # the edges have one neighbour only
    if draw.random() < 0.25:
        side = draw.uniform(0.1, 0.9)
        later, earlier = mel.roll(-1, 0), mel.roll(1, 0)
        mel = mel + side * (later + earlier - 2 * mel) / 3
    if draw.random() < 0.35:
        mean = mel.mean(0)
        mel = mean + draw.uniform(0.75, 1.1) * (mel - mean)
    return mel


def masked(mel: Tensor, draw: random.Random) -> Tensor:
    """[T, 128] with bands and moments missing (SpecAugment, Park et al. 2019)."""
    mel = mel.clone()
    floor = float(mel.min())
    if draw.random() < 0.5:
        for _ in range(2):
            width, at = draw.randint(0, 14), draw.randint(0, 127)
            mel[:, at : at + width] = floor
    if draw.random() < 0.4:
        for _ in range(2):
            width, at = draw.randint(0, 8), draw.randrange(len(mel))
            mel[at : at + width] = floor
    return mel


def collate(hearings: list[Hearing], draw: random.Random | None = None) -> Batch:
    """One batch. With ``draw``: duller voices, vocal-tract warps, masked bands and moments."""
    total = max(len(h.mel) for h in hearings)
    mel = torch.zeros(len(hearings), total, 128)
    phones = torch.full((len(hearings), total // 4 + 1), UNKNOWN)
    for row, h in enumerate(hearings):
        one = torch.from_numpy(h.mel).float()
        if draw is not None:
            one = dulled(one, draw)
            if draw.random() < 0.6:
                one = warped(one, draw.uniform(0.86, 1.14))
            one = masked(one, draw)
        mel[row, : len(one)] = one
        phones[row, : len(h.phones)] = torch.from_numpy(h.phones)
    return Batch(
        mel.transpose(1, 2).contiguous(),
        torch.tensor([len(h.mel) - 2 for h in hearings]),
        phones,
        torch.tensor([1 + phone for h in hearings for phone in h.path], dtype=torch.long),
        torch.tensor([len(h.path) for h in hearings]),
        torch.tensor([LABELS.index(h.intent) for h in hearings]),
        hearings,
    )


def hearing_losses(heard: Heard, batch: Batch) -> dict[str, Tensor]:
    """``frames``: the phone in each frame; ``path``: their order, by CTC; ``intent``, looked for and in the
    mean.
    """
    length = min(heard.phones.shape[1], batch.phones.shape[1])
    evenly = torch.ones(len(LABELS))
    evenly[LABELS.index(REFUSE)] = REFUSAL_WEIGHT
    frames = F.cross_entropy(
        heard.phones[:, :length].float().flatten(0, 1), batch.phones[:, :length].flatten(),
        ignore_index=UNKNOWN, label_smoothing=0.05,
    )  # fmt: skip
    path = F.ctc_loss(
        heard.path.float().log_softmax(-1).transpose(0, 1), batch.path, heard.frames, batch.counts,
        reduction="none", zero_infinity=True,
    )  # fmt: skip
    return {
        "frames": torch.nan_to_num(frames),  # a batch may hold no frame that is known
        "path": (path / batch.counts.clamp(min=4)).mean(),
        "intent": F.cross_entropy(heard.intent.float(), batch.labels, evenly, label_smoothing=0.05),
        "mean_intent": F.cross_entropy(heard.mean_intent.float(), batch.labels, evenly, label_smoothing=0.05),
    }
