from __future__ import annotations

import pytest
import torch
from torch import Tensor

from model_runtime.speaking.flow import FRAMES_PER_CODE, chunk_mask, guided
from model_runtime.speaking.flow_stream import FlowRules, FlowStream
from model_runtime.speaking.memory import Everything, Recent, ReferenceOrder
from model_runtime.speaking.schedule import Schedule
from model_runtime.speaking.token2wav import GivenDraws
from tests.model_runtime.speaking.golden import tiny_token2wav, tiny_voice


@pytest.mark.parametrize("cfg", [0.0, 0.7])
def test_streaming_is_the_chunked_attention_of_training(cfg: float) -> None:
    """What the model is trained on with `chunk` and `prompt` is what it does in a stream, to rounding."""
    model, voice = tiny_token2wav(steps=3, cfg=cfg), tiny_voice(6)
    prompt, sizes = 6, [4, 5, 5]
    # The prompt's first codes stand in for its look-ahead: a reply that begins with them makes both equal.
    codes = [*voice.tokens[:3].tolist(), 9, 4, 33, 21, 8, 2, 40, 17, 3, 11, 29]
    noise = torch.randn(1, FRAMES_PER_CODE * (prompt + len(codes)), 80)
    draws = GivenDraws(noise)
    stream = FlowStream(
        model.plan, model.speaker(voice), FlowRules.recent(1000), draws, model.take_in(voice, draws)
    )
    chunks, at = [], 0
    for size in sizes:
        last = at + size == len(codes)
        chunks.append(stream.push(codes[at : at + size + (0 if last else 3)], last=last))
        at += size
    streamed = torch.cat(chunks, 1)

    every = torch.cat([voice.tokens.long(), torch.tensor(codes)]).unsqueeze(0)
    length, start = torch.tensor([every.shape[1]]), torch.tensor([prompt])
    with torch.no_grad():
        mu = model.flow.encode(every, length, chunk=sizes, prompt=start)
        cond = torch.zeros_like(mu)
        cond[:, : FRAMES_PER_CODE * prompt] = voice.mel
        frames = [FRAMES_PER_CODE * size for size in sizes]
        mask = chunk_mask(2 * length, mu.shape[1], frames, 2 * start).unsqueeze(1)
        condition = model.flow.estimator.condition(mu, model.speaker(voice), cond)
        if cfg:
            condition = torch.cat([condition, model.flow.unconditional(condition)])
        x = noise
        for width, modulations in zip(model.plan.widths, model.plan.modulations, strict=True):
            velocity, _ = model.flow.estimator.velocity(x, condition, modulations, mask)
            x = x + width * guided(velocity, cfg)
    torch.testing.assert_close(streamed, x[:, FRAMES_PER_CODE * prompt :], atol=1e-4, rtol=1e-4)


def test_the_prompt_is_not_changed_by_the_streams_that_share_it() -> None:
    model, voice = tiny_token2wav(), tiny_voice()
    prompt = model.prompt(voice)
    kept = [pair[0].clone() for step in prompt.blocks_own for pair in step]
    for seed in range(3):
        model.stream(voice, seed=seed, schedule=Schedule(tail_frames=4)).push([1, 2, 3] * 20, last=True)
    now = [pair[0] for step in prompt.blocks_own for pair in step]
    assert all(torch.equal(a, b) for a, b in zip(kept, now, strict=True))


def _pair(*positions: int) -> tuple[Tensor, Tensor]:
    keys = torch.tensor(positions, dtype=torch.float32).view(1, 1, -1, 1)
    return keys, -keys


def _positions(pair: tuple[Tensor, Tensor]) -> list[int]:
    assert torch.equal(pair[0], -pair[1])
    return [int(x) for x in pair[0].flatten()]


def test_recent_remembers_the_tail() -> None:
    rule = Recent(3)
    own = rule.grow(None, _pair(1, 2))
    assert _positions(own) == [1, 2]
    assert _positions(rule.grow(own, _pair(3, 4))) == [2, 3, 4]


def test_reference_order_puts_the_newest_first_and_forgets_the_middle() -> None:
    rule = ReferenceOrder(prompt=3, tail=2)
    own = rule.grow(None, _pair(1, 2, 3))  # the prompt
    own = rule.grow(own, _pair(4, 5))
    assert _positions(own) == [4, 5, 1, 2, 3]
    assert _positions(rule.grow(own, _pair(6, 7))) == [6, 7, 4, 2, 3]


def test_everything_remembers_all_in_order() -> None:
    rule = Everything()
    assert _positions(rule.grow(rule.grow(None, _pair(1)), _pair(2, 3))) == [1, 2, 3]
