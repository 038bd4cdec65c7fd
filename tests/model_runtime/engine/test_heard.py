"""What was heard of a turn is not heard again when the turn has grown, as far as that is exact."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.engine.heard import covered
from model_runtime.engine.ops import Hear, Op
from model_runtime.protocol import Commit, Drop, Respond
from tests.model_runtime.engine.rig import Rig
from tests.model_runtime.engine.test_session import HELLO, assert_exact, cached_now, history

PIECE = 25 * 16_000  # samples the encoder hears at once

gaps = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 30)), max_size=6)


@given(gaps, st.integers(0, 60), st.integers(1, 60))
def test_a_piece_is_named_by_its_samples(lengths: list[tuple[int, int]], start: int, size: int) -> None:
    spans, at = [], 0
    for gap, length in lengths:
        spans.append((at + gap, at + gap + length))
        at = spans[-1][1]
    samples = [sample for begin, end in spans for sample in range(begin, end)][start : start + size]
    found = covered(spans, start, start + size)
    assert [sample for begin, end in found for sample in range(begin, end)] == samples
    assert all(one[1] < other[0] for one, other in pairwise(found))


def listening() -> tuple[Rig, list[int]]:
    """A caller who talks for 40 s, and the samples of each piece that is encoded."""
    rig = Rig()
    rig.hear(40.0)
    encoded: list[int] = []
    execute = rig.kit.execute

    def noting(op: Op) -> Any:
        if isinstance(op, Hear):
            encoded.append(len(op.wav))
        return execute(op)

    rig.kit.execute = noting  # type: ignore[method-assign]  # to see what is encoded
    return rig, encoded


def answer(rig: Rig, turn: int, *spans: tuple[int, int]) -> None:
    rig.kit.script = [*rig.groups(HELLO), rig.tokens.tts_end, rig.tokens.eot]
    rig.send(Respond(turn, spans=list(spans)))
    rig.run()


def test_of_a_turn_that_has_grown_only_what_is_new_is_encoded() -> None:
    rig, encoded = listening()
    answer(rig, 0, (8_000, 8_000 + PIECE + 32_000))
    rig.send(Drop(0))
    assert encoded == [PIECE, 32_000]
    encoded.clear()
    answer(rig, 1, (8_000, 8_000 + PIECE + 32_000), (500_000, 532_000))
    assert encoded == [64_000]  # the second piece is another one now
    rig.send(Commit(1))
    rig.run()

    other, encoded = listening()
    answer(other, 1, (8_000, 8_000 + PIECE + 32_000), (500_000, 532_000))
    other.send(Commit(1))
    assert len(encoded) == 2
    assert history(other) == history(rig)
    both = zip(rig.session._history.tokens().rows, other.session._history.tokens().rows, strict=True)
    assert all(one[0] == two[0] and torch.equal(one[1], two[1]) for one, two in both)
    assert_exact(rig)


def test_what_is_asked_again_is_heard_at_once() -> None:
    rig, encoded = listening()
    answer(rig, 0, (0, 48_000), (64_000, 96_000))
    rig.send(Drop(0))
    answer(rig, 1, (0, 16_000), (16_000, 48_000), (64_000, 96_000))
    assert encoded == [80_000]
    assert cached_now(rig).count(rig.tokens.audio_start) == 1


def test_a_piece_that_was_finished_before_the_turn_was_dropped_is_kept() -> None:
    rig, encoded = listening()
    rig.send(Respond(0, spans=[(0, 600_000)]))
    rig.run(until=lambda: len(encoded) == 1)
    rig.send(Drop(0))
    answer(rig, 1, (0, 620_000))
    assert encoded == [PIECE, 620_000 - PIECE]


def test_no_more_is_kept_than_one_turn() -> None:
    rig, encoded = listening()
    for turn in range(4):
        answer(rig, turn, (turn * 32_000, turn * 32_000 + 32_000))
        rig.send(Drop(turn))
    assert encoded == 4 * [32_000]
    assert len(rig.session._heard._rows) == 1
