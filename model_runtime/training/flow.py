"""Stage flow: codes and a voice to the 24 kHz mel, by flow matching through the product's own network.

Every training item is what serving will see: a prompt (mel known, another sentence of the same voice)
followed by the sentence to be made. The attention masks are drawn among whole sentences and the chunks of a
stream, so that a stream sounds as good as an offline pass. A throw-away head regresses the mel from the
encoder and the speaker, which teaches the codes' meaning sooner than the noise does, and makes `mu` a mel
to start from.
"""

import math
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model_runtime.speaking.conformer import EncoderConfig
from model_runtime.speaking.dit import DiTConfig
from model_runtime.speaking.flow import SIGMA_MIN, Flow, FlowConfig, chunk_mask, time_steps
from model_runtime.training.codec import CODES, DIGITS, LEVELS
from model_runtime.training.speech_loop import Loop, Losses

SERVED = (8, 12, 20, 25)  # tokens a chunk, the last repeated, as nano is served
SCHEDULES = (SERVED, SERVED, (7, 15, 25), (7,), (15,), (25,))
STREAMED = 0.6  # of the batches
STEPS = 2  # solver steps that nano is served with


@dataclass(frozen=True)
class Shape:
    """How a batch is cut, in tokens: items, tokens to be made at most, prompt tokens from and to."""

    size: int
    made: int
    prompt: tuple[int, int]


# About the same work each: attention makes long items dear, and serving sees long ones too.
SHAPES = (Shape(20, 45, (0, 0)), Shape(14, 40, (12, 35)), Shape(14, 40, (12, 35)), Shape(7, 60, (40, 80)))
ALONE = Shape(20, 60, (0, 0))  # what the encoder is taught with while it is taught alone
REGRESSION_STEPS = (
    1600  # of the encoder alone: it must know the codes before noise is worth carrying to a mel
)
NANO = FlowConfig(
    input_size=128,
    inference_cfg_rate=0.0,
    encoder=EncoderConfig(128, 128, num_blocks=3, num_up_blocks=2, attention_heads=4, linear_units=512),
    estimator=DiTConfig(depth=4, num_heads=4, head_dim=32, hidden_size=128),
)


@dataclass(frozen=True)
class Spoken:
    """One sentence: codes int64 [N], mel float16 [2N, 80], speaker float32 [192], and whose it is."""

    voice: str
    codes: Tensor
    mel: Tensor
    speaker: Tensor


@dataclass(frozen=True)
class Batch:
    """A padded batch: codes [B, N], mel [B, 2N, 80], speaker [B, 192], prompt and length in tokens [B]."""

    codes: Tensor
    mel: Tensor
    speaker: Tensor
    prompt: Tensor
    length: Tensor


class Sentences:
    """Draws prompt + sentence pairs of one voice."""

    def __init__(self, spoken: list[Spoken]) -> None:
        """Leaves out what is shorter than half a second."""
        self.spoken = [s for s in spoken if len(s.codes) >= 12]
        self.by_voice: dict[str, list[Spoken]] = defaultdict(list)
        for s in self.spoken:
            self.by_voice[s.voice].append(s)

    def batch(self, shape: Shape, rng: random.Random) -> Batch:
        """Items of that shape; one in twelve has no prompt."""
        rows = []
        for _ in range(shape.size):
            said = rng.choice(self.spoken)
            start = rng.randint(0, max(0, len(said.codes) - shape.made)) if rng.random() < 0.7 else 0
            codes, mel = (said.codes[start:][: shape.made], said.mel[2 * start :][: 2 * shape.made].float())
            other, named = (rng.choice(self.by_voice[said.voice]) for _ in range(2))
            keep = min(rng.randint(*shape.prompt), len(other.codes)) if rng.random() > 1 / 12 else 0
            at = rng.randint(0, len(other.codes) - keep)
            codes = torch.cat([other.codes[at : at + keep], codes])
            mel = torch.cat([other.mel[2 * at : 2 * (at + keep)].float(), mel])
            rows.append((codes, mel, named.speaker, keep))
        longest = max(len(row[0]) for row in rows)
        return Batch(
            torch.stack([F.pad(row[0], (0, longest - len(row[0]))) for row in rows]),
            torch.stack([F.pad(row[1], (0, 0, 0, 2 * longest - len(row[1]))) for row in rows]),
            torch.stack([row[2] for row in rows]),
            torch.tensor([row[3] for row in rows]),
            torch.tensor([len(row[0]) for row in rows]),
        )


class Codebook(nn.Module):
    """Embeds a code by its eight digits: 6,561 rows of 8 learnt ones, so that rare codes are like their kin.

    `table` is what the product reads: one row a code.
    """

    def __init__(self, width: int) -> None:
        """`width` numbers a code."""
        super().__init__()
        self.mix = nn.Linear(DIGITS, width)
        codes = torch.arange(CODES)[:, None] // LEVELS ** torch.arange(DIGITS)
        self.register_buffer("levels", (codes % LEVELS - 1).float(), persistent=False)
        self.levels: Tensor

    def forward(self, codes: Tensor) -> Tensor:
        """int [B, N] -> [B, N, width]."""
        embedded: Tensor = self.mix(self.levels[codes])
        return embedded

    @torch.no_grad()
    def table(self) -> Tensor:
        """[6561, width]."""
        embedded: Tensor = self.mix(self.levels)
        return embedded

    @torch.no_grad()
    def learn(self, table: Tensor) -> None:
        """Take over what `table` gave: it is linear in the digits, so it tells the mix that made it."""
        known = torch.cat([self.levels, torch.ones(CODES, 1)], 1)
        mix = torch.linalg.lstsq(known, table.float()).solution
        self.mix.weight.copy_(mix[:-1].T)
        self.mix.bias.copy_(mix[-1])


