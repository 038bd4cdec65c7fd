"""What the caller has really heard of one answer: pure bookkeeping, to one group (160 ms).

The engine says which text lies in which group; the transport says how many samples were written. The ledger
joins the two. Everything that must agree about an interruption (the engine's history, the transcript, the
page) is cut by the numbers this module gives.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise

from model_runtime.protocol import GROUP_SAMPLES


@dataclass(frozen=True)
class Slice:
    """Samples ``[start, stop)`` of a piece of speech, and the text that is complete when they were played."""

    start: int
    stop: int
    text: str


class Ledger:
    """The account of one answer. All counts are 24 kHz samples from the answer's start."""

    def __init__(self) -> None:
        """Nothing queued, nothing heard."""
        self._ends: list[int] = []  # where each group ends
        self._texts: list[str] = []
        self._queued = 0
        self._played = 0

    @property
    def queued(self) -> int:
        """Samples handed to the transport."""
        return self._queued

    @property
    def played(self) -> int:
        """Samples the transport has written."""
        return self._played

    @property
    def groups(self) -> int:
        """Groups handed to the transport."""
        return len(self._ends)

    @property
    def heard_groups(self) -> int:
        """Groups played to their last sample."""
        return bisect_right(self._ends, self._played)

    @property
    def heard_text(self) -> str:
        """The text of the groups heard."""
        return "".join(self._texts[: self.heard_groups])

    @property
    def complete(self) -> bool:
        """Everything queued has been played."""
        return self._played >= self._queued

    def queue(self, samples: int, groups: int, group_text: list[str]) -> list[Slice]:
        """Enter the next piece of speech; return it cut so that each text can follow its own audio.

        Args:
            samples: how long the piece is. groups: groups spoken from the answer's start to the end of this
            piece (``Speech.groups``). group_text: one string for each group the piece completes. Missing
            ones are empty; surplus ones join the last.

        Returns:
            Slices that cover the piece in order. The last may have no text: the beginning of a group still
            to come.
        """
        begin, end = self._queued, self._queued + samples
        new = max(0, groups - len(self._ends))
        texts = group_text[:new] + [""] * (new - len(group_text))
        if new and len(group_text) > new:
            texts[-1] += "".join(group_text[new:])
        ends = [
            # The vocoder looks ahead, so audio may run a little behind its groups; a group never ends outside
            # the piece that completes it.
            min(max((len(self._ends) + i) * GROUP_SAMPLES, begin), end)
            for i in range(1, new + 1)
        ]
        self._ends += ends
        self._texts += texts
        self._queued = end
        cuts = [begin, *ends]
        slices = [
            Slice(start - begin, stop - begin, text)
            for (start, stop), text in zip(pairwise(cuts), texts, strict=True)
        ]
        if cuts[-1] < end:
            slices.append(Slice(cuts[-1] - begin, samples, ""))
        return slices

    def play(self, samples: int) -> str:
        """Count ``samples`` more as written; return the text newly heard.

        Padding beyond what was queued counts for nothing.
        """
        before = self.heard_groups
        self._played = min(self._played + samples, self._queued)
        return "".join(self._texts[before : self.heard_groups])

    def settle(self) -> str:
        """The transport has reached the answer's end: what rounding kept back counts as played.

        Returns the text newly heard. A gap of half a group or more is no rounding: the transport refused
        audio, and that stays unheard.
        """
        missing = self._queued - self._played
        return self.play(missing) if missing < GROUP_SAMPLES // 2 else ""
