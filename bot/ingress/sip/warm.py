"""A warm transfer: somebody is called and told what it is about before the caller is put through to them.

The bot calls them in a call of its own, with a session of its own, in which nothing of the caller's call is
known but the briefing. The caller hears a ring tone meanwhile, and their own call with the bot stands still.
Whoever is called takes the caller by pressing 1, or by a yes to the briefing's question, as it counts for a
privileged tool (``pipeline.tools.consent``); all else leaves the caller with the bot. Then the two are joined
by us (``bridge``), not by their phones (REFER with Replaces, RFC 3891): that works with any phone
and carrier, at the price of a leg for each that stays here until they hang up.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from loguru import logger

from bot.calls import Place, Refused
from bot.ingress.sip.bridge import bridge, ringing
from bot.ingress.sip.ingress import LiveCall, hang_up
from bot.ingress.sip.leg import LegError, SipLeg
from bot.ingress.sip.transport import SipTransport
from pipeline import page_messages as page
from pipeline.call import STOPPING, CallEnd
from pipeline.conversation import Conversation
from pipeline.tools.consent import AgreeingWords, consented, refused
from pipeline.tools.tool import CannotTransfer

ANSWER_S = 40.0  # somebody who has not answered by then is not there
DECIDE_S = 60.0  # ... and who has not decided by then will not
TAKE, REFUSE = "1", "2"  # the keys
STILL_HERE = "The caller is still on the line."


class ConsultingCall(LiveCall, Protocol):
    """The bot's call with whoever is asked."""

    @property
    def conversation(self) -> Conversation:
        """What was said so far."""


OnEvent = Callable[[page.PageMessage], None]
MakeConsultation = Callable[[SipLeg, str, OnEvent, Callable[[str], None]], ConsultingCall]
"""The call on a leg that begins with a briefing; gets what is told of the call, and the keys pressed."""


Admit = Callable[[], Place]
"""A place for one more call. Raises ``Refused``."""


class Decision:
    """Whether the person asked takes the caller, by their keys and their words. No I/O, no clock."""

    def __init__(self, briefing: str, words: AgreeingWords) -> None:
        """``briefing``: what they are told; its last sentence is what they are asked."""
        self.taken: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.conversation = Conversation()
        self._question = re.split(r"(?<=[.!?])\s", briefing.strip())[-1]
        self._words = words

    def pressed(self, key: str) -> None:
        """They pressed a key of their phone."""
        if key in (TAKE, REFUSE):
            self._is(key == TAKE)

    def told(self, message: page.PageMessage) -> None:
        """Something happened in the call with them."""
        if isinstance(message, page.UserText | page.BotDone):
            exchanges = self.conversation.exchanges
            if consented(exchanges, message.turn, self._question, self._words):
                self._is(True)
            elif refused(exchanges, message.turn, self._words):
                self._is(False)

    def over(self) -> None:
        """They hung up, or nobody waits any more."""
        self._is(False)

    def _is(self, taken: bool) -> None:
        if not self.taken.done():
            self.taken.set_result(taken)


