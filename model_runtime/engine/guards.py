"""Seeing that a reply has stopped getting anywhere:

speech models can fall into a loop and never find their end, or write words that nobody would hear.
"""

from __future__ import annotations

from collections.abc import Sequence

TEXT_PERIOD = 16  # text tokens: the longest phrase looked for
TEXT_SPAN = 32  # text tokens: a loop is a loop when it has filled this much ("no no no no" has not)
CODE_PERIOD = 50  # audio codes, 2 s
CODE_SPAN = (
    150  # audio codes, 6 s of exactly repeating sound; no pause and no held vowel is that long and that exact
)
REPEATS = 4  # times a pattern must have come
SILENT_GROUPS = 62  # groups, 10 s: text slots empty for longer than this, and ...
SILENT_RATIO = 4  # ... than four times the groups that had text (words end at about 60 % of a normal reply)
MUTE_GROUPS = 6  # groups without one code, 1 s of words: a reply of the right form sounds in its first group


def repeats(tail: Sequence[object], longest: int, span: int) -> bool:
    """Whether ``tail`` ends in one pattern of at most ``longest`` items, repeated over at least ``span``
    items.
    """
    for period in range(1, longest + 1):
        need = max(span, REPEATS * period)
        if len(tail) < need:
            continue
        window = tail[len(tail) - need :]
        if all(window[i] == window[i - period] for i in range(period, need)):
            return True
    return False


class LoopGuard:
    """Watches one reply, group by group. ``problem`` says what is wrong with it, once something is."""

    def __init__(self) -> None:
        """Nothing seen."""
        self.problem = ""
        self._words: list[str] = []  # the texts of groups that had any
        self._codes: list[int] = []
        self._groups = 0
        self._empty = 0  # groups since the last with text
        self._sounds = False

    @property
    def mute(self) -> bool:
        """Whether there should have been sound long ago, and there has been none."""
        return self._groups >= MUTE_GROUPS and not self._sounds

    def push(self, text: str, codes: Sequence[int]) -> None:
        """One more group: its text and its codes."""
        self._groups += 1
        self._empty = 0 if text else self._empty + 1
        self._sounds = self._sounds or bool(codes)
        self._codes.extend(codes)
        if text:
            self._words.append(text)
            if repeats(self._words, TEXT_PERIOD, TEXT_SPAN):
                self.problem = "the text repeats itself"
        del self._words[: -REPEATS * TEXT_PERIOD], self._codes[: -REPEATS * CODE_PERIOD]
        # Audio loops are looked for once a second or so: the check costs more than the text's.
        if self._groups % 6 == 0 and repeats(self._codes, CODE_PERIOD, CODE_SPAN):
            self.problem = "the sound repeats itself"
        if self._empty > max(SILENT_GROUPS, SILENT_RATIO * (self._groups - self._empty)):
            self.problem = "the words ended long ago"
