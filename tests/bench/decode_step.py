"""One decode step, three ways: ``python -m tests.bench.decode_step``.

A language model of random weights, of Step-Audio-2-mini's dimensions on a GPU and of nano's on a CPU, reads
one id into each of so many sessions with so long a past: session after session, all at once in fixed shapes,
and (on a GPU) the same recorded as a CUDA graph. Beside each time stands the floor: the bytes that a step has
to read, at the rate at which the device was seen to copy; and how far the last hidden states are apart.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from model_runtime.thinking.backbone import Backbone, BackboneConfig
from model_runtime.thinking.decode_step import SHORTEST, DecodeStep, bucket
from model_runtime.thinking.kv_cache import Slot, Slots
from model_runtime.thinking.pasts import SlotPasts
from tests.bench import report
from tests.bench.report import Goal, percentile

NANO = BackboneConfig(7309, 256, 640, 5, 4, 2, 64, 2560)
OF_FLOOR = 1.5  # a step of one session takes at most so many times its floor, on a GPU
NEAR = 0.05  # hidden states are of size 1, and bfloat16 has 8 bits


class Bench:
    """A model and room for so many sessions."""

    def __init__(self, device: torch.device, sessions: int, tokens: int) -> None:
        """Random weights, small enough for every state to stay a number."""
        on_gpu = device.type == "cuda"
        config = BackboneConfig() if on_gpu else NANO
        with torch.device("meta"):
            self.backbone = Backbone(config)
        kind = torch.bfloat16 if on_gpu else torch.float32
        self.backbone = self.backbone.to_empty(device=device).to(kind)
        for name, weight in self.backbone.named_parameters():
            torch.nn.init.ones_(weight) if "norm" in name else torch.nn.init.normal_(weight, std=0.02)
        self.backbone.fuse()
        self.device = device
        self.slots: Slots = self.backbone.new_slots(sessions, tokens)
        self.step = DecodeStep(self.backbone, self.slots)

    def sync(self) -> None:
        """Wait for what was asked of the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def rate(self) -> float:
        """Bytes a second that the device reads when it copies."""
        source = torch.ones(256 << 20 if self.device.type == "cuda" else 64 << 20, device=self.device)
        target = torch.empty_like(source)
        took = self.times(lambda: target.copy_(source), 10)
        return 2 * source.nbytes / (percentile(took, 50) / 1000)

    def times(self, once: Callable[[], object], count: int) -> list[float]:
        """Milliseconds of each of ``count`` times, after some that do not count."""
        for _ in range(3):
            once()
        found = []
        for _ in range(count):
            self.sync()
            begun = time.perf_counter()
            once()
            self.sync()
            found.append(1000 * (time.perf_counter() - begun))
        return found

    def floor_ms(self, sessions: int, tokens: int, rate: float) -> float:
        """Of a step: each weight once, but for the embedding's other rows, and each past once."""
        body = sum(p.nbytes for n, p in self.backbone.named_parameters() if "embed_tokens" not in n)
        past = self.backbone.past_shape.token_bytes * tokens * sessions
        return 1000 * (body + past) / rate

    @torch.inference_mode()
    def measure(self, sessions: int, tokens: int, count: int, rate: float) -> dict[str, Any]:
        """The figures of one number of sessions, each with so long a past."""
        taken: list[Slot] = [self.slots.take() for _ in range(sessions)]
        draw = torch.Generator(self.device).manual_seed(0)
        for slot in taken:
            slot.reserve(tokens + 1)
            past = self.slots.store[:, :, slot.index, :, :tokens]
            past.copy_(torch.randn(past.shape, generator=draw, device=self.device) * 0.1)
            slot.length = tokens
        ids = [7 + at for at in range(sessions)]

        def back() -> None:
            for slot in taken:
                slot.truncate(tokens)

        def one_by_one() -> torch.Tensor:
            embeddings = self.backbone.embed(torch.tensor(ids, device=self.device))
            hidden = self.backbone.extend_each(taken, embeddings)
            back()
            return self.backbone.logits(hidden)

        def together() -> torch.Tensor:
            hidden = self.step(taken, ids)
            back()
            return self.backbone.logits(hidden)

        rows = bucket(sessions, 1, self.slots.count)
        span = bucket(tokens + 1, SHORTEST, self.slots.max_tokens)
        index = torch.tensor([*(slot.index for slot in taken)] + [self.slots.count] * (rows - sessions))
        position = torch.tensor([tokens] * sessions + [0] * (rows - sessions))
        index, position = index.to(self.device), position.to(self.device)
        cos, sin = (
            table[position][:, None, None] for table in self.backbone.positions(0, span, self.slots.store)
        )
        fresh = torch.tensor([*ids, *[0] * (rows - sessions)], device=self.device)

        def unrecorded() -> torch.Tensor:
            pasts = SlotPasts(self.slots, index, position, span)
            x = self.backbone.through(self.backbone.embed(fresh)[:, None], cos, sin, pasts)
            return self.backbone.logits(x[:sessions, 0])

        apart = float((one_by_one().float() - together().float()).abs().max())
        size = float(one_by_one().float().abs().max())
        told: dict[str, Any] = {
            "sessions": sessions,
            "tokens": tokens,
            "floor_ms": round(self.floor_ms(sessions, tokens, rate), 3),
            "apart": round(apart / size, 5),
        }
        ways = {"one_by_one_ms": one_by_one, "fixed_ms": unrecorded, "step_ms": together}
        for name, way in ways.items():
            if name == "one_by_one_ms" and sessions * self.backbone.config.num_hidden_layers > 1024:
                continue  # seconds a step: nobody would wait for it
            took = self.times(way, count)
            told[name] = {"p50": round(percentile(took, 50), 3), "p95": round(percentile(took, 95), 3)}
        for slot in taken:
            slot.release()
        return told