class Head(nn.Module):
    """Throw-away: what `mu` lacks of the mel for being any speaker's. [B, T, C], [B, 192] -> [B, T, 80]."""

    def __init__(self, width: int) -> None:
        """Takes encoder frames of that width."""
        super().__init__()
        self.speaker = nn.Linear(192, 256)
        self.frames = nn.Linear(width, 256)
        self.leave = nn.Linear(256, 80)

    def forward(self, frames: Tensor, speaker: Tensor) -> Tensor:
        """To be added to `mu`."""
        lacking: Tensor = self.leave(F.gelu(self.frames(frames) + 8 * self.speaker(speaker)[:, None]))
        return lacking


def drawn_times(count: int) -> Tensor:
    """[count] times in 0..1: three in four where `STEPS` solver steps evaluate, the rest on all of the path.

    A small network trained for minutes speaks more clearly in two steps that it knows well than in ten that
    it knows a little, and two cost a fifth.
    """
    anywhere = 1 - torch.cos(torch.rand(count) * math.pi / 2)
    stops = time_steps(STEPS)[:-1]
    # The first evaluation, from pure noise, decides what is said: it is practised twice as often.
    pick = (torch.rand(count) * (STEPS + 1)).long().sub(1).clamp(min=0)
    return torch.where(torch.rand(count) < 0.75, stops[pick], anywhere)


def encoded(
    flow: Flow, book: Codebook, head: Head, batch: Batch, mask: Tensor, wide: Tensor
) -> tuple[Tensor, Tensor]:
    """`mu` [B, T, 80], and the mean absolute error of the mel regressed from it, over valid frames."""
    speaker = F.normalize(batch.speaker, dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        frames = flow.encoder(book(batch.codes), batch.length, mask, wide)
        mu = flow.encoder_proj(frames)
        regressed = mu.float() + head(frames, speaker).float()
    valid = (torch.arange(batch.mel.shape[1]) < 2 * batch.length[:, None])[..., None]
    return mu, ((regressed - batch.mel).abs() * valid).sum() / valid.sum() / 80


def losses_of(
    flow: Flow,
    book: Codebook,
    head: Head,
    batch: Batch,
    schedule: tuple[int, ...] | None,
    matching: bool = True,
) -> Losses:
    """The head's error and, where asked for, the flow-matching error on the frames to be made."""
    mask = chunk_mask(batch.length, batch.codes.shape[1], schedule, batch.prompt)
    wide = mask.repeat_interleave(2, 1).repeat_interleave(2, 2)
    mu, coarse = encoded(flow, book, head, batch, mask, wide)
    if not matching:
        return {"regression": coarse}
    at = torch.arange(batch.mel.shape[1])
    known = (at < 2 * batch.prompt[:, None])[..., None]
    made = ((at < 2 * batch.length[:, None])[..., None] & ~known).float()
    noise = torch.randn_like(batch.mel)
    time = drawn_times(len(batch.mel))
    t = time[:, None, None]
    # The straight path from noise to mel, as the published model was trained.
    x = (1 - (1 - SIGMA_MIN) * t) * noise + t * batch.mel
    with torch.autocast("cpu", torch.bfloat16):
        speaker = flow.speaker(batch.speaker)
        found = flow.decoder.estimator(x, mu, time, speaker, batch.mel * known, wide)
    error = ((found.float() - (batch.mel - (1 - SIGMA_MIN) * noise)) ** 2 * made).sum() / made.sum() / 80
    return {"matching": error, "regression": coarse}


def train(
    known: list[Spoken],
    unseen: list[Spoken],
    flow: Flow,
    folder: Path,
    steps: int,
    seed: int = 1,
    goes_on: bool = False,
) -> Loop:
    """Trains `flow` in place; the loop's averaged weights (`loop.average`) are what is shipped.

    ``goes_on``: it has learnt before, so it is taught all at once from the first step.
    """
    flow.input_embedding.requires_grad_(False)  # filled from the codebook in the end
    width = flow.config.input_size
    codebook = Codebook(width)
    if goes_on:
        codebook.learn(flow.input_embedding.weight)
    modules = {"flow": flow, "book": codebook, "head": Head(flow.encoder_proj.in_features)}
    loop = Loop("flow", folder, modules, steps, rate=1.5e-3, seed=seed, average=("flow", "book"))
    book, head = modules["book"], modules["head"]
    assert isinstance(book, Codebook)
    assert isinstance(head, Head)
    train_set, held_out = Sentences(known), Sentences(unseen)

    def losses(step: int) -> Losses:
        rng = random.Random(f"{seed}/{step}")
        schedule = rng.choice(SCHEDULES) if rng.random() < STREAMED else None
        matching = goes_on or step >= REGRESSION_STEPS
        batch = train_set.batch(rng.choice(SHAPES) if matching else ALONE, rng)
        found = losses_of(flow, book, head, batch, schedule, matching)
        return {"loss": sum(found.values(), torch.zeros(())), **found}

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        torch.manual_seed(seed)
        batch = held_out.batch(Shape(16, 60, (30, 50)), random.Random(seed))
        whole = losses_of(flow, book, head, batch, None)
        streamed = losses_of(flow, book, head, batch, SCHEDULES[0])
        return {
            "matching": float(whole["matching"]),
            "streamed": float(streamed["matching"]),
            "regression": float(whole["regression"]),
        }

    loop.run(losses, evaluate)
    return loop


def shipped(flow: dict[str, Tensor], book: dict[str, Tensor]) -> dict[str, Tensor]:
    """The flow's tensors as the product reads them: the codebook written out as the embedding."""
    embed = Codebook(book["mix.weight"].shape[0])
    embed.load_state_dict(book)
    return {**flow, "input_embedding.weight": embed.table()}
