"""Drawing the next token from its scores. Functions on 1-D logits; a ``Sampler`` keeps what one session
needs.

Scores may cover only a range of ids (``Backbone.logits(hidden, rows)``): ``first`` is the id of the first of
them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from model_runtime.interleave import Slot
from model_runtime.tokens import SpecialTokens


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


def penalise(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Press down what was ``seen`` (bool, same shape): scores above 0 are divided by the penalty, others
    multiplied.

    As in Hugging Face's ``RepetitionPenaltyLogitsProcessor`` (CTRL, Keskar et al. 2019).
    """
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def nucleus(logits: Tensor, top_p: float) -> Tensor:
    """Leave only the smallest set of tokens whose probability reaches ``top_p``; all others get -inf.

    The best token always stays (Holtzman et al. 2020).
    """
    if top_p >= 1.0:
        return logits
    ordered, order = logits.sort(descending=True)
    probability = ordered.softmax(-1)
    # Dropped is what lies behind the point where the sum has been reached without it.
    dropped = probability.cumsum(-1) - probability >= top_p
    dropped[0] = False
    return logits.masked_fill(torch.zeros_like(dropped).scatter(0, order, dropped), float("-inf"))


def draw(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator | None = None) -> int:
    """Draw the index of one token from float logits [n]; temperature 0 takes the best."""
    if temperature == 0.0:
        return int(logits.argmax())
    chances = nucleus(logits.float() / temperature, top_p).softmax(-1)
    return int(torch.multinomial(chances, 1, generator=generator))


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
        self.generator = torch.Generator(device=device)
        if seed is None:
            self.generator.seed()
        else:
            self.generator.manual_seed(seed)
        self._seen = torch.zeros(vocabulary, dtype=torch.bool, device=device)
        self._text_slot = text_slot_mask(tokens, vocabulary).to(device)

    def see(self, ids: Iterable[int]) -> None:
        """Count ids as seen: the prompt, or what was forced. Drawn ids are counted by ``draw``."""
        if self.options.repetition_penalty == 1.0:
            return
        kept = [id for id in ids if self.options.penalise_audio or not self.tokens.is_audio(id)]
        if kept:
            self._seen[kept] = True

    def forget(self) -> None:
        """Nothing has been seen: call this when the history was cut, then ``see`` what is left."""
        self._seen.zero_()

    def draw(self, logits: Tensor, first: int = 0, slot: Slot = Slot.FREE) -> int:
        """The next id. ``slot`` other than FREE masks what a well-formed stream cannot hold there."""
        size = logits.shape[-1]
        if self.options.repetition_penalty != 1.0:
            logits = penalise(logits, self._seen[first : first + size], self.options.repetition_penalty)
        if slot is Slot.TEXT:
            logits = logits.masked_fill(~self._text_slot[first : first + size], float("-inf"))
        elif slot is Slot.AUDIO:
            start, end = self.tokens.audio_slot
            start, end = max(start, first), min(end, first + size)
            logits, first = logits[start - first : end - first], start
        id = first + draw(logits, self.options.temperature, self.options.top_p, self.generator)
        self.see((id,))
        return id


def text_slot_mask(tokens: SpecialTokens, vocabulary: int) -> Tensor:
    """bool [vocabulary]: what a text slot may hold, which is any text, ``<tts_pad>`` and ``<tts_end>``."""
    allowed = torch.zeros(vocabulary, dtype=torch.bool)
    # All text lies before the added tokens (the tokenizer is refused otherwise); rows behind them are
    # untrained.
    allowed[: min(tokens.control)] = True
    allowed[[tokens.tts_pad, tokens.tts_end]] = True
    return allowed
