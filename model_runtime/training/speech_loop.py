"""The loop that every speaking stage trains in: AdamW, a warm-up, a cosine down, checkpoints, a run log."""

import copy
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

CHECKPOINT_SECONDS = 120.0
LOG_EVERY = 50  # steps a line of the log averages over
EVALUATE_EVERY = 500  # steps, a multiple of the above

Losses = dict[str, Tensor]  # "loss" is what is minimised, the rest is told


class Loop:
    """`steps` optimiser steps on `parameters`, resumed from `folder/NAME.ckpt` where that exists.

    The learning rate is a function of the step alone, and so are the random numbers: a run that was stopped
    and resumed sees what an unbroken one sees. A run resumed with more `steps` goes back up the cosine.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        modules: dict[str, nn.Module],
        steps: int,
        rate: float,
        warmup: int = 150,
        floor: float = 0.03,
        seed: int = 1,
        betas: tuple[float, float] = (0.9, 0.98),
        average: tuple[str, ...] = (),
    ) -> None:
        """Takes over the state of the checkpoint, if there is one."""
        self.name, self.folder, self.modules = name, folder, modules
        self.steps, self.rate, self.warmup, self.floor, self.seed = steps, rate, warmup, floor, seed
        self.parameters = [p for m in modules.values() for p in m.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(self.parameters, lr=rate, betas=betas, weight_decay=0.01)
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, float]] = []
        # A running mean of these modules' weights over the last steps: steadier than any single step's.
        self.average = {name: copy.deepcopy(modules[name]).requires_grad_(False) for name in average}
        if self.checkpoint.exists():
            self._restore(torch.load(self.checkpoint, weights_only=True))

    @property
    def checkpoint(self) -> Path:
        """Where the state of this run lies."""
        return self.folder / f"{self.name}.ckpt"

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then a cosine down to `floor` of the full rate."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        done = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        return self.rate * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * done)))

    def run(
        self, losses: Callable[[int], Losses], evaluate: Callable[[], dict[str, float]] | None = None
    ) -> None:
        """Trains to the last step: `losses(step)` is that step's batch, `evaluate` the held-out figures."""
        sums: dict[str, float] = defaultdict(float)
        begun, saved = time.monotonic() - self.seconds, time.monotonic()
        bar = tqdm(
            range(self.step, self.steps), initial=self.step, total=self.steps, desc=self.name, mininterval=5
        )
        for step in bar:
            torch.manual_seed(self.seed * 1_000_003 + step)
            for group in self.optimiser.param_groups:
                group["lr"] = self.learning_rate(step)
            found = losses(step)
            self.optimiser.zero_grad(set_to_none=True)
            found["loss"].backward()
            nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimiser.step()
            self._settle()
            self.step = step + 1
            self.seconds = time.monotonic() - begun
            for key, value in found.items():
                sums[key] += float(value.detach()) / LOG_EVERY
            if self.step % LOG_EVERY == 0:
                row = {"step": float(self.step), "seconds": round(self.seconds, 1)}
                row |= {key: round(value, 5) for key, value in sums.items()}
                if evaluate is not None and self.step % EVALUATE_EVERY == 0:
                    row |= {f"held_out_{key}": round(value, 5) for key, value in evaluate().items()}
                self.history.append(row)
                bar.write(json.dumps(row))
                sums.clear()
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                self.save()
                saved = time.monotonic()
        self.save()

    @torch.no_grad()
    def _settle(self) -> None:
        # A tenth of the steps so far, at most 300: early weights must not linger.
        share = max(1 / 300, 1 / (1 + 0.1 * self.step))
        for name, module in self.average.items():
            for mean, now in zip(module.parameters(), self.modules[name].parameters(), strict=True):
                mean.lerp_(now, share)

    def save(self) -> None:
        """Writes the checkpoint whole or not at all."""
        state = {
            "modules": {key: module.state_dict() for key, module in self.modules.items()},
            "average": {name: module.state_dict() for name, module in self.average.items()},
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
        }
        scratch = self.checkpoint.with_suffix(".part")
        torch.save(state, scratch)
        scratch.replace(self.checkpoint)

    def _restore(self, state: dict[str, Any]) -> None:
        for key, module in self.modules.items():
            module.load_state_dict(state["modules"][key])
        for key, module in self.average.items():
            module.load_state_dict(state["average"][key])
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.seconds, self.history = state["step"], state["seconds"], state["history"]


def write_run(
    path: Path, stage: str, facts: dict[str, Any], history: Iterable[dict[str, float]] = ()
) -> None:
    """Keeps a stage's run in the repository: what data, how long, which losses and figures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = list(history)
    kept = rows[:: max(1, len(rows) // 40)] + rows[-1:] if rows else []
    path.write_text(json.dumps({"stage": stage, **facts, "history": kept}, indent=1) + "\n")
