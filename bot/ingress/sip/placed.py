"""One call of ours, from the first ring to its end: who answers, and what is done about a machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal, Protocol

from loguru import logger

from bot.ingress.sip import messages as m
from bot.ingress.sip.ingress import LiveCall, hang_up, talk
from bot.ingress.sip.leg import LegEvent, SipLeg
from pipeline.answering_machine import AnsweringMachineDetector, Found
from pipeline.call import CallEnd

RING_S = 60.0  # somebody who has not answered by then is not there
BEEP_S = 60.0  # greetings of machines are shorter; one that has not beeped by then never will

State = Literal["dialing", "ringing", "answered", "ended"]


class OutgoingLeg(SipLeg, Protocol):
    """A leg that we placed."""

    def put_back(self, events: Sequence[LegEvent]) -> None:
        """Let the next reader of ``events`` read these first."""


@dataclass(frozen=True)
class MachinePolicy:
    """What is done when a machine answers; ``listen``: whether anybody listens for one at all.

    ``message`` is said after its beep; empty: it is hung up on.
    """

    listen: bool = False
    message: str = ""


class PhoneCaller(Protocol):
    """An agent who calls."""

    @property
    def machine(self) -> MachinePolicy:
        """What it does when a machine answers."""

    def call(self, leg: SipLeg) -> LiveCall:
        """The call with a person, not yet running."""

    def message(self, leg: SipLeg, words: str) -> LiveCall:
        """A call that says ``words``, hears nothing, and ends."""


class PlacedCall:
    """``run`` is all of it; what it has come to stands in the attributes."""

    def __init__(self, leg: OutgoingLeg, caller: PhoneCaller, tell: Callable[[State], None]) -> None:
        """``leg`` has been dialled; ``tell`` hears of each new state."""
        self.state: State = "dialing"
        self.answered_by: Found | None = None  # None: nobody listened, or nobody answered
        self.reason = ""  # why it is over: the README's table of ``/api/calls`` has them all
        self.detail = ""  # ... in the stack's words
        self._leg = leg
        self._caller = caller
        self._tell = tell
        self._call: LiveCall | None = None
        self._detector = AnsweringMachineDetector()
        self._wanted_end = ""

    async def run(self) -> CallEnd | None:
        """Be the call. None: it never came to a conversation."""
        end = None
        try:
            if await self._answered():
                end = await self._be_answered()
        finally:
            left = await hang_up(self._leg)
            if end is not None:
                self.reason = self.reason or end.reason
            elif not self.reason:
                self.reason = self._wanted_end or (left.reason if left else "failed")
                self.detail = left.detail if left and not self._wanted_end else ""
            self._now("ended")
        return end

    async def end(self, reason: str) -> None:
        """End it soon, however far it has come; the first reason counts."""
        self._wanted_end = self._wanted_end or reason
        if self._call is not None:
            await self._call.end(reason)
        else:
            self._leg.hang_up()

    # --- until it is answered ------------------------------------------------------------------------------

    async def _answered(self) -> bool:
        """Wait for it. Sound that comes before (183, early media) is no answer, and nobody's turn.

        But the network's own announcement in it is the end, however long it would go on.
        """
        early = AnsweringMachineDetector()
        try:
            async with asyncio.timeout(RING_S), aclosing(self._leg.events()) as events:
                async for event in events:
                    match event:
                        case m.Ringing():
                            self._now("ringing")
                        case m.Heard(pcm=pcm) if early.push(pcm) == "intercept":
                            self.reason = "intercept"
                            return False
                        case m.Established():
                            self._now("answered")
                            return True
        except TimeoutError:
            self.reason = "no-answer"
        return False

    # --- and then ------------------------------------------------------------------------------------------

    async def _be_answered(self) -> CallEnd | None:
        policy = self._caller.machine
        if policy.listen:
            self.answered_by = await self._who()
            logger.info("answered by: {}", self.answered_by or "nobody")
        if self.answered_by in ("machine", "beep", "intercept"):
            if not policy.message or self.answered_by == "intercept":
                self.reason = "intercept" if self.answered_by == "intercept" else "answering-machine"
                return None
            if self.answered_by == "machine" and not await self._beeped():
                return None
            return await self._leave(policy.message)
        if self._wanted_end or self.reason:
            return None
        self._call = self._caller.call(self._leg)
        return await talk(self._leg, self._call)

    async def _who(self) -> Found | None:
        """Listen until it is clear. What a person said meanwhile is heard by the call that follows."""
        heard: list[LegEvent] = []
        found: Found | None = None
        try:
            async with asyncio.timeout(RING_S), aclosing(self._leg.events()) as events:
                async for event in events:
                    heard.append(event)
                    if isinstance(event, m.Heard):
                        found = self._detector.push(event.pcm)
                        if found == "ring":
                            heard.clear()
                        elif found:
                            break
        except TimeoutError:
            self.reason = "no-answer"  # it rang on, or made another noise, behind an answered line
        self._leg.put_back(heard)
        return found

    async def _beeped(self) -> bool:
        """Wait for its beep, or for it to have nothing more to say. False: neither came."""
        try:
            async with asyncio.timeout(BEEP_S), aclosing(self._leg.events()) as events:
                async for event in events:
                    if isinstance(event, m.Heard) and self._detector.push(event.pcm):
                        return True
        except TimeoutError:
            self.reason = "answering-machine"
        return False

    async def _leave(self, words: str) -> CallEnd:
        self._call = self._caller.message(self._leg, words)
        end = await talk(self._leg, self._call)
        said = any(exchange.bot and not exchange.interrupted for exchange in end.conversation.exchanges)
        self.reason = "message-left" if said else ""
        return end

    def _now(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self._tell(state)
