"""What the machine can do whose floor a decode step is measured against: ``python -m tests.bench.device``.

A process of its own, because it would otherwise hold a part of the GPU for as long as the bench runs.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

# Bytes of each of two buffers, many times what a cache holds. A small model's weights may lie in a cache,
# from which they are read faster than this says.
SIZES = {"cuda": 4 << 30, "cpu": 256 << 20}
WARM_UP, REPEATS = 3, 10


def measured() -> dict[str, Any]:
    """``kind`` ("cuda" or "cpu"), ``name``, ``copy_bandwidth`` in bytes a second, and versions, of this
    machine as a child process finds it.
    """
    command = [sys.executable, "-m", "tests.bench.device"]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    told: dict[str, Any] = json.loads(found)
    return told


def _measure() -> dict[str, Any]:
    import torch  # the bench's own process does without

    kind = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(1)  # as the engine runs a small model on a CPU
    source = torch.empty(SIZES[kind], dtype=torch.uint8, device=kind).random_()
    target = torch.empty_like(source)

    def copied() -> float:
        if kind == "cpu":
            begun = time.perf_counter()
            target.copy_(source)
            return time.perf_counter() - begun
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1000

    told: dict[str, Any] = {
        "kind": kind,
        "torch": torch.__version__,
        "copy_bandwidth": bandwidth(copied, kind),
    }
    if kind == "cuda":
        about = torch.cuda.get_device_properties(0)
        told |= {"name": about.name, "memory": about.total_memory, "cuda": torch.version.cuda}
    return told


def bandwidth(copied: Callable[[], float], kind: str) -> float:
    """Bytes read and written a second by the median copy; ``copied`` makes one and says how long it took."""
    seconds = [copied() for _ in range(WARM_UP + REPEATS)][WARM_UP:]
    return 2 * SIZES[kind] / statistics.median(seconds)


if __name__ == "__main__":
    print(json.dumps(_measure()))