class WarmTransfer:
    """One caller's. ``other`` is who took them; whoever runs the caller's call joins and lets them go."""

    def __init__(
        self,
        leg: SipLeg,
        transport: SipTransport,
        words: AgreeingWords,
        consultation: MakeConsultation,
        admit: Admit,
    ) -> None:
        """``transport``: the caller's, on ``leg``; ``words``: what somebody says who agrees.

        ``admit`` gives the place among all calls that whoever is called takes, too.
        """
        self.other: SipLeg | None = None
        self._place: Place | None = None
        self._leg = leg
        self._admit = admit
        self._transport = transport
        self._words = words
        self._consultation = consultation

    async def to(self, uri: str, briefing: str) -> None:
        """Call ``uri`` and ask. Raises ``CannotTransfer``: the caller is back with the bot."""
        with self._transport.apart():
            async with ringing(self._leg):
                asking = asyncio.create_task(self._ask(uri, briefing))
                gone = asyncio.create_task(self._leg.ended())
                try:
                    await asyncio.wait({asking, gone}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    gone.cancel()
                    asking.cancel()
                    await asyncio.gather(asking, gone, return_exceptions=True)
            if asking.cancelled():
                raise CannotTransfer("the caller has hung up.")
            asking.result()

    async def let_go(self) -> None:
        """Hang up on who took the caller, if anybody did."""
        if self.other is not None:
            await hang_up(self.other)
        if self._place is not None:
            self._place.release()

    async def _ask(self, uri: str, briefing: str) -> None:
        """Have somebody take the caller. Raises ``CannotTransfer``, and then has ended their leg."""
        try:
            place = self._admit()
        except Refused as refused:
            logger.warning("a caller cannot be put through to {}: {}", uri, refused)
            raise CannotTransfer(f"there is no free line for now. {STILL_HERE}") from None
        try:
            other = self._leg.dial(uri)
        except LegError as error:
            place.release()
            logger.error("a caller cannot be put through to {}: {}", uri, error)
            raise CannotTransfer(f"they cannot be called for now. {STILL_HERE}") from None
        taken = False
        try:
            logger.info("asking {} to take the caller", uri)
            answered = False
            with suppress(TimeoutError):
                answered = await asyncio.wait_for(other.established(), ANSWER_S)
            if not answered:
                raise CannotTransfer(f"nobody answers there. {STILL_HERE}")
            taken = await self._decided(other, briefing)
            if not taken:
                logger.info("{} does not take the caller", uri)
                raise CannotTransfer(f"they cannot take the call now. {STILL_HERE}")
            logger.info("{} takes the caller", uri)
            # Here, where nothing can come between: an unknown leg nobody would end.
            self.other, self._place = other, place
        finally:
            if not taken:
                place.release()
                await hang_up(other)

    async def _decided(self, other: SipLeg, briefing: str) -> bool:
        decision = Decision(briefing, self._words)
        call = self._consultation(other, briefing, decision.told, decision.pressed)
        decision.conversation = call.conversation

        async def talk() -> CallEnd:
            try:
                return await call.run()
            finally:
                decision.over()

        talking = asyncio.create_task(talk(), name=f"consultation {other.call_id}")
        try:
            with suppress(TimeoutError):
                return await asyncio.wait_for(asyncio.shield(decision.taken), DECIDE_S)
            return False
        finally:
            decision.over()
            await call.end("decided")
            await asyncio.gather(talking, return_exceptions=True)


class PhoneCall:
    """``LiveCall``: the bot's call with the caller, and then the caller's with whoever took them."""

    def __init__(self, call: LiveCall, leg: SipLeg, warm: WarmTransfer, longest_s: float) -> None:
        """``call``: on ``leg``. The two who are joined are parted ``longest_s`` after its start."""
        self._longest_s = longest_s
        self._call = call
        self._leg = leg
        self._warm = warm
        self._enough = asyncio.Event()

    async def run(self) -> CallEnd:
        """``LiveCall``: the bot's part of it is what it returns."""
        clock = asyncio.get_running_loop().time
        over = clock() + self._longest_s
        try:
            end = await self._call.run()
            if self._warm.other is not None:
                logger.info("joined with {}", self._warm.other.called)
                await self._join(self._warm.other, over - clock())
            return end
        finally:
            await self._warm.let_go()

    async def end(self, reason: str = "ended") -> None:
        """``LiveCall``. Two who are joined are left to finish when it is Parley that stops."""
        if reason != STOPPING:
            self._enough.set()
        await self._call.end(reason)

    async def _join(self, other: SipLeg, seconds: float) -> None:
        joined = asyncio.create_task(bridge(self._leg, other), name=f"bridge {self._leg.call_id}")
        enough = asyncio.create_task(self._enough.wait())
        try:
            done, _ = await asyncio.wait(
                {joined, enough}, timeout=max(seconds, 0), return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                logger.info("parted: the call has lasted for {:g} s", self._longest_s)
            if joined.done():
                joined.result()
        finally:
            joined.cancel()
            enough.cancel()
            await asyncio.gather(joined, enough, return_exceptions=True)
