"""When a caller who waits for a tool is told that it is still at work. Pure.

Time is the caller's sample count (16 kHz), as everywhere where silence is counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.turns.clock import samples


@dataclass(frozen=True)
class WaitingPolicy:
    """What is said to a caller who waits for a tool: ``words``, up to ``times`` times for what they said."""

    words: str
    after_ms: int = 700  # of silence: longer than people leave between turns
    again_ms: int = 8000  # ... and of more silence, after the words
    times: int = 2


class Waiting:
    """One call's."""

    def __init__(self, policy: WaitingPolicy | None) -> None:
        """``None``: nothing is ever said."""
        self._policy = policy
        self._said = 0
        self._quiet_from = 0

    def asked(self) -> None:
        """The caller has said something else that tools are run for."""
        self._said = 0

    def tick(self, now: int, quiet: bool) -> str:
        """The words that are to be said now; mostly none.

        Args:
            now: how far the caller's audio has come, in samples.
            quiet: a tool is at work, and nobody has the floor. Only such silence counts.
        """
        policy = self._policy
        if not quiet or policy is None:
            self._quiet_from = now
            return ""
        wait = policy.again_ms if self._said else policy.after_ms
        if self._said >= policy.times or now - self._quiet_from < samples(wait):
            return ""
        self._said += 1
        return policy.words
