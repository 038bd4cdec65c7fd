"""Stage one of nano's hearing: ``torchrun --nproc-per-node 2 -m model_runtime.training.encoder --work DIR``.

The audio encoder and the adaptor learn together which phone is in each frame, the phones in order (CTC) and
the intent, so that the rows the language model reads already mean something. The heads are no part of
the checkpoint; `export` keeps them beside it, for training to go on from.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from model_runtime.training.hearer import LABELS, Hearer, collate, hearing_losses
from model_runtime.training.hearings import Hearing, Said, heard_on_the_test_line, read, shards
from model_runtime.training.judge import distance
from model_runtime.training.speakers import strangers
from model_runtime.training.stage import Stage, autocast
from model_runtime.training.texts import REFUSE

FRAMES = 2600  # mel frames a batch and process, ten questions or so: many small steps learn faster here
WEIGHTS = {"frames": 1.0, "path": 0.3, "intent": 0.7, "mean_intent": 1.3}
EXAMINE_S = 420.0
NANO = Path(__file__).parents[1] / "checkpoints" / "nano"
HELD = Path(__file__).with_name("runs") / "heads.safetensors"


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


def best_path(scores: Tensor, count: int) -> list[int]:
    """The phones CTC's best path writes; scores [E, 1 + phones], ``count`` of them valid."""
    path = scores[:count].argmax(-1).tolist()
    return [code - 1 for code, before in zip(path, [0, *path], strict=False) if code and code != before]


@torch.no_grad()
def examine(model: Hearer, said: list[Said], noisy: bool, seed: int = 5) -> dict[str, float]:
    """Accuracy of the intent head on questions and on the rest, and the error rate of the phones."""
    draw = np.random.default_rng(seed)
    right: dict[bool, list[bool]] = {True: [], False: []}
    wrong = phones = 0
    for group in batches([heard_on_the_test_line(one, draw, noisy) for one in said], random.Random(0)):
        batch = collate(group)
        with autocast():
            heard = model(batch.mel, batch.lengths)
        for row, h in enumerate(group):
            guess = LABELS[int(heard.intent[row].argmax())]
            right[h.intent == REFUSE].append(guess == h.intent)
            wrong += distance(h.path, best_path(heard.path[row].float(), int(heard.frames[row])))
            phones += len(h.path)
    mean = {refused: sum(hits) / max(1, len(hits)) for refused, hits in right.items()}
    return {
        "intent": round(mean[False], 3),
        "refused": round(mean[True], 3),
        "phone_errors": round(wrong / max(1, phones), 3),
    }


def from_nano(model: Hearer) -> None:
    """The hearing half of the shipped checkpoint, and the heads it was taught by, as far as they are kept.

    A head that tells more labels than those did begins with theirs: new ones come last.
    """
    shipped = {**load_file(NANO / "model.safetensors"), **load_file(HELD)}
    own = model.state_dict()
    for name, weight in own.items():
        if name in shipped:
            kept = shipped[name].float()
            weight[: len(kept)] = kept


def main() -> None:
    """Command line."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument(
        "--work",
        type=Path,
        required=True,
        help="holds train/, dev/ and, if made, parallel/ and natural/; receives encoder.pt and the log",
    )
    parse.add_argument("--minutes", type=float, default=60.0)
    parse.add_argument("--rate", type=float, default=2e-3)
    parse.add_argument("--from-nano", action="store_true", help="begin from the shipped weights")
    parse.add_argument("--hardness", type=int, default=0, help="shards of the way to a hard line behind it")
    parse.add_argument("--seed", type=int, default=1)
    args = parse.parse_args()
    model = Hearer()
    if args.from_nano:
        from_nano(model)
    stage = Stage("encoder", args.work, {"hearer": model}, {"hearer": args.rate}, args.minutes, args.seed)
    seed = args.seed + 1000 * stage.rank + stage.step
    draw = random.Random(seed)
    dev = {kind: read(args.work / "dev", f"{kind}-*.npz") for kind in ("known", "new")}
    examined = stage.used
    others = strangers(args.work, np.random.default_rng(seed))
    for shard in shards(args.work / "train", seed, args.hardness, others=others):
        for group in batches(shard, draw):
            batch = collate(group, draw)
            with autocast(), sdpa_kernel(SDPBackend.MATH):  # quicker than flash on a CPU
                heard = model(batch.mel, batch.lengths)
            losses = hearing_losses(heard, batch)
            hit = float((heard.intent.argmax(-1) == batch.labels).float().mean())
            known = batch.phones[:, : heard.phones.shape[1]] > 0  # neither unknown nor the pause
            named = heard.phones[:, : known.shape[1]].argmax(-1) == batch.phones[:, : known.shape[1]]
            told = {key: float(loss.detach()) for key, loss in losses.items()} | {"hit": hit}
            if known.any():
                told["phone_hit"] = float(named[known].float().mean())
            due = stage.learn(sum((WEIGHTS[key] * losses[key] for key in losses), torch.zeros(())), told)
            if not due:
                continue
            found: dict[str, object] = {}
            if stage.done or stage.used - examined > EXAMINE_S:
                examined = stage.used
                average = stage.averages["hearer"]
                assert isinstance(average, Hearer)
                if stage.rank == 0:
                    for kind, said in dev.items():
                        for noisy in (False, True):
                            found[f"{kind}{'-phone' if noisy else ''}"] = examine(average, said, noisy)
            stage.tell(**found)
            if stage.done:
                return


if __name__ == "__main__":
    main()
