"""How the next id is chosen:

one session's sampler, restarted for every response so that each can be made again.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from model_runtime.interleave import InterleaveParser, Slot
from model_runtime.thinking.sampling import Sampler


@dataclass(frozen=True, slots=True)
class Draw:
    """Chooses the next id. With ``parser``, an id that its stream may hold next (slot masking).

    ``sounding``: no audio slot may be padded, for a reply that would have no sound otherwise.
    """

    sampler: Sampler
    parser: InterleaveParser | None = None
    sounding: bool = False

    @property
    def rows(self) -> tuple[int, int] | None:
        """The ids [from, to) that have to be scored; ``None``: all. An audio slot takes a small part."""
        if self.parser is not None and self.parser.slot is Slot.AUDIO:
            first, stop = self.sampler.tokens.audio_slot
            return first, self.sampler.tokens.audio_pad if self.sounding else stop
        return None

    @property
    def slot(self) -> Slot:
        """What the next id has to be; FREE: anything."""
        return Slot.FREE if self.parser is None else self.parser.slot

    def __call__(self, scores: Tensor) -> int:
        """From the scores of ``rows``. Raises ArithmeticError if they are no numbers."""
        rows = self.rows
        return self.sampler.draw(scores, 0 if rows is None else rows[0], self.slot)


class Draws:
    """One session's. ``masked``: keep text and audio to their slots."""

    def __init__(self, sampler: Sampler, seed: int | None, masked: bool) -> None:
        """``seed`` ``None``: any."""
        self._sampler = sampler
        self._seed = secrets.randbits(48) if seed is None else seed
        self._masked = masked

    def restart(self, turn: int) -> None:
        """A new response: what it draws depends on the seed and its number, not on what was drawn before."""
        self._sampler.generator.manual_seed((self._seed * 1_000_003 + turn) % 2**63)

    def free(self, prompt: Sequence[int]) -> Draw:
        """Any id may follow; ``prompt`` is what the repetition penalty has seen."""
        self._sampler.forget()
        self._sampler.see(prompt)
        return Draw(self._sampler)

    def speaking(self, prompt: Sequence[int], parser: InterleaveParser, sounding: bool = False) -> Draw:
        """The same within speech that ``parser`` reads. ``sounding`` keeps it to its slots in any case."""
        return Draw(self.free(prompt).sampler, parser if self._masked or sounding else None, sounding)
