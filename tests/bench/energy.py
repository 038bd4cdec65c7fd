"""How much energy a GPU has used, where somebody says: NVML's counter, or else its power over time."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

Joules = Callable[[], float]
"""Joules used since some moment in the past."""

EVERY_MS = 100
POWER = [
    "nvidia-smi",
    "--query-gpu=power.draw",
    "--format=csv,noheader,nounits",
    "--id=0",
    f"-lms={EVERY_MS}",
]


@contextlib.contextmanager
def meter() -> Iterator[tuple[str, Joules | None]]:
    """What the first GPU's energy is known from, and how much it is; ``None`` if nobody says."""
    if (counter := _counter()) is not None:
        yield "NVML's counter", counter
    elif shutil.which(POWER[0]) is None:
        yield "n/a", None
    else:
        power = Power()
        with subprocess.Popen(POWER, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
            assert child.stdout is not None
            reading = threading.Thread(target=power.read, args=(child.stdout,), daemon=True)
            reading.start()
            power.begun.wait(5.0)
            try:
                yield ("nvidia-smi's power over time", power.joules) if power.any else ("n/a", None)
            finally:
                child.terminate()
                reading.join()


def _counter() -> Joules | None:
    """NVML's, if it can be asked (``nvidia-ml-py``) and the GPU has one (Volta and later)."""
    try:
        nvml: Any = importlib.import_module("pynvml")
        nvml.nvmlInit()
        gpu = nvml.nvmlDeviceGetHandleByIndex(0)
        nvml.nvmlDeviceGetTotalEnergyConsumption(gpu)
    except Exception:  # no module, no driver, no GPU, or one without a counter: NVML has an error for each
        return None
    return lambda: float(nvml.nvmlDeviceGetTotalEnergyConsumption(gpu)) / 1000


class Power:
    """Watts read one after another, each as good until the next."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing read; ``begun`` is set once something has been, or nothing will be."""
        self.begun = threading.Event()
        self._clock = clock
        self._joules = 0.0
        self._last: tuple[float, float] | None = None  # when, and how many watts

    @property
    def any(self) -> bool:
        """Whether anything has been read."""
        return self._last is not None

    def read(self, lines: Iterable[str]) -> None:
        """To the end of ``lines``, a number of watts each; what is none (``[N/A]``) is left out."""
        for line in lines:
            with contextlib.suppress(ValueError):
                watts = float(line)
                self._joules, self._last = self.joules(), (self._clock(), watts)
                self.begun.set()
        self.begun.set()

    def joules(self) -> float:
        """Up to now."""
        if self._last is None:
            return self._joules
        at, watts = self._last
        return self._joules + watts * (self._clock() - at)
