"""The four things a session asks of the model, each one unit of work.

A session's work is a generator that *yields* operations and is sent their results; it never calls the model
itself. Whoever runs the generators decides in which order operations of different sessions are done, and may
do several of one kind as one batch, as is done with ``Decode`` and ``Vocode``.
"""

from __future__ import annotations

from collections.abc import Generator, Hashable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from model_runtime.engine.draws import Draw
from model_runtime.engine.history import Tokens
from model_runtime.speaking.token2wav import Token2WavStream
from model_runtime.thinking.kv_cache import KVCache

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Hear:
    """Encode one piece of audio: float32 16 kHz [n] in [-1, 1], at most 25 s. Result: Tensor [N, hidden]."""

    wav: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Prefill:
    """Read ``tokens`` into ``cache``. Result: the id drawn next by ``draw``, ``None`` without one."""

    cache: KVCache
    tokens: Tokens
    draw: Draw | None


@dataclass(frozen=True, slots=True)
class Decode:
    """Read one id into ``cache`` and draw the next. Result: its id."""

    cache: KVCache
    id: int
    draw: Draw


@dataclass(frozen=True, slots=True)
class Vocode:
    """Give ``codes`` to a token2wav stream. Result: float32 24 kHz [n], possibly empty."""

    stream: Token2WavStream
    codes: list[int]
    last: bool

    @property
    def shape(self) -> Hashable:
        """Chunks in which this is equal are rendered in one pass. Not while the stream renders."""
        return self.stream.shape(len(self.codes), self.last)


Op: TypeAlias = Hear | Prefill | Decode | Vocode
Work: TypeAlias = Generator[Op, Any, T]
"""A generator of operations that is sent each one's result and returns ``T``."""
