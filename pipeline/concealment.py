"""What is heard in place of lost audio: one rule for a browser's packets and a phone's frames. Pure."""

from __future__ import annotations

LONGEST = 10  # of a longer hole only 200 ms are filled; the rest is cut from the call's clock
REPEATS = 2  # a vowel bears 40 ms of repetition; after that, silence


def stand_ins(last: bytes, silence: bytes, missing: int) -> list[bytes]:
    """At most ``LONGEST`` pieces for ``missing`` ones that were lost after ``last``.

    A piece is 20 ms, encoded or PCM; ``silence`` is one, too.
    """
    filled = min(missing, LONGEST)
    return [last if nth < REPEATS else silence for nth in range(filled)]
