"""Vectors of passages, and the nearest of them: exact search in 8 bits. Pure.

A byte an element is a quarter of the memory that has to be read, which is what a search costs: 100,000
passages of 384 take 38 MB and about 10 ms on one core, where float32 takes 154 MB and 12 ms. Two bits an
element first, and only the most promising 4,000 passages in full, took 6 ms; but where the elements are of
uneven size, as encoders make them, it lost a fifth of the nearest 50.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.int8]
Vectors = NDArray[np.float32]
# Elements at a time. As floats they fit into a core's second cache, and are too few for OpenBLAS to share
# the work among its threads: those spin, and took 150 ms of two cores that calls need instead of 10 of one.
BLOCK = 1 << 17


def coded(vectors: Vectors) -> Codes:
    """Vectors [N, D] in 8 bits, each on a scale of its own: their lengths are lost, only directions count."""
    most = np.abs(vectors).max(axis=1, keepdims=True, initial=1e-9)
    codes: Codes = np.rint(vectors * (127 / most)).astype(np.int8)
    return codes


class Nearest:
    """Passages by their vectors."""

    def __init__(self, parts: Iterable[tuple[int, int, bytes]], width: int) -> None:
        """``parts``: the id of a first passage, how many in a row, their codes. Others' are left out."""
        ids, codes = [np.zeros(0, np.int64)], [np.zeros((0, width), np.int8)]
        for first, rows, content in parts:
            if len(content) == rows * width:
                ids.append(np.arange(first, first + rows))
                codes.append(np.frombuffer(content, np.int8).reshape(rows, width))
        self._ids = np.concatenate(ids)
        self._codes = np.concatenate(codes)
        squares = np.einsum("nd,nd->n", self._codes, self._codes, dtype=np.int32)
        self._lengths = np.sqrt(np.maximum(squares, 1)).astype(np.float32)

    def __len__(self) -> int:
        """How many passages have a vector."""
        return len(self._ids)

    def search(self, vector: Vectors, limit: int) -> dict[int, float]:
        """The passages whose vectors are nearest to ``vector`` [D], best first, each with its cosine."""
        likeness = np.empty(len(self), np.float32)
        rows = max(1, BLOCK // max(1, len(vector)))
        floats = np.empty((rows, len(vector)), np.float32)
        for begin in range(0, len(self), rows):
            block = self._codes[begin : begin + rows]
            np.copyto(floats[: len(block)], block)
            np.dot(floats[: len(block)], vector, out=likeness[begin : begin + rows])
        likeness /= self._lengths * max(float(np.linalg.norm(vector)), 1e-9)
        few = np.argpartition(-likeness, limit)[:limit] if limit < len(self) else np.arange(len(self))
        best = few[np.argsort(-likeness[few], kind="stable")]
        return dict(zip(self._ids[best].tolist(), likeness[best].tolist(), strict=True))
