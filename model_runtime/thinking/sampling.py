"""Drawing the next token from its scores, for one session or for all that have come to the same kind of slot.

Scores may cover only a range of ids (``Backbone.logits(hidden, rows)``): ``first`` is the id of the first of
them. Chance comes from each session's own generator, on the CPU, as one number between 0 and 1 an id: so a
seed draws the same on every device, whatever else is drawn in the same step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model_runtime.interleave import Slot
from model_runtime.tokens import SpecialTokens

NOTHING = -1  # drawn from scores that are no numbers
FRESH = 64  # ids


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """Step-Audio 2's own defaults for speech. Temperature 0 always takes the best token.

    ``penalise_audio`` off keeps the repetition penalty to text: at 25 codes a second it would otherwise press
    down the commonest codes for the rest of the call. On is upstream's way.
    """

    temperature: float = 0.7
    top_p: float = 0.9
    repetition_penalty: float = 1.05
    penalise_audio: bool = True

    def __post_init__(self) -> None:
        """Raises ValueError on values that mean nothing."""
        if not 0.0 <= self.temperature <= 10.0:
            raise ValueError(f"temperature is {self.temperature}, it must be from 0 to 10")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p is {self.top_p}, it must be more than 0 and at most 1")
        if not 0.1 <= self.repetition_penalty <= 10.0:
            raise ValueError(f"repetition_penalty is {self.repetition_penalty}, it must be from 0.1 to 10")


def penalise(logits: Tensor, seen: Tensor, penalty: float | Tensor) -> Tensor:
    """Press down what was ``seen`` (bool, same shape): scores above 0 are divided by the penalty, others
    multiplied.

    As in Hugging Face's ``RepetitionPenaltyLogitsProcessor`` (CTRL, Keskar et al. 2019).
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def pick(scores: Tensor, temperature: Tensor, top_p: Tensor, chance: Tensor) -> Tensor:
    """One index of each row: scores [B, n] to int64 [B]; ``NOTHING`` where the best of them is no number.

    ``temperature`` [B], 0 takes the best. Of the others only the smallest set is drawn from whose probability
    reaches ``top_p`` [B], never less than the best (Holtzman et al. 2020). ``chance`` [B] from 0 to 1 says
    where in that set: the likeliest lie first.
    """
    greedy = temperature == 0
    divided = scores / temperature.where(~greedy, 1.0)[:, None]
    ordered, order = divided.sort(-1, descending=True)
    odds = ordered.softmax(-1)
    reached = odds.cumsum(-1)
    # Dropped is what lies behind the point where the sum has been reached without it.
    kept = (reached - odds < top_p[:, None]).sum(-1).clamp(min=1)
    mass = reached.gather(-1, kept[:, None] - 1)
    place = (reached < chance[:, None] * mass).sum(-1).minimum(kept - 1)
    drawn = order.gather(-1, place.where(~greedy, 0)[:, None])[:, 0]
    return drawn.where(ordered[:, 0].isfinite(), NOTHING)


class Sampler:
    """One session's draws: options, seed, and what has been seen. Two samplers of one seed draw the same.

    ``vocabulary`` is the number of ids the model scores; ``device`` where the scores lie.
    """

    def __init__(
        self,
        tokens: SpecialTokens,
        vocabulary: int,
        options: SamplingOptions | None = None,
        seed: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """``seed`` None takes one from the system."""
        self.options = options or SamplingOptions()
        self.tokens = tokens
        self.generator = torch.Generator()
        if seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(seed)
        self.seen = torch.zeros(vocabulary, dtype=torch.bool, device=device)
        self.fresh: list[int] = []  # seen as well, but not in ``seen`` yet: an id alone is not worth a kernel
        self.text_slot = text_slot_mask(tokens, vocabulary).to(device)

    def see(self, ids: Iterable[int]) -> None:
        """Count ids as seen: the prompt, or what was forced. Drawn ids are counted by ``draw``."""
        if self.options.repetition_penalty != 1.0:
            self.fresh += (id for id in ids if self.options.penalise_audio or not self.tokens.is_audio(id))
            if len(self.fresh) > FRESH:
                self.seen[self.fresh] = True
                self.fresh.clear()

    def forget(self) -> None:
        """Nothing has been seen: call this when the history was cut, then ``see`` what is left."""
        self.seen.zero_()
        self.fresh.clear()

    def draw(self, logits: Tensor, first: int = 0, slot: Slot = Slot.FREE) -> int:
        """The next id. ``slot`` other than FREE masks what a well-formed stream cannot hold there.

        Raises ArithmeticError from scores that are no numbers.
        """
        id = draw_each(logits[None], [self], first, [slot])[0]
        if id == NOTHING:
            raise ArithmeticError("the scores of the next token are no numbers")
        return id


def draw_each(
    scores: Tensor, samplers: Sequence[Sampler], first: int = 0, slots: Sequence[Slot] = ()
) -> list[int]:
    """The next id of each session from its row of ``scores`` [B, n]; ``NOTHING`` from what is no numbers.

    As each ``Sampler.draw`` alone would, in a number of kernels that does not depend on how many they are.
    All of ``slots`` are AUDIO, or none is.
    """
    scores = scores.float()
    size, device = scores.shape[-1], scores.device
    slots = slots or [Slot.FREE] * len(samplers)
    options = [sampler.options for sampler in samplers]
    penalties = [option.repetition_penalty for option in options]
    if any(penalty != 1.0 for penalty in penalties):
        seen = torch.stack([sampler.seen[first : first + size] for sampler in samplers])
        fresh = [
            (row, id - first)
            for row, sampler in enumerate(samplers)
            for id in sampler.fresh
            if first <= id < first + size
        ]
        if fresh:
            rows, ids = torch.tensor(fresh, device=device).T
            seen[rows, ids] = True
        scores = penalise(scores, seen, torch.tensor(penalties, device=device)[:, None])
    if Slot.TEXT in slots:
        barred = ~samplers[0].text_slot[first : first + size]
        if Slot.FREE in slots:
            barred = barred & torch.tensor([slot is Slot.TEXT for slot in slots], device=device)[:, None]
        scores = scores.masked_fill(barred, float("-inf"))
    elif Slot.AUDIO in slots:
        start, end = samplers[0].tokens.audio_slot
        start, end = max(start, first), min(end, first + size)
        scores, first = scores[:, start - first : end - first], start
    if any(option.temperature for option in options):
        chosen = [
            (option.temperature, option.top_p, float(torch.rand((), generator=sampler.generator)))
            for option, sampler in zip(options, samplers, strict=True)
        ]
        drawn = pick(scores, *torch.tensor(chosen, device=device).T)
    else:
        top, best = scores.max(-1)
        drawn = best.where(top.isfinite(), NOTHING)
    ids = [NOTHING if id == NOTHING else first + id for id in drawn.tolist()]
    for sampler, id in zip(samplers, ids, strict=True):
        if id != NOTHING:
            sampler.see((id,))
    return ids


def text_slot_mask(tokens: SpecialTokens, vocabulary: int) -> Tensor:
    """bool [vocabulary]: what a text slot may hold, which is any text, ``<tts_pad>`` and ``<tts_end>``."""
    allowed = torch.zeros(vocabulary, dtype=torch.bool)
    # All text lies before the added tokens (the tokenizer is refused otherwise); rows behind them are
    # untrained.
    allowed[: min(tokens.control)] = True
    allowed[[tokens.tts_pad, tokens.tts_end]] = True
    return allowed
