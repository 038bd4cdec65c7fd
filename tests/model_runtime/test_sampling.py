from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.interleave import Slot
from model_runtime.thinking.sampling import (
    FRESH,
    NOTHING,
    Sampler,
    SamplingOptions,
    draw_each,
    penalise,
    pick,
)
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


def picked(scores: torch.Tensor, temperature: float, top_p: float, chances: list[float]) -> list[int]:
    count = len(chances)
    settings = (torch.full((count,), temperature), torch.full((count,), top_p), torch.tensor(chances))
    return [int(index) for index in pick(scores.repeat(count, 1), *settings)]


def test_drawn_is_from_the_smallest_set_that_reaches_top_p() -> None:
    scores = torch.tensor([0.1, 0.5, 0.15, 0.25]).log()
    chances = [at / 100 for at in range(100)]
    found = [set(picked(scores, 1.0, p, chances)) for p in (0.01, 0.5, 0.74, 0.76, 1.0)]
    assert found == [{1}, {1}, {1, 3}, {1, 2, 3}, {0, 1, 2, 3}]


@given(st.lists(st.floats(-20, 20), min_size=1, max_size=30), st.floats(0.01, 1.0))
def test_the_best_can_always_be_drawn_and_what_is_drawn_lies_in_the_nucleus(
    scores: list[float], top_p: float
) -> None:
    odds = torch.tensor(scores, dtype=torch.float64).softmax(-1)
    best, *others = picked(torch.tensor(scores), 1.0, top_p, [0.0, 0.3, 0.6, 0.999999])
    assert odds[best] == odds.max()
    for other in others:  # what is likelier than it does not reach top_p
        assert float(odds[odds > odds[other] + 1e-6].sum()) <= top_p + 1e-4


def test_temperature_zero_takes_the_best() -> None:
    assert picked(torch.tensor([0.0, 3.0, 1.0]), 0.0, 0.1, [0.9]) == [1]


def test_draws_follow_the_probabilities() -> None:
    scores = torch.tensor([0.6, 0.3, 0.1]).log()
    drawn = torch.tensor(picked(scores, 1.0, 1.0, torch.rand(3000).tolist()))
    assert (torch.bincount(drawn, minlength=3) / 3000).tolist() == pytest.approx([0.6, 0.3, 0.1], abs=0.04)


def test_temperature_makes_the_best_likelier_or_less_so() -> None:
    scores, chances = torch.tensor([0.6, 0.3, 0.1]).log(), torch.rand(3000).tolist()
    for temperature in (0.5, 2.0):
        drawn = torch.tensor(picked(scores, temperature, 1.0, chances))
        wanted = (scores / temperature).softmax(-1).tolist()
        assert (torch.bincount(drawn, minlength=3) / 3000).tolist() == pytest.approx(wanted, abs=0.04)


@pytest.mark.parametrize("slot", [Slot.FREE, Slot.TEXT, Slot.AUDIO])
def test_a_step_of_several_draws_for_each_what_it_would_draw_alone(slot: Slot) -> None:
    options = [
        SamplingOptions(),
        GREEDY,
        FREE,
        SamplingOptions(temperature=1.3, top_p=0.6, repetition_penalty=1.4, penalise_audio=False),
        SamplingOptions(temperature=0.0, repetition_penalty=1.2),
    ]

    def samplers() -> list[Sampler]:
        return [Sampler(TOKENS, VOCABULARY, one, seed) for seed, one in enumerate(options)]

    alone, together = samplers(), samplers()
    for step in range(2 * FRESH):  # so that what was seen is written down in between
        scores = torch.stack([logits(100 * step + row) for row in range(len(options))])
        scores[:, 5] += 6.0  # seen again and again
        wanted = [sampler.draw(row, slot=slot) for sampler, row in zip(alone, scores, strict=True)]
        assert draw_each(scores, together, 0, [slot] * len(options)) == wanted


def test_who_may_write_anything_may_do_so_beside_one_who_may_write_text_only() -> None:
    scores = torch.zeros(2, VOCABULARY)
    scores[:, TOKENS.audio0] = 3.0
    scores[:, 8] = 1.0
    samplers = [Sampler(TOKENS, VOCABULARY, GREEDY) for _ in range(2)]
    assert draw_each(scores, samplers, 0, [Slot.FREE, Slot.TEXT]) == [TOKENS.audio0, 8]


@pytest.mark.parametrize("options", [GREEDY, FREE])
def test_scores_that_are_no_numbers_are_that_sessions_fault_alone(options: SamplingOptions) -> None:
    scores = torch.stack([logits(), torch.full((VOCABULARY,), float("nan"))])
    samplers = [Sampler(TOKENS, VOCABULARY, options, seed=1) for _ in range(2)]
    alone = Sampler(TOKENS, VOCABULARY, options, seed=1).draw(logits())
    assert draw_each(scores, samplers) == [alone, NOTHING]
    with pytest.raises(ArithmeticError, match="no numbers"):
        samplers[1].draw(scores[1])


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