def main() -> int:
    """Measure, print, write. Status 1 if a goal is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", default="", help="numbers of them (default: by the device)")
    parser.add_argument("--tokens", default="", help="lengths of their pasts (default: by the device)")
    parser.add_argument("--steps", type=int, default=50, help="of each kind")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device.type == "cuda"
    if not on_gpu:
        torch.set_num_threads(1)
    sessions = [int(n) for n in (options.sessions or ("1,4,16,64,128" if on_gpu else "1,4,8")).split(",")]
    tokens = [int(n) for n in (options.tokens or ("500,1000,3000" if on_gpu else "200,800")).split(",")]
    console, where = Console(), report.machine()
    where["device"] = torch.cuda.get_device_name(device) if on_gpu else "cpu, one thread"
    bench = Bench(device, max(sessions), max(tokens) + 64)
    rate = bench.rate()
    gc.collect()
    shown = Table(
        "sessions", "past", "floor", "one by one p50, p95", "fixed shapes", "as the engine does it", "apart",
        title=f"decode step, ms; {where['device']} copies {rate / 1e9:.0f} GB/s",
    )  # fmt: skip
    found = [bench.measure(n, length, options.steps, rate) for length in tokens for n in sessions]
    for one in found:
        times = [
            f"{one[name]['p50']:.2f}, {one[name]['p95']:.2f}" if name in one else "-"
            for name in ("one_by_one_ms", "fixed_ms", "step_ms")
        ]
        shown.add_row(
            str(one["sessions"]), str(one["tokens"]), f"{one['floor_ms']:.2f}", *times, str(one["apart"])
        )
    console.print(shown)
    alone = [one for one in found if one["sessions"] == 1]
    goals = [
        Goal.at_most("apart from one by one", max(one["apart"] for one in found), NEAR, "of the largest")
    ]
    if on_gpu and alone:
        as_floor = max(one["step_ms"]["p50"] / one["floor_ms"] for one in alone)
        goals.append(Goal.at_most("one session's step, of its floor", as_floor, OF_FLOOR, "times"))
    report.show(goals, console)
    console.print(report.write("decode_step", where, {"copies_bytes_s": rate, "steps": found}, goals))
    return 0 if all(goal.met for goal in goals) else 1


if __name__ == "__main__":
    sys.exit(main())
