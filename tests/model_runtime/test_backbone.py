from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model_runtime.thinking.backbone import Backbone
from model_runtime.thinking.kv_cache import BLOCK, ContextFull, KVCache, PastShape
from tests.model_runtime import tiny


def backbone(fused: bool = True) -> Backbone:
    torch.manual_seed(1)
    model = Backbone(tiny.backbone_config()).eval()
    for name, value in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(value, std=0.3)
    if fused:
        model.fuse()
    return model


MODEL = backbone()


def rows(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, tiny.HIDDEN, generator=torch.Generator().manual_seed(seed))


def recomputed(embeddings: Tensor) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = MODEL(embeddings[None])[0]
    return logits


@settings(max_examples=30)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_any_pieces_give_what_recomputing_gives(pieces: list[int]) -> None:
    embeddings, cache = rows(sum(pieces)), MODEL.new_cache()
    found = torch.cat([MODEL.logits(MODEL.extend(cache, piece)) for piece in embeddings.split(pieces)])
    assert cache.length == len(embeddings)
    assert torch.allclose(found, recomputed(embeddings), atol=1e-4)


def test_steps_over_a_growing_cache_give_what_recomputing_gives() -> None:
    embeddings, cache = rows(BLOCK + 30), MODEL.new_cache()
    MODEL.extend(cache, embeddings[: BLOCK - 20])
    found = torch.cat([MODEL.logits(MODEL.extend(cache, row[None])) for row in embeddings[BLOCK - 20 :]])
    assert torch.allclose(found, recomputed(embeddings)[BLOCK - 20 :], atol=1e-4)


def test_two_sessions_in_turn_are_each_as_alone() -> None:
    inputs = [rows(90, seed=1), rows(90, seed=2)]

    def alone(embeddings: Tensor) -> list[Tensor]:
        cache = MODEL.new_cache()
        return [MODEL.extend(cache, piece) for piece in embeddings.split([30, *[1] * 60])]

    wanted = [alone(embeddings) for embeddings in inputs]
    caches = [MODEL.new_cache(), MODEL.new_cache()]
    pieces = [embeddings.split([30, *[1] * 60]) for embeddings in inputs]
    for step in range(61):
        for session in (0, 1):
            found = MODEL.extend(caches[session], pieces[session][step])
            assert torch.equal(found, wanted[session][step])


def test_cutting_the_history_leaves_no_trace() -> None:
    embeddings = rows(50)
    cache, clean = MODEL.new_cache(), MODEL.new_cache()
    MODEL.extend(cache, embeddings[:20])
    MODEL.extend(cache, rows(100, seed=9))
    cache.truncate(20)
    MODEL.extend(clean, embeddings[:20])
    assert torch.equal(MODEL.extend(cache, embeddings[20:]), MODEL.extend(clean, embeddings[20:]))
    with pytest.raises(ValueError, match="51 of 50"):
        cache.truncate(51)


def test_a_full_context_is_refused_and_stays_as_it_was() -> None:
    cache = MODEL.new_cache(max_tokens=10)
    MODEL.extend(cache, rows(8))
    with pytest.raises(ContextFull, match="10 tokens, 11"):
        MODEL.extend(cache, rows(3))
    assert cache.length == 8
    MODEL.extend(cache, rows(2))
    assert cache.length == cache.capacity == 10


def test_no_memory_is_held_before_it_is_needed() -> None:
    cache = MODEL.new_cache()
    assert cache.nbytes == 0
    MODEL.extend(cache, rows(3))
    assert cache.capacity == BLOCK
    assert cache.max_tokens == 2048


def test_a_cache_grows_by_half_again() -> None:
    cache = KVCache(PastShape(1, 1, 4), 1000, block=10)
    cache.reserve(100)
    assert cache.capacity == 100
    cache.reserve(101)
    assert cache.capacity == 150


def test_fusing_changes_neither_names_nor_values() -> None:
    plain, fused = backbone(fused=False), backbone()
    fused.fuse()  # twice is once
    ours, theirs = plain.state_dict(), fused.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    with torch.inference_mode():
        assert torch.allclose(plain(rows(20)[None]), fused(rows(20)[None]), atol=1e-5)


def test_logits_of_a_range_are_a_slice_of_all() -> None:
    hidden = rows(2)
    assert torch.allclose(MODEL.logits(hidden, (100, 300)), MODEL.logits(hidden)[:, 100:300], atol=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_not_seen(side: str) -> None:
    real = rows(12)
    batch, mask = torch.randn(1, 20, tiny.HIDDEN), torch.zeros(1, 20, dtype=torch.bool)
    place = slice(0, 12) if side == "right" else slice(8, 20)
    batch[0, place], mask[0, place] = real, True
    with torch.inference_mode():
        found = MODEL.hidden(batch, mask)[0, place]
        # Rotary positions are relative: where the rows begin does not matter.
        assert torch.allclose(found, MODEL.hidden(real[None])[0], atol=1e-4)


def test_it_can_be_trained() -> None:
    model = backbone(fused=False).train()
    ids = torch.randint(0, 6912, (2, 16))
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(8):
        logits = model(model.embed(ids))
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_half_precision_is_near() -> None:
    exact, embeddings = backbone(fused=False), rows(20)
    half = backbone(fused=False).bfloat16()
    half.fuse()
    hidden = half.extend(half.new_cache(), embeddings.bfloat16())
    with torch.inference_mode():
        wanted = exact.hidden(embeddings[None])[0]
    assert hidden.dtype == torch.bfloat16
    assert float((hidden.float() - wanted).abs().mean()) < 0.05


@settings(max_examples=20)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(1, 4))
def test_a_step_of_several_sessions_gives_what_each_step_alone_gives(pasts: list[int], steps: int) -> None:
    alone, together = [[MODEL.new_cache() for _ in pasts] for _ in range(2)]
    for seed, (one, other, past) in enumerate(zip(alone, together, pasts, strict=True)):
        MODEL.extend(one, rows(past, seed))
        MODEL.extend(other, rows(past, seed))
    for step in range(steps):
        new = rows(len(pasts), 100 + step)
        expected = torch.cat([MODEL.extend(cache, row[None]) for cache, row in zip(alone, new, strict=True)])
        assert torch.allclose(MODEL.extend_each(together, new), expected, atol=1e-4)
    assert [cache.length for cache in together] == [past + steps for past in pasts]


def test_a_step_for_which_one_session_has_no_room_moves_none() -> None:
    wide, full = MODEL.new_cache(), MODEL.new_cache(5)
    for cache in (wide, full):
        MODEL.extend(cache, rows(5))
    with pytest.raises(ContextFull):
        MODEL.extend_each([wide, full], rows(2))
    assert (wide.length, full.length) == (5, 5)
