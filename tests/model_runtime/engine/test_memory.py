"""Where the sessions' pasts lie: slots that are given back, and steps of fixed shapes, as on a GPU."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
import torch

from model_runtime.engine.memory import ASIDE, Memory, fitting
from model_runtime.engine.ops import Decode
from model_runtime.protocol import Done, Error, Sampling
from model_runtime.thinking.kv_cache import KVCache, Slot
from model_runtime.thinking.sampling import NOTHING
from tests.model_runtime.engine.live import Running, running
from tests.model_runtime.engine.rig import Rig, model
from tests.model_runtime.engine.test_server import SHORT, spoken


def fixed(engine: Running) -> None:
    """Have the engine step as it would on a GPU, but for the recording."""
    kit = engine.kit
    kit.memory = Memory(kit.model, kit.settings.max_sessions, kit.max_context, fixed=True)


async def test_in_fixed_shapes_calls_at_once_say_what_each_would_say_alone() -> None:
    async with running(**SHORT) as engine:
        wanted = [await spoken(engine, seed) for seed in range(3)]
        fixed(engine)
        alone = [await spoken(engine, seed) for seed in range(3)]
        together = await asyncio.gather(*(spoken(engine, seed) for seed in range(3)))
        for found in (alone, together):
            assert [text for _, text in found] == [text for _, text in wanted]
            assert [len(pcm) for pcm, _ in found] == [len(pcm) for pcm, _ in wanted]


async def test_a_session_that_ends_gives_its_slot_back() -> None:
    async with running(max_sessions=2, **SHORT) as engine:
        for seed in range(4):
            await spoken(engine, seed)
            await engine.until(lambda: engine.server.sessions == 0)
            assert engine.kit.memory.free == 2


async def test_scores_that_are_no_numbers_end_that_turn_and_nobody_elses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(**SHORT) as engine:
        wanted = await spoken(engine, 1)
        decode_each = engine.kit.decode_each
        spoilt: list[int] = []

        def spoiling(steps: Sequence[Decode]) -> list[int]:
            ids = decode_each(steps)
            # Whose past is the longer one is the unlucky call: it has heard three seconds.
            longest = max(range(len(steps)), key=lambda at: steps[at].cache.length)
            if steps[longest].cache.length > 60 and not spoilt:
                spoilt.append(ids[longest])
                ids[longest] = NOTHING
            return ids

        async def unlucky() -> None:
            async with engine.session("unlucky", sampling=Sampling(seed=3)) as client:
                await client.talk(0, 5.0)
                error = await client.read(Error)
                assert (error.code, error.turn, error.fatal) == ("internal", 0, False)
                assert (await client.read(Done)).reason == "error"
                await client.talk(1, 0.5)
                assert (await client.read(Done)).reason != "error"

        monkeypatch.setattr(engine.kit, "decode_each", spoiling)
        _, found = await asyncio.gather(unlucky(), spoken(engine, 1))
        assert spoilt
        assert found[1] == wanted[1]


def test_pasts_of_every_kind_are_read_into_in_one_step() -> None:
    memory = Memory(model(), 3, 2048, fixed=True)
    draw = torch.Generator().manual_seed(0)
    caches: list[KVCache] = [
        memory.session(), memory.aside(200), memory.aside(ASIDE + 1), memory.session(), memory.aside(9)
    ]  # fmt: skip
    assert [isinstance(cache, Slot) for cache in caches] == [True, True, False, True, True]
    alone = [model().new_cache() for _ in caches]
    for cache, other in zip(caches, alone, strict=True):
        ids = torch.randint(0, 200, (5,), generator=draw).tolist()
        model().prefill(cache, ids)
        model().prefill(other, ids)
    ids = [7, 8, 9, 10, 11]
    with torch.inference_mode():
        found, wanted = memory.read_each(caches, ids), model().step_each(alone, ids)
    assert torch.allclose(found, wanted, atol=1e-4)
    assert [cache.length for cache in caches] == [6] * 5


def test_a_step_that_fails_moves_nobody_not_even_those_that_had_been_read() -> None:
    rig = Rig()
    kit = rig.kit
    room, full = kit.memory.session(), kit.memory.aside(2)
    kit.model.prefill(room, [1, 2])
    kit.model.prefill(full, [1, 2])
    kit.memory.read_each = lambda caches, ids: _half_done(kit.model.step_each, caches, ids)  # type: ignore[method-assign]  # a fault in it
    with pytest.raises(RuntimeError, match="half done"):
        kit.decode_each([Decode(room, 3, kit.best), Decode(full, 4, kit.best)])
    assert (room.length, full.length) == (2, 2)


def _half_done(step: object, caches: Sequence[KVCache], ids: Sequence[int]) -> torch.Tensor:
    assert callable(step)
    step(caches[:1], ids[:1])
    raise RuntimeError("half done")


def test_what_fits_is_what_every_session_can_hold_at_once() -> None:
    config = model().backbone.config
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    assert fitting(model(), 3, 4096, 10**9) == 4096
    for free in (token * 4 * (ASIDE + 1000), token * 4 * (ASIDE + 256), token * 4 * ASIDE, 0):
        fits = fitting(model(), 3, 4096, free)
        assert fits % 256 == 0
        assert fits == max(0, (free // (4 * token) - ASIDE) // 256 * 256)
    assert Memory(model(), 3, 256, fixed=False).nbytes == token * 4 * 256
