"""One phone call as the rest of Parley sees it, whatever SIP stack carries it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from bot.ingress.sip.messages import Closed, Digit, Established, Heard, Held, Quality, Ringing

LegEvent = Ringing | Established | Heard | Digit | Held | Closed
"""What happens on a leg; ``Closed`` is the last."""


class LegError(Exception):
    """The far end or the stack would not do what was asked; the call goes on. The message says why."""


@dataclass(frozen=True)
class LegEnd:
    """How a leg ended.

    ``reason``: "hung-up", "rtp-timeout", "worker-died", "transferred" (who hangs up while they are sent on
    has gone there), or "refused:STATUS" and "failed" for a call of ours that was never answered; ``detail``:
    the stack's own words.
    """

    reason: str
    detail: str
    quality: Quality


class SipLeg(Protocol):
    """PCM in and out, keys, hold, transfer, hang-up and the count of it all."""

    call_id: str  # ours
    peer: str  # the far end's URI, as it names itself
    called: str  # the URI that was called
    headers: Mapping[str, str]  # the edge's and PARLEY_SIP__HEADERS, those that its INVITE had
    sip_call_id: str  # RFC 3261's Call-ID, for the far end's log; empty while not known

    def events(self) -> AsyncGenerator[LegEvent, None]:
        """What happens, in order; ends after ``Closed``. One reader at a time. Sound is 16 kHz mono s16le."""

    async def ended(self) -> LegEnd:
        """Wait for the end."""

    async def established(self) -> bool:
        """Wait until it is answered. False: it ended before."""

    def dial(self, uri: str) -> SipLeg:
        """Call ``uri`` on the same phone: another leg, which is its caller's to end. Raises ``LegError``."""

    def answer(self) -> None:
        """Accept: 200. ``Established`` follows."""

    def reject(self, status: Literal[486, 503] = 486, retry_after_s: int = 10) -> None:
        """Refuse: busy, or not for now; and when it is worth trying again."""

    def hang_up(self) -> None:
        """End it, in whatever state it is; harmless when it is over."""

    async def speak(self, pcm: bytes) -> bool:
        """Say 20 ms, 24 kHz mono s16le, when there is room. Waits through a hold. False: it is over."""

    async def hold(self, on: bool) -> None:
        """Put the far end on hold, or take it back. Raises ``LegError``."""

    async def press(self, digits: str) -> None:
        """Press keys. Raises ``LegError``."""

    async def transfer(self, uri: str) -> None:
        """Have the far end call ``uri`` in our place; the leg is over when it does. Raises ``LegError``."""
