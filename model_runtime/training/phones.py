"""The first step of nano's hearing: ``python -m model_runtime.training.phones --work DIR --minutes 12``.

Flite tells when each of its phones ends (``-psdur``), so the encoder can be taught frame by frame which
phone it hears, and need not find out by itself where in the sound a letter lies, which is what CTC from
scratch spends most of its time on. Writes ``encoder.pt``, from which ``model_runtime.training.encoder`` goes
on.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from model_runtime.training.augment import coloured, telephone, with_noise
from model_runtime.training.encoder import STATE, Hearer, warped
from model_runtime.training.hearings import Mel, Said, mel_of, read
from model_runtime.training.synthesise import RATE, Voice, flite_settings

FRAME = 640  # samples an encoder frame: 25 Hz
SILENCE = "pau"
BATCH = 12
STRAY_S = 0.06  # the utterance's own length must agree with the phones' this well, or it is left out
Timed = list[tuple[str, float]]
"""Phones and when each ends, in seconds."""
Lesson = tuple[Mel, NDArray[np.int64]]
"""A log-mel [T, 128], and the number of the phone in each encoder frame [E]."""


def timed(said: Said) -> Timed:
    """Flite's own timing of an utterance; empty if it does not fit the sound that was kept."""
    engine, name, *numbers = said.voice.split(":")
    voice = Voice(engine, name, *map(float, numbers))
    command = ["flite", "-voice", name, *flite_settings(voice), "-psdur", "-t", said.words, "none"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    phones = [
        (phone, float(end) / voice.formant) for phone, _, end in (item.rpartition(":") for item in told)
    ]
    return phones if phones and abs(phones[-1][1] - len(said.pcm) / RATE) < STRAY_S else []


def timings(said: list[Said], file: Path) -> dict[int, Timed]:
    """The timings of all flite utterances by their place in ``said``, kept in ``file``."""
    if not file.exists():
        spoken = [at for at, one in enumerate(said) if one.voice.startswith("flite:")]
        with ThreadPoolExecutor(2) as pool:
            found = list(
                tqdm(pool.map(lambda at: timed(said[at]), spoken), total=len(spoken), desc="timings")
            )
        file.write_text(json.dumps({at: one for at, one in zip(spoken, found, strict=True) if one}))
    return {int(at): [(p, end) for p, end in one] for at, one in json.loads(file.read_text()).items()}


def heard(
    said: Said, phones: Timed, names: list[str], draw: np.random.Generator
) -> tuple[Mel, NDArray[np.int64]]:
    """The utterance over a line."""
    lead, tail = int(draw.integers(1000, 6000)), int(draw.integers(1600, 7000))
    wave = np.pad(said.wave, (lead, tail)).astype(np.float32)
    if draw.random() < 0.75:
        wave = with_noise(wave, coloured(len(wave), draw, float(draw.integers(2))), draw.uniform(10, 35))
    wave = np.clip(wave * np.float32(draw.uniform(0.2, 1.2)), -1, 1)
    if draw.random() < 0.5:
        wave = telephone(wave)
    mel = mel_of(wave)
    middle = (np.arange((len(mel) - 1) // 4) * FRAME + FRAME // 2 - lead) / RATE
    at = np.searchsorted([end for _, end in phones], middle)
    numbers = np.array([names.index(phone) for phone, _ in phones] + [names.index(SILENCE)])
    labels: NDArray[np.int64] = numbers[np.where(middle < 0, len(phones), np.minimum(at, len(phones)))]
    return mel, labels


def lessons(said: list[Said], times: dict[int, Timed], names: list[str], seed: int) -> Iterator[list[Lesson]]:
    """Batches of like length without end."""
    draw, shuffle = np.random.default_rng(seed), random.Random(seed)
    order: list[int] = []
    while True:
        if len(order) < 8 * BATCH:
            again = list(times)
            shuffle.shuffle(again)
            order += again
        piece = sorted(
            (heard(said[at], times[at], names, draw) for at in (order.pop() for _ in range(8 * BATCH))),
            key=lambda lesson: len(lesson[0]),
        )
        groups = [piece[at : at + BATCH] for at in range(0, len(piece), BATCH)]
        shuffle.shuffle(groups)
        yield from groups


def collate(group: list[Lesson], draw: random.Random) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mels [B, 128, T] with vocal-tract warps and masked bands, their lengths, labels [B, E] (-100: none)."""
    mel = torch.zeros(len(group), max(len(one) for one, _ in group), 128)
    labels = torch.full((len(group), max(len(one) for _, one in group)), -100)
    for row, (one, label) in enumerate(group):
        plain = torch.from_numpy(one).float()
        if draw.random() < 0.5:
            plain = warped(plain, draw.uniform(0.88, 1.12))
        floor = float(plain.min())
        for _ in range(2):
            width, at = draw.randint(0, 12), draw.randint(0, 127)
            plain[:, at : at + width] = floor
        mel[row, : len(plain)] = plain
        labels[row, : len(label)] = torch.from_numpy(label)
    return mel.transpose(1, 2).contiguous(), torch.tensor([len(one) - 2 for one, _ in group]), labels


def main() -> None:
    """Command line."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument(
        "--work", type=Path, required=True, help="holds train/, receives phones.json, encoder.pt"
    )
    parse.add_argument("--minutes", type=float, default=12.0)
    parse.add_argument("--rate", type=float, default=1.2e-3)
    parse.add_argument("--seed", type=int, default=1)
    args = parse.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    said = read(args.work / "train")
    times = timings(said, args.work / "phones.json")
    names = sorted({phone for one in times.values() for phone, _ in one})
    model, head = Hearer(), nn.Linear(STATE, len(names))
    if (args.work / "encoder.pt").exists():
        model.load_state_dict(torch.load(args.work / "encoder.pt", weights_only=True)["model"])
    weights = [p for p in [*model.encoder.parameters(), *head.parameters()] if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, args.rate, betas=(0.9, 0.98), weight_decay=0.01)
    began, right, draw = time.monotonic(), 0.0, random.Random(args.seed)
    for step, group in enumerate(lessons(said, times, names, args.seed), 1):
        part = (time.monotonic() - began) / (args.minutes * 60)
        if part >= 1:
            break
        for settings in optimiser.param_groups:
            settings["lr"] = args.rate * min(1.0, step / 150) * max(0.05, 1 - part)
        mel, lengths, labels = collate(group, draw)
        with torch.autocast("cpu", torch.bfloat16):
            states, _ = model.encoder(mel, lengths)
            scores = head(states)[:, : labels.shape[1]].float()
        labels = labels[:, : scores.shape[1]]
        loss = F.cross_entropy(
            scores.flatten(0, 1), labels.flatten(), ignore_index=-100, label_smoothing=0.05
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        voiced = (labels != -100) & (labels != names.index(SILENCE))
        hits = (scores.detach().argmax(-1) == labels)[voiced]
        right = 0.98 * right + 0.02 * float(hits.float().mean())
        if step % 50 == 0:
            print(json.dumps({"step": step, "part": round(part, 2), "phones": round(right, 3)}), flush=True)
    learner = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    state = {"model": model.state_dict(), "optimiser": learner.state_dict(), "step": 0, "used": 0.0}
    torch.save(state, args.work / "encoder.pt")


if __name__ == "__main__":
    main()
