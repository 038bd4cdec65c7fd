"""Exact search in 8 bits: as good as with floats, but for rounding."""

from __future__ import annotations

import numpy as np
import pytest

from bot.knowledge.vectors import BLOCK, Nearest, Vectors, coded


def directions(count: int, width: int) -> Vectors:
    found = np.random.default_rng(3).standard_normal((count, width), dtype=np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def test_the_nearest_are_found_in_order_across_blocks_and_documents() -> None:
    rows = BLOCK // 96
    vectors = directions(rows + 700, 96)
    codes = coded(vectors)
    parts = [(10, 700, codes[:700].tobytes()), (5_000, rows, codes[700:].tobytes())]
    ids = [*range(10, 710), *range(5_000, 5_000 + rows)]
    nearest = Nearest(parts, 96)
    assert len(nearest) == len(ids)
    for asked in (0, 699, 700, len(ids) - 1):
        query = 3 * vectors[asked]  # its length is of no account
        found = nearest.search(query, 5)
        true = vectors @ vectors[asked]
        assert next(iter(found)) == ids[asked]
        assert list(found.values()) == sorted(found.values(), reverse=True)
        for one, likeness in found.items():
            assert likeness == pytest.approx(true[ids.index(one)], abs=0.01)


def test_fewer_than_asked_for_none_and_others() -> None:
    codes = coded(directions(3, 8))
    assert len(Nearest([(1, 3, codes.tobytes())], 8).search(directions(1, 8)[0], 50)) == 3
    assert Nearest([], 8).search(directions(1, 8)[0], 5) == {}
    assert len(Nearest([(1, 3, codes.tobytes()), (4, 3, b"damaged")], 8)) == 3


def test_nothing_is_near_a_vector_of_nothing() -> None:
    nothing = np.zeros((1, 4), np.float32)
    assert coded(nothing).tolist() == [[0, 0, 0, 0]]
    assert Nearest([(7, 1, coded(nothing).tobytes())], 4).search(nothing[0], 1) == {7: 0.0}
