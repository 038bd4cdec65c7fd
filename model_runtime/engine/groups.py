"""Which groups, and which of their words, lie within the audio made so far: the accounting behind ``Speech``.

A group is one text slot and four audio slots. Audio slots may hold pads, so a group may have less than its
160 ms of sound; what has been *spoken* is therefore counted by the audio codes each group really holds, 960
samples a code.
"""

from __future__ import annotations

from model_runtime.protocol import OUTPUT_RATE

CODES_PER_SECOND = 25
CODE_SAMPLES = OUTPUT_RATE // CODES_PER_SECOND  # 960 samples of 24 kHz: 40 ms


class GroupLedger:
    """Groups written by the model on one side, samples made by the vocoder on the other.

    ``made``: whole groups the model has written. ``spoken``: those whose sound has been given out in full.
    """

    def __init__(self) -> None:
        """Nothing written."""
        self._codes_at: list[int] = []  # codes in the whole turn up to the end of each group
        self._text: list[str] = []  # the text of each group
        self._samples = 0
        self.spoken = 0

    @property
    def made(self) -> int:
        """Whole groups written so far."""
        return len(self._codes_at)

    @property
    def codes(self) -> int:
        """Audio codes in those groups."""
        return self._codes_at[-1] if self._codes_at else 0

    @property
    def text(self) -> str:
        """The text of all groups written so far."""
        return "".join(self._text)

    def text_of(self, groups: int) -> str:
        """The text of the first ``groups`` of them."""
        return "".join(self._text[:groups])

    def write(self, codes: int, text: str) -> None:
        """The model has completed a group that holds ``codes`` real audio codes (0 to 4) and ``text``."""
        self._codes_at.append(self.codes + codes)
        self._text.append(text)

    def speak(self, samples: int, last: bool) -> list[str]:
        """``samples`` more of 24 kHz audio have been made; returns the text of each group that they complete.

        A group without codes is complete as soon as the one before it is. The last piece completes all
        groups.
        """
        self._samples += samples
        before = self.spoken
        while self.spoken < self.made and (
            last or self._codes_at[self.spoken] * CODE_SAMPLES <= self._samples
        ):
            self.spoken += 1
        return self._text[before : self.spoken]
