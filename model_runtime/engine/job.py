"""A piece of a session's work: a generator of operations, and the one it is waiting for."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

from model_runtime.engine.ops import Op, Work


class Purpose(enum.Enum):
    """What a job is for, which decides how urgent it is."""

    RESPONSE = "response"
    SETTLE = "settle"
    TRANSCRIBE = "transcribe"


class Job:
    """``op`` is what has to be done next, ``None`` before the start and after the end.

    ``since``: when it was asked for. ``away``: ``op`` is being done on another thread.
    """

    def __init__(self, work: Work[None], purpose: Purpose, since: float, turn: int = -1) -> None:
        """Not begun; ``turn`` is the response it belongs to, if any."""
        self.purpose = purpose
        self.since = since
        self.turn = turn
        self.op: Op | None = None
        self.done = False
        self.away = False
        self._work = work
        self._started = False

    def step(self, execute: Callable[[Op], Any]) -> None:
        """One unit of work:

        the first step finds the first operation, each later one has it done by ``execute``.
        """
        try:
            if not self._started:
                self._started = True
                self.op = next(self._work)
            else:
                assert self.op is not None  # a job that has not ended waits for something
                self.op = self._work.send(execute(self.op))
        except StopIteration:
            self.op, self.done = None, True

    def close(self) -> None:
        """Give it up: nothing more of it is done."""
        self._work.close()
        self.op, self.done = None, True
