"""Stage one of nano's hearing: ``python -m model_runtime.training.encoder --work DIR --minutes 45``.

The audio encoder and the adaptor learn together to write down letters (CTC at 25 Hz, from the encoder) and
to tell the intent (attention pooling over the adaptor's rows at 12.5 Hz), so that the rows the language
model reads already mean something. Both heads are thrown away afterwards. The learning rate falls with the
time used up, not with steps.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from model_runtime.listening.adaptor import Adaptor
from model_runtime.listening.encoder import AudioEncoder
from model_runtime.training.hearings import Hearing, Said, mel_of, over_the_test_line, read, shards
from model_runtime.training.texts import REFUSE, intents

STATE, HEADS, LAYERS, CONTEXT, INNER, HIDDEN = 192, 4, 6, 1500, 512, 256
LETTERS = " abcdefghijklmnopqrstuvwxyz'"  # 0 is CTC's blank
LABELS = [*intents(), REFUSE]
FRAMES = 3600  # mel frames a batch, 14 questions or so: many small steps learn faster here


class Hearer(nn.Module):
    """Encoder and adaptor with the two heads they are taught by."""

    def __init__(self) -> None:
        """Fresh weights, attention local to begin with."""
        super().__init__()
        self.encoder = AudioEncoder(128, CONTEXT, STATE, HEADS, LAYERS)
        self.adapter = Adaptor(STATE, HIDDEN, INNER)
        self.letters = nn.Linear(STATE, len(LETTERS) + 1)
        self.look = nn.Linear(HIDDEN, 4)
        self.intent = nn.Linear(4 * HIDDEN, len(LABELS))
        see_nearby(self.encoder)

    def forward(self, mel: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Letter scores [B, E, letters] and lengths, intent scores [B, labels], rows [B, N, hidden] and
        lengths.
        """
        states, frames = self.encoder(mel, lengths)
        valid = torch.arange(states.shape[1]) < frames[:, None]
        rows, count = self.adapter(states * valid[..., None], frames)
        rows = rows.float()
        outside = (torch.arange(rows.shape[1]) >= count[:, None])[..., None]
        weight = self.look(rows).float().masked_fill(outside, -1e4).softmax(1)  # [B, N, 4]
        pooled = torch.einsum("bnk,bnh->bkh", weight, rows).flatten(1)
        return self.letters(states), frames, self.intent(pooled), rows, count


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
    """Zero-padded mels [B, 128, T], their valid lengths, letters joined and counted, labels."""

    mel: Tensor
    lengths: Tensor
    letters: Tensor
    counts: Tensor
    labels: Tensor
    heard: list[Hearing]


def warped(mel: Tensor, factor: float) -> Tensor:
    """The frequency axis of [T, 128] stretched: another vocal tract, the same pitch pattern."""
    at = (torch.arange(128) * factor).clamp(max=126.99)
    low = at.floor().long()
    return mel[:, low] + (mel[:, low + 1] - mel[:, low]) * (at - low)


def collate(heard: list[Hearing], draw: random.Random | None = None, masks: bool = True) -> Batch:
    """One batch. With ``draw``: vocal-tract warps and (``masks``) SpecAugment."""
    total = max(len(h.mel) for h in heard)
    mel = torch.zeros(len(heard), total, 128)
    for row, h in enumerate(heard):
        one = torch.from_numpy(h.mel).float()
        if draw is not None and draw.random() < 0.5:
            one = warped(one, draw.uniform(0.88, 1.12))
        if draw is not None and masks:
            floor = float(one.min())
            for _ in range(2):
                width, at = draw.randint(0, 14), draw.randint(0, 127)
                one[:, at : at + width] = floor
                width, at = draw.randint(0, 12), draw.randint(0, len(one))
                one[at : at + width] = floor
        mel[row, : len(one)] = one
    codes = [[LETTERS.index(letter) + 1 for letter in h.words if letter in LETTERS] for h in heard]
    return Batch(
        mel.transpose(1, 2).contiguous(),
        torch.tensor([len(h.mel) - 2 for h in heard]),
        torch.tensor([code for one in codes for code in one], dtype=torch.long),
        torch.tensor([len(one) for one in codes]),
        torch.tensor([LABELS.index(h.intent) for h in heard]),
        heard,
    )


def batches(shard: list[Hearing], draw: random.Random, frames: int = FRAMES) -> Iterator[list[Hearing]]:
    """Of like length, at most ``frames`` with their padding, in random order."""
    ordered = sorted(shard, key=lambda h: len(h.mel) + draw.uniform(-12, 12))
    groups: list[list[Hearing]] = [[]]
    for h in ordered:
        if groups[-1] and (len(groups[-1]) + 1) * max(len(h.mel), len(groups[-1][-1].mel)) > frames:
            groups.append([])
        groups[-1].append(h)
    draw.shuffle(groups)
    yield from groups


def written(scores: Tensor, frames: Tensor) -> list[str]:
    """The best path of CTC as text."""
    texts = []
    for best, count in zip(scores.argmax(-1).tolist(), frames.tolist(), strict=True):
        path = best[:count]
        kept = [code for code, before in zip(path, [0, *path], strict=False) if code and code != before]
        texts.append("".join(LETTERS[code - 1] for code in kept))
    return texts


