from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.interleave import Slot
from model_runtime.thinking.sampling import Sampler, SamplingOptions, draw, nucleus, penalise
from tests.model_runtime import tiny

TOKENS = tiny.tokenizer().tokens
VOCABULARY = 6912
FREE = SamplingOptions(temperature=1.0, top_p=1.0, repetition_penalty=1.0)
GREEDY = SamplingOptions(temperature=0.0, repetition_penalty=1.0)


def logits(seed: int = 0) -> torch.Tensor:
    return torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(seed))


def test_penalty_divides_above_zero_and_multiplies_below() -> None:
    seen = torch.tensor([True, True, False])
    assert penalise(torch.tensor([2.0, -2.0, 2.0]), seen, 2.0).tolist() == [1.0, -4.0, 2.0]


def test_nucleus_keeps_the_smallest_set_that_reaches_top_p() -> None:
    scores = torch.tensor([0.1, 0.5, 0.15, 0.25]).log()
    kept = [nucleus(scores, p).isfinite().nonzero().flatten().tolist() for p in (0.01, 0.5, 0.74, 0.76, 1.0)]
    assert kept == [[1], [1], [1, 3], [1, 2, 3], [0, 1, 2, 3]]


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=30), st.floats(0.01, 1.0))
def test_nucleus_always_leaves_the_best(scores: list[float], top_p: float) -> None:
    given_scores = torch.tensor(scores)
    left = nucleus(given_scores, top_p)
    assert float(left.max()) == float(given_scores.max())
    assert float(given_scores.softmax(-1)[left.isfinite()].sum()) >= top_p - 1e-4


def test_temperature_zero_takes_the_best() -> None:
    assert draw(torch.tensor([0.0, 3.0, 1.0]), 0.0, 0.1) == 1


def test_draws_follow_the_probabilities() -> None:
    scores = torch.tensor([0.6, 0.3, 0.1]).log()
    generator = torch.Generator().manual_seed(0)
    drawn = torch.tensor([draw(scores, 1.0, 1.0, generator) for _ in range(3000)])
    assert (torch.bincount(drawn, minlength=3) / 3000).tolist() == pytest.approx([0.6, 0.3, 0.1], abs=0.04)


def test_one_seed_gives_one_sequence_whatever_else_is_drawn() -> None:
    def drawn(seed: int | None) -> list[int]:
        sampler = Sampler(TOKENS, VOCABULARY, FREE, seed)
        out = []
        for step in range(20):
            torch.rand(step)  # draws by others
            out.append(sampler.draw(logits(step)))
        return out

    assert drawn(5) == drawn(5)
    assert drawn(5) != drawn(6)
    assert drawn(None) != drawn(None)


def test_what_was_seen_is_pressed_down() -> None:
    sampler = Sampler(TOKENS, VOCABULARY, SamplingOptions(temperature=0.0, repetition_penalty=2.0))
    scores = torch.zeros(VOCABULARY)
    scores[7], scores[8] = 3.0, 2.0
    assert [sampler.draw(scores), sampler.draw(scores)] == [7, 8]
    sampler.forget()
    assert sampler.draw(scores) == 7
    sampler.forget()
    sampler.see([7])
    assert sampler.draw(scores) == 8


def test_audio_may_be_left_out_of_the_penalty() -> None:
    options = SamplingOptions(temperature=0.0, repetition_penalty=2.0, penalise_audio=False)
    sampler = Sampler(TOKENS, VOCABULARY, options)
    scores = torch.zeros(VOCABULARY)
    scores[TOKENS.audio0], scores[8] = 3.0, 2.0
    assert {sampler.draw(scores) for _ in range(3)} == {TOKENS.audio0}
    scores[TOKENS.audio0] = 0.0
    scores[9] = 1.5
    assert [sampler.draw(scores), sampler.draw(scores)] == [8, 9]


@pytest.mark.parametrize("seed", range(5))
def test_slots_hold_only_what_belongs_there(seed: int) -> None:
    sampler = Sampler(TOKENS, VOCABULARY, FREE, seed)
    low, high = TOKENS.audio_slot
    for step in range(20):
        assert low <= sampler.draw(logits(step), slot=Slot.AUDIO) < high
        text = sampler.draw(logits(step), slot=Slot.TEXT)
        assert text in (TOKENS.tts_pad, TOKENS.tts_end) or text not in TOKENS.control
        assert text <= max(TOKENS.control)


def test_scores_of_the_audio_rows_alone_draw_the_same() -> None:
    low, high = TOKENS.audio_slot
    whole, part = Sampler(TOKENS, VOCABULARY, seed=3), Sampler(TOKENS, VOCABULARY, seed=3)
    for step in range(10):
        scores = logits(step)
        assert whole.draw(scores, slot=Slot.AUDIO) == part.draw(scores[low:high], low, Slot.AUDIO)


def test_ids_of_a_part_are_ids_of_the_whole() -> None:
    sampler = Sampler(TOKENS, VOCABULARY, GREEDY)
    assert sampler.draw(torch.tensor([0.0, 1.0]), first=40) == 41


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": float("inf")},
    ],
)
def test_meaningless_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SamplingOptions(**wrong)  # type: ignore[arg-type]  # floats, by name
