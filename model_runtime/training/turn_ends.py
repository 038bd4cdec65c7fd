"""Teaches when a caller has finished: ``python -m model_runtime.training.turn_ends --minutes 20``.

A caller who pauses has either said all they wanted or goes on in a moment. The net learns to tell from the
last seconds: the words they end with, and the melody. It hears what ``turn_end_sounds`` makes, with the
silence that has passed since and over all kinds of lines. Festival, another engine, is heard in the check at
the end alone, with words that were in no lesson. No human voice was in it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from model_runtime.training.augment import RATE, Wave
from model_runtime.training.hearings import PHONES
from model_runtime.training.sound_net import (
    MELS,
    LogMel,
    Sound,
    carried,
    heard,
    keep,
    kept,
    somebody_elses,
    train,
    write,
)
from model_runtime.training.synthesise import FESTIVAL, Voice
from model_runtime.training.turn_end_sounds import FINISHED, UNFINISHED, lesson, spoken
from model_runtime.turn_ends import MODEL, SAMPLES

SPELLING = 0.3  # what the phones count beside the kind
# For the check: in no list of the lesson, and none of what nano is taught.
UNHEARD = {
    FINISHED: (
        *("how heavy is your rucksack", "has the rain stopped", "am i too late", "what does a lamp cost"),
        *("is the shop open at night", "my stove is leaking", "who designed this jacket", "seventeen euros"),
        *("no the other way round", "please send me a catalogue", "shall we swap", "that sounds good to me"),
    ),
    UNFINISHED: (
        *("i would like to know", "could you tell me", "how heavy is your", "do you sell tents for"),
        *("when is your", "is the shop open at", "what does a", "my stove is", "who designed the"),
        *("please send me a", "shall we swap it if", "that sounds good but"),
    ),
}  # fmt: skip


class Net(LogMel):
    """Waveform [B, SAMPLES] in [-1, 1], the present at its end -> logits [B, 2]: unfinished, finished."""

    def __init__(self, width: int = 160) -> None:
        """See the class. ``path`` only teaches it what to listen for, and is not written."""
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv1d(MELS, width // 2, 5, stride=2, padding=2), nn.ReLU(), nn.BatchNorm1d(width // 2),
            nn.Conv1d(width // 2, width, 5, stride=2, padding=2), nn.ReLU(), nn.BatchNorm1d(width),
        )  # fmt: skip
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(width, width, 3, padding=wide, dilation=wide), nn.ReLU(), nn.BatchNorm1d(width)
            )
            for wide in (1, 2, 4, 1, 2, 4, 1, 2)
        )
        self.forget = nn.Dropout(0.3)
        self.recall = nn.GRU(width, width, batch_first=True)
        self.tell = nn.Linear(width, 2)
        self.path = nn.Linear(width, 1 + len(PHONES))

    def told(self, features: Tensor) -> Tensor:
        """Log-mel [B, MELS, T] -> logits [B, 2]."""
        return self._told(self._found(features))

    def losses(self, features: Tensor, kinds: Tensor, phones: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Of what is told, kinds [B], and of the phones, each hearing's in order; none: not all are known.

        Who has to spell what it hears listens to words, and not to what of a few voices tells them apart.
        """
        found = self._found(features)
        told = functional.cross_entropy(self._told(found), kinds, label_smoothing=0.02)
        path = self.path(self.forget(found).transpose(1, 2)).log_softmax(2)
        spelt = [place for place, order in enumerate(phones) if len(order)]
        if not spelt:
            return told, torch.zeros(())
        some = path[spelt].transpose(0, 1)
        lengths = torch.tensor([len(phones[place]) for place in spelt])
        every = torch.full((len(spelt),), len(some))
        order = torch.cat([phones[place] for place in spelt])
        return told, functional.ctc_loss(some, order, every, lengths, zero_infinity=True)

    def _found(self, features: Tensor) -> Tensor:
        found: Tensor = self.first(features)
        for block in self.blocks:
            found = found + block(found)
        return found

    def _told(self, found: Tensor) -> Tensor:
        _, last = self.recall(self.forget(found).transpose(1, 2))
        said: Tensor = self.tell(self.forget(last[0]))
        return said