def word_errors(truth: str, told: str) -> int:
    """Words inserted, deleted and replaced."""
    want, got = truth.split(), told.split()
    row = list(range(len(got) + 1))
    for i, word in enumerate(want, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(got, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]


@torch.no_grad()
def examine(model: Hearer, said: list[Said], noisy: bool, seed: int = 5) -> dict[str, float]:
    """Accuracy of the intent head on questions and on the rest, and the word error rate of the letters."""
    draw = np.random.default_rng(seed)
    model.eval()
    right: dict[bool, list[bool]] = {True: [], False: []}
    wrong_words = words = 0
    heard = []
    for one in said:
        wave = (
            over_the_test_line(one.wave, draw) if noisy else np.pad(one.wave, (3200, 6400)).astype(np.float32)
        )
        heard.append(Hearing(mel_of(wave), one.words, one.intent))
    for group in batches(heard, random.Random(0)):
        batch = collate(group)
        with torch.autocast("cpu", torch.bfloat16):
            letters, frames, scores, _, _ = model(batch.mel, batch.lengths)
        guesses = scores.argmax(-1).tolist()
        for h, guess, told in zip(group, guesses, written(letters.float(), frames), strict=True):
            right[h.intent == REFUSE].append(LABELS[guess] == h.intent)
            wrong_words += word_errors(h.words, told)
            words += len(h.words.split())
    model.train()
    mean = {refused: sum(hits) / max(1, len(hits)) for refused, hits in right.items()}
    return {
        "intent": round(mean[False], 3),
        "refused": round(mean[True], 3),
        "wer": round(wrong_words / max(1, words), 3),
    }


def main() -> None:
    """Command line."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument(
        "--work", type=Path, required=True, help="holds train/ and dev/, receives encoder.pt and the log"
    )
    parse.add_argument("--minutes", type=float, default=45.0)
    parse.add_argument("--rate", type=float, default=2e-3)
    parse.add_argument(
        "--hardness", type=int, default=0, help="shards of the ramp to a hard line that are behind it"
    )
    parse.add_argument("--seed", type=int, default=1)
    args = parse.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    draw = random.Random(args.seed)
    model = Hearer()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, args.rate, betas=(0.9, 0.98), weight_decay=0.01)
    state_file, log_file, stop_file = (
        args.work / "encoder.pt",
        args.work / "encoder.jsonl",
        args.work / "encoder.stop",
    )
    step, used, saved, examined = 0, 0.0, 0.0, 0.0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        step, used = state["step"], state["used"]
        saved = examined = used
    dev = {kind: read(args.work / "dev", f"{kind}-*.npz") for kind in ("known", "new")}
    tick = time.monotonic()
    mean = [4.0, 4.0, 0.0]
    done = False
    for shard in shards(args.work / "train", args.seed + step, args.hardness):
        for group in batches(shard, draw):
            part = min(1.0, used / (args.minutes * 60))
            rate = args.rate * min(1.0, (step + 1) / 300) * max(0.02, min(1.0, 1.6 * (1 - part)))
            for settings in optimiser.param_groups:
                settings["lr"] = rate
            batch = collate(group, draw if part > 0.8 else None, masks=part > 0.9)
            with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):  # a fifth quicker here
                letters, frames, scores, _, _ = model(batch.mel, batch.lengths)
            ctc = F.ctc_loss(
                letters.float().log_softmax(-1).transpose(0, 1), batch.letters, frames, batch.counts,
                reduction="none", zero_infinity=True,
            )  # fmt: skip
            ctc = (ctc / batch.counts.clamp(min=8)).mean()
            kind = F.cross_entropy(scores.float(), batch.labels, label_smoothing=0.05)
            loss = ctc + kind
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimiser.step()
            step += 1
            hit = float((scores.argmax(-1) == batch.labels).float().mean())
            mean = [
                0.98 * old + 0.02 * new
                for old, new in zip(mean, (float(ctc.detach()), float(kind.detach()), hit), strict=True)
            ]
            used, tick = used + time.monotonic() - tick, time.monotonic()
            done = used > args.minutes * 60 or stop_file.exists()
            if step % 50 == 0 or done:
                line: dict[str, object] = {
                    "step": step,
                    "min": round(used / 60, 2),
                    "ctc": round(mean[0], 3),
                    "ce": round(mean[1], 3),
                    "hit": round(mean[2], 3),
                    "lr": round(rate, 6),
                }
                if used - examined > 300 or done:
                    examined = used
                    for kind_of, said in dev.items():
                        for noisy in (False, True):
                            line[f"{kind_of}{'-phone' if noisy else ''}"] = examine(model, said, noisy)
                    tick = time.monotonic()
                print(json.dumps(line), flush=True)
                with log_file.open("a") as log:
                    log.write(json.dumps(line) + "\n")
            if used - saved > 150 or done:
                saved = used
                half = state_file.with_suffix(".half")
                torch.save(
                    {
                        "model": model.state_dict(),
                        "optimiser": optimiser.state_dict(),
                        "step": step,
                        "used": used,
                    },
                    half,
                )
                half.rename(state_file)
            if done:
                return


if __name__ == "__main__":
    main()
