"""The static KV cache: what one session does in its slot, and what a step does for many slots at once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model_runtime.thinking.backbone import Backbone
from model_runtime.thinking.decode_step import SHORTEST, DecodeStep, bucket
from model_runtime.thinking.kv_cache import ContextFull, KVCache, Slot
from tests.model_runtime.test_backbone import MODEL, rows


def told(ids: Sequence[int]) -> Tensor:
    return MODEL.embed(torch.tensor(list(ids)))


def test_a_slot_gives_bit_for_bit_what_a_cache_of_its_own_gives() -> None:
    slots = MODEL.new_slots(2, 600)
    pieces = rows(90).split([30, 1, 1, 40, 18])
    own, slot = MODEL.new_cache(600), slots.take()
    for piece in pieces:
        assert torch.equal(MODEL.extend(slot, piece), MODEL.extend(own, piece))
    own.truncate(31)
    slot.truncate(31)
    assert torch.equal(MODEL.extend(slot, pieces[0]), MODEL.extend(own, pieces[0]))


def test_slots_are_taken_from_the_lowest_and_are_there_again_once_given_back() -> None:
    slots = MODEL.new_slots(3, 50)
    taken = [slots.take() for _ in range(3)]
    assert [slot.index for slot in taken] == [0, 1, 2]
    with pytest.raises(RuntimeError, match="all 3 slots"):
        slots.take()
    taken[1].release()
    taken[1].release()  # twice is once
    taken[0].release()
    assert slots.free == 2
    assert [slots.take().index for _ in range(2)] == [0, 1]


def test_nothing_of_a_call_is_left_in_the_memory_of_the_next() -> None:
    slots = MODEL.new_slots(2, 50)
    slot, other = slots.take(), slots.take()
    MODEL.extend(slot, rows(20))
    slot.truncate(4)  # what was cut lies there still
    MODEL.extend(other, rows(20))
    slot.release()
    assert not slots.store[:, :, 0].any()
    assert slots.store[:, :, 1, :, :20].all()


def test_a_slot_that_held_no_numbers_spoils_nobody_after_it() -> None:
    slots = MODEL.new_slots(2, 300)
    slot = slots.take()
    MODEL.extend(slot, torch.full((30, rows(1).shape[1]), math.nan))
    slot.release()
    fresh, step = slots.take(), DecodeStep(MODEL, slots)
    MODEL.extend(fresh, rows(5))
    assert step([fresh], [7]).isfinite().all()


def test_a_full_slot_is_refused_and_nobody_moves() -> None:
    slots = MODEL.new_slots(2, 5)
    wide, full, step = slots.take(), slots.take(), DecodeStep(MODEL, slots)
    MODEL.extend(wide, rows(2))
    MODEL.extend(full, rows(5))
    with pytest.raises(ContextFull, match="5 tokens, 6"):
        step([wide, full], [1, 2])
    assert (wide.length, full.length) == (2, 5)


def test_buckets_are_few_and_hold_what_is_wanted() -> None:
    assert [bucket(wanted, 1, 12) for wanted in (1, 2, 3, 8, 9, 12)] == [1, 2, 4, 8, 12, 12]
    assert [bucket(wanted, 256, 2560) for wanted in (1, 257, 2049)] == [256, 512, 2560]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, SHORTEST + 60), min_size=1, max_size=6),
    st.integers(1, 3),
    st.randoms(use_true_random=False),
)
def test_a_step_of_many_slots_gives_what_each_cache_alone_gives(
    pasts: list[int], steps: int, draw: object
) -> None:
    slots = MODEL.new_slots(9, 2 * SHORTEST)
    step = DecodeStep(MODEL, slots)
    taken: list[Slot] = [slots.take() for _ in range(9)]
    draw.shuffle(taken)  # type: ignore[attr-defined]  # hypothesis's own Random
    mine = taken[: len(pasts)]
    alone: list[KVCache] = [MODEL.new_cache() for _ in pasts]
    for seed, (cache, slot, past) in enumerate(zip(alone, mine, pasts, strict=True)):
        MODEL.extend(cache, rows(past, seed))
        MODEL.extend(slot, rows(past, seed))
    idle = taken[-1]
    MODEL.extend(idle, rows(7))
    before = slots.store[:, :, idle.index].clone()
    for number in range(steps):
        ids = [100 * number + at for at in range(len(pasts))]
        wanted = torch.cat([MODEL.extend(cache, told([id])) for cache, id in zip(alone, ids, strict=True)])
        assert torch.allclose(step(mine, ids), wanted, atol=1e-4)
    assert [slot.length for slot in mine] == [past + steps for past in pasts]
    assert torch.equal(slots.store[:, :, idle.index], before)  # who had no part in it is as they were


def test_warming_up_touches_nobodys_past() -> None:
    slots = MODEL.new_slots(3, 600)
    slot, step = slots.take(), DecodeStep(MODEL, slots)
    MODEL.extend(slot, rows(9))
    before = slots.store[:, :, :3].clone()
    step.warm_up(3, 600)
    assert torch.equal(slots.store[:, :, :3], before)
    assert slot.length == 9


def test_half_precision_steps_too() -> None:
    half = Backbone(MODEL.config).bfloat16()
    half.load_state_dict(MODEL.state_dict())
    slots = half.new_slots(2, 300)
    slot, step = slots.take(), DecodeStep(half, slots)
    half.extend(slot, rows(5).bfloat16())
    wanted = half.new_cache()
    half.extend(wanted, rows(5).bfloat16())
    own = half.extend(wanted, half.embed(torch.tensor([3])))
    assert torch.allclose(step([slot], [3]).float(), own.float(), atol=0.05)