def hearing(wave: Wave, draw: np.random.Generator) -> Wave:
    """One hearing of what was said, and of the pause after it: [SAMPLES]."""
    before, after = (int(draw.uniform(*span) * RATE) for span in ((0.1, 0.3), (0.1, 0.5)))
    wave = np.pad(wave, (before, after)).astype(np.float32)
    return placed(carried(wave, draw, 0.8, (8, 50)))


def spelt(sound: Sound) -> Tensor:
    """Its phones as places behind CTC's blank; none if not all of them are heard."""
    whole = len(sound.wave) <= SAMPLES - RATE // 2
    return torch.tensor(
        [1 + PHONES.index(phone) for phone in sound.phones.split() if whole], dtype=torch.long
    )


def placed(wave: Wave) -> Wave:
    """[SAMPLES]: the end of it, and silence before."""
    wave = wave[-SAMPLES:]
    return np.pad(wave, (SAMPLES - len(wave), 0)).astype(np.float32)


def check(path: Path, seed: int, times: int = 4) -> dict[str, dict[str, float]]:
    """Of festival's voices over lines: for how much of each kind it is how sure that the turn is over.

    And of how many pairs of a whole and a half sentence by one voice it is surer of the whole.
    """
    from model_runtime.turn_ends import TurnEnds

    ears, draw = TurnEnds(path), np.random.default_rng(seed)
    found: dict[str, dict[str, float]] = {}
    told: dict[int, npt.NDArray[np.float64]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for voice in FESTIVAL:
            for kind, name in ((FINISHED, "finished"), (UNFINISHED, "unfinished")):
                waves = [spoken(text, Voice("festival", voice), Path(folder))[0] for text in UNHEARD[kind]]
                pcm = [(hearing(wave, draw) * 32767).astype(np.int16) for wave in waves for _ in range(times)]
                told[kind] = np.array([ears.finished(one.tobytes()) for one in pcm])
                shares = {f">= {p}": round(float((told[kind] >= p).mean()), 3) for p in (0.05, 0.5, 0.95)}
                found[f"{name}, {voice}"] = {"heard": len(pcm)} | shares
            surer = told[FINISHED][:, None] > told[UNFINISHED]
            found[f"pairs, {voice}"] = {"told rightly": round(float(surer.mean()), 3)}
    return found


def main() -> None:
    """Command line."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--sounds", type=Path, help="a folder for them, to be used again")
    parse.add_argument("--make", type=int, default=0, help="so many sounds, and no more than that")
    parse.add_argument("--natural", type=float, default=0.0, help="Kokoro's share of them")
    parse.add_argument("--hearings", type=int, default=36_000, help="each as another line carries it")
    parse.add_argument("--minutes", type=float, default=20.0)
    parse.add_argument("--seed", type=int, default=1)
    parse.add_argument("--out", type=Path, default=MODEL)
    parse.add_argument("--check", action="store_true", help="say what --out knows, and no more than that")
    args = parse.parse_args()
    if args.check:
        print(json.dumps(check(args.out, args.seed), indent=1))
        return
    if args.sounds is None:
        parse.error("--sounds is needed to learn")
    if args.make:
        args.sounds.mkdir(parents=True, exist_ok=True)
        lessons = lesson(args.make, args.seed, args.natural)
        keep(lessons, args.sounds / f"{args.natural:g}-{args.seed}.npz")
        return
    torch.manual_seed(args.seed)
    draw = np.random.default_rng(args.seed)
    sounds = kept(args.sounds)
    draw.shuffle(sounds)
    net = Net()
    log_mels = heard(net, sounds, args.hearings, lambda wave, _: hearing(wave, draw))
    kinds, phones = torch.tensor([sound.kind for sound in sounds]), [spelt(sound) for sound in sounds]

    def loss_of(seen: Tensor, chosen: Tensor) -> Tensor:
        which = chosen % len(sounds)
        told, path = net.losses(somebody_elses(seen), kinds[which], [phones[at] for at in which.tolist()])
        return told + SPELLING * path

    train(net, log_mels, loss_of, args.minutes, rate=1e-3)
    write(net, args.out, SAMPLES)
    print(json.dumps(check(args.out, args.seed + 1), indent=1))


if __name__ == "__main__":
    main()
