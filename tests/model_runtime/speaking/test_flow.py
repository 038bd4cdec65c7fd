from __future__ import annotations

import torch
from torch import Tensor

from model_runtime.speaking.flow import FRAMES_PER_CODE, chunk_mask, guided, time_steps
from tests.model_runtime.speaking.golden import tiny_flow


def test_time_steps_run_from_nought_to_one_and_grow() -> None:
    steps = time_steps(10)
    assert steps[0] == 0
    assert abs(float(steps[-1]) - 1) < 1e-6
    assert bool((steps.diff().diff() > 0).all())


def test_chunk_mask_shows_a_query_all_up_to_the_end_of_its_chunk() -> None:
    mask = chunk_mask(torch.tensor([9]), 10, chunk=[2, 3], prompt=torch.tensor([2]))[0]
    seen = [int(row.sum()) for row in mask]
    #       prompt | 2 codes | 3 codes | 3 codes, of which 2 valid, and the padding's own row
    assert seen == [2, 2, 4, 4, 7, 7, 7, 9, 9, 9]


def test_chunk_mask_without_chunks_hides_only_padding() -> None:
    mask = chunk_mask(torch.tensor([3, 5]), 5)
    assert mask[0].sum(1).tolist() == [3] * 5
    assert bool(mask[1].all())


def _batch() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    codes = torch.randint(50, (2, 12), generator=generator)
    return (
        torch.randn(2, 24, 80, generator=generator),
        codes,
        torch.tensor([7, 12]),
        torch.randn(2, 192, generator=generator),
    )


def test_padding_changes_nothing() -> None:
    flow = tiny_flow()
    x, codes, lengths, speaker = _batch()
    t = torch.tensor([0.3, 0.3])
    together = flow(x, t, codes, speaker, lengths)
    alone = flow(x[:1, :14], t[:1], codes[:1, :7], speaker[:1])
    torch.testing.assert_close(together[:1, :14], alone, atol=1e-5, rtol=1e-4)


def test_with_chunks_the_future_beyond_the_look_ahead_is_not_seen() -> None:
    flow = tiny_flow()
    x, codes, _, speaker = _batch()
    t = torch.tensor([0.5, 0.5])
    before = flow(x, t, codes, speaker, chunk=4)
    codes[:, 8:] = (codes[:, 8:] + 1) % 50  # more than three codes after the first chunk's end
    after = flow(x, t, codes, speaker, chunk=4)
    torch.testing.assert_close(after[:, :8], before[:, :8])
    assert not torch.allclose(after[:, 8:], before[:, 8:])


def test_loss_trains_every_parameter() -> None:
    flow = tiny_flow().train()
    mel, codes, lengths, speaker = _batch()
    loss = flow.loss(mel, codes, lengths, speaker, torch.tensor([2, 3]), chunk=[3, 4], drop=0.2)
    torch.autograd.backward(loss)
    assert float(loss.detach()) > 0
    without = [n for n, p in flow.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())]
    assert without == []


def test_loss_ignores_what_lies_beyond_the_end() -> None:
    flow = tiny_flow()
    mel, codes, lengths, speaker = _batch()
    prompt = torch.tensor([2, 2])

    def loss() -> float:
        return float(
            flow.loss(mel, codes, lengths, speaker, prompt, generator=torch.Generator().manual_seed(4))
        )

    before = loss()
    mel[0, 7 * FRAMES_PER_CODE :] = 100
    assert abs(loss() - before) < 1e-5


def test_guidance_of_rate_nought_needs_one_pass() -> None:
    velocity = torch.ones(2, 3, 4)
    assert guided(velocity, 0.0) is velocity
    both = torch.cat([torch.full((1, 2, 2), 3.0), torch.full((1, 2, 2), 1.0)])
    torch.testing.assert_close(guided(both, 0.5), torch.full((1, 2, 2), 4.0))
