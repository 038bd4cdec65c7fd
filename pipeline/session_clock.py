"""An engine session's clock: it begins when the session does, or with what is sent to it once more."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.turns import Span


class SessionClock:
    """Samples of the call since ``begun``, after ``again`` samples that were sent once more."""

    def __init__(self) -> None:
        """The session begins with the call."""
        self.begun = 0
        self.again = 0

    def begin(self, now: int, again: int) -> None:
        """A session begins at sample ``now`` of the call, after ``again`` samples sent once more."""
        self.begun, self.again = now, again

    def spans(self, spans: Sequence[Span]) -> list[Span]:
        """The call's spans on the session's clock, as far as they were sent to it."""
        shift = self.again - self.begun
        return [(max(start, self.begun) + shift, end + shift) for start, end in spans if end > self.begun]
