"""The tokens that steer the model, looked up by name. Pure: the vocabulary is given as a function.

Published checkpoints and small ones number them differently; nothing in Parley knows an id by heart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

AUDIO_CODES = (
    6561  # 3^8: the speech tokenizer's codes (25 a second); the name after the last is the audio pad
)


class MissingTokenError(Exception):
    """The vocabulary lacks a token the model cannot do without. The message names it."""


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Ids by role. ``None`` marks what a vocabulary may lack.

    ``control`` holds every added token of the vocabulary, these and all others: no text may ever become one
    of them.
    """

    bot: int  # <|BOT|>, opens a turn
    eot: int  # <|EOT|>, closes it
    audio_start: int
    audio_end: int
    audio_patch: int  # stands where a row of the adaptor is laid in
    tts_start: int
    tts_end: int
    tts_pad: int  # the text slot of a group that has no more text
    audio0: int  # <audio_0>; code k is audio0 + k
    audio_tokens: (
        int  # how many there are: codes, pad, and reserved ones behind it (6656 in all as published)
    )
    control: frozenset[int]
    end_of_text: int | None = None  # <|endoftext|>, how the base model ends
    tool_call: int | None = None
    tool_call_end: int | None = None
    think: int | None = None  # ordinary text in the published vocabulary
    think_end: int | None = None

    @classmethod
    def from_vocabulary(cls, id_of: Callable[[str], int | None], control: Iterable[int]) -> SpecialTokens:
        """Look every name up. Raises MissingTokenError for one that must be there, or audio codes out of
        order.
        """

        def need(name: str) -> int:
            found = id_of(name)
            if found is None:
                raise MissingTokenError(f"has no token {name}")
            return found

        audio0 = need("<audio_0>")
        for code in range(AUDIO_CODES + 1):
            if need(f"<audio_{code}>") != audio0 + code:
                raise MissingTokenError(f"does not number <audio_{code}> right after <audio_{code - 1}>")
        named = AUDIO_CODES + 1
        while id_of(f"<audio_{named}>") == audio0 + named:
            named += 1
        return cls(
            bot=need("<|BOT|>"),
            eot=need("<|EOT|>"),
            audio_start=need("<audio_start>"),
            audio_end=need("<audio_end>"),
            audio_patch=need("<audio_patch>"),
            tts_start=need("<tts_start>"),
            tts_end=need("<tts_end>"),
            tts_pad=need("<tts_pad>"),
            audio0=audio0,
            audio_tokens=named,
            control=frozenset(control),
            end_of_text=id_of("<|endoftext|>"),
            tool_call=id_of("<tool_call>"),
            tool_call_end=id_of("</tool_call>"),
            think=id_of("<think>"),
            think_end=id_of("</think>"),
        )

    @property
    def audio_pad(self) -> int:
        """The audio slot of a group that has no more sound."""
        return self.audio0 + AUDIO_CODES

    @property
    def audio_slot(self) -> tuple[int, int]:
        """Ids [from, to) an audio slot may hold: the codes and the pad."""
        return self.audio0, self.audio0 + AUDIO_CODES + 1

    @property
    def ends(self) -> frozenset[int]:
        """Ids after which nothing of the turn follows. A turn that opens another has ended, too."""
        return frozenset(id for id in (self.eot, self.bot, self.end_of_text) if id is not None)

    def is_audio(self, id: int) -> bool:
        """Whether ``id`` is an audio token: a code, the pad, or one of the reserved ones behind it."""
        return self.audio0 <= id < self.audio0 + self.audio_tokens

    def code(self, id: int) -> int | None:
        """The code 0..6560 that ``id`` speaks, ``None`` for whatever is no sound."""
        return id - self.audio0 if self.audio0 <= id < self.audio_pad else None
