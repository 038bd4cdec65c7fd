"""What every timed stage of the hearing half shares: processes, clock, learning rate, averages, files.

A stage trains for so many minutes; its learning rate falls with the time used up, not with steps. Started
by ``torchrun --nproc-per-node N -m ...`` it is N processes that average their gradients, which on a few
cores is quicker than as many threads in one.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

LOG_EVERY = 50  # steps
SAVE_S = 120.0
SETTLE = 500  # steps the average of the weights reaches back, about


@lru_cache(maxsize=1)
def bfloat16_is_quick() -> bool:
    """Whether this machine multiplies in bfloat16 faster than in float32: some have no instructions for it,
    and are sixty times slower.
    """
    took = []
    for kind in (torch.float32, torch.bfloat16):
        a, b = torch.ones(512, 192, dtype=kind), torch.ones(192, 768, dtype=kind)
        a @ b
        begun = time.perf_counter()
        for _ in range(4):
            a @ b
        took.append(time.perf_counter() - begun)
    return took[1] < took[0]


def autocast() -> AbstractContextManager[Any]:
    """Bfloat16 where it is quick."""
    return torch.autocast("cpu", torch.bfloat16, enabled=bfloat16_is_quick())


class Stage:
    """One stage's run: ``modules`` by name are trained until ``minutes`` are used.

    ``step``, ``part`` (of the time, 0 to 1), ``rank`` and ``averages`` (steadier weights, which are the ones
    to export) are the caller's to read.
    """

    def __init__(
        self, name: str, work: Path, modules: dict[str, nn.Module], rates: dict[str, float], minutes: float,
        seed: int, warmup: int = 200,
    ) -> None:  # fmt: skip
        """Takes over ``work/NAME.pt`` if it is there. ``rates``: the highest learning rate of each module."""
        torch.set_num_threads(1)
        if dist.is_torchelastic_launched() and not dist.is_initialized():
            dist.init_process_group("gloo")
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.processes = dist.get_world_size() if dist.is_initialized() else 1
        torch.manual_seed(seed)
        self.file, self.log = work / f"{name}.pt", work / f"{name}.jsonl"
        self.modules, self.rates, self.seconds, self.warmup = modules, rates, minutes * 60, warmup
        self.groups = {key: [p for p in m.parameters() if p.requires_grad] for key, m in modules.items()}
        self.optimiser = torch.optim.AdamW(
            [{"params": group} for group in self.groups.values()], betas=(0.9, 0.98), weight_decay=0.02
        )
        self.averages = {key: copy.deepcopy(m).requires_grad_(False) for key, m in modules.items()}
        self.step, self.used, self.saved, self.done = 0, 0.0, 0.0, False
        self.means: dict[str, float] = {}
        if self.file.exists():
            state = torch.load(self.file, weights_only=True)
            for key, module in modules.items():
                module.load_state_dict(state["modules"][key])
                self.averages[key].load_state_dict(state["averages"][key])
            self.optimiser.load_state_dict(state["optimiser"])
            self.step, self.used = state["step"], state["used"]
            self.saved = self.used
        self.tick = time.monotonic()

    @property
    def part(self) -> float:
        """How much of the time is used up."""
        return min(1.0, self.used / self.seconds)

    def learn(self, loss: Tensor, told: dict[str, float], gains: dict[str, float] | None = None) -> bool:
        """One step down the loss; ``gains`` scale the rates of modules. True when the line of the log is due.

        After the last step ``done`` is True.
        """
        fall = min(1.0, (self.step + 1) / self.warmup) * max(0.02, 1 - self.part)
        for settings, (key, rate) in zip(self.optimiser.param_groups, self.rates.items(), strict=True):
            settings["lr"] = rate * fall * (gains or {}).get(key, 1.0)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        now = time.monotonic()
        spent, self.tick = now - self.tick, now
        (spent,) = self._share([spent])
        for group in self.groups.values():
            torch.nn.utils.clip_grad_norm_(group, 1.0)
        self.optimiser.step()
        self.step += 1
        self.used += spent
        self._settle()
        for key, value in told.items():
            self.means[key] = 0.98 * self.means.get(key, value) + 0.02 * value
        self.done = self.used > self.seconds
        if self.done or self.used - self.saved > SAVE_S:
            self.saved = self.used
            self.save()
        return self.step % LOG_EVERY == 0 or self.done

    def tell(self, **more: object) -> None:
        """Writes the line of the log; time since the last step (an examination) does not count."""
        if self.rank == 0:
            means = {key: round(value, 3) for key, value in self.means.items()}
            line = json.dumps({"step": self.step, "min": round(self.used / 60, 2), **means, **more})
            print(line, flush=True)
            with self.log.open("a") as log:
                log.write(line + "\n")
        self.tick = time.monotonic()

    def save(self) -> None:
        """Writes the state whole or not at all."""
        if self.rank:
            return
        state = {
            "modules": {key: module.state_dict() for key, module in self.modules.items()},
            "averages": {key: module.state_dict() for key, module in self.averages.items()},
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "used": self.used,
        }
        half = self.file.with_suffix(".half")
        torch.save(state, half)
        half.replace(self.file)

    def _parameters(self) -> Iterable[nn.Parameter]:
        return (p for group in self.groups.values() for p in group)

    def _share(self, numbers: list[float]) -> list[float]:
        """Gradients, and these numbers, averaged over the processes."""
        if self.processes == 1:
            return numbers
        parts = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in self._parameters()]
        flat = torch.cat([*parts, torch.tensor(numbers)])
        dist.all_reduce(flat)
        flat /= self.processes
        at = 0
        for p in self._parameters():
            p.grad = flat[at : at + p.numel()].view_as(p)
            at += p.numel()
        return [float(number) for number in flat[at:]]

    @torch.no_grad()
    def _settle(self) -> None:
        share = max(1 / SETTLE, 1 / (1 + 0.1 * self.step))
        for key, module in self.averages.items():
            for mean, now in zip(module.parameters(), self.modules[key].parameters(), strict=True):
                mean.lerp_(now, share)
