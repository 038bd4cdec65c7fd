"""Callers by phone: who is let in, and the life of each call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from loguru import logger

from bot.calls import Calls, Refused
from bot.ingress.sip import messages as m
from bot.ingress.sip.leg import LegEnd, SipLeg
from bot.ingress.sip.phone import Phone, WorkerLeg
from bot.ingress.sip.settings import SipSettings
from bot.routing import EDGE
from pipeline.call import STOPPING, CallEnd

GOODBYE_S = 3.0  # for a leg to end after it was hung up; its worker is not waited for longer


def configuration(settings: SipSettings, listen: str = "", trusted: Sequence[str] = ()) -> m.Configure:
    """What the worker is told; ``listen`` and ``trusted``: other than the settings say."""
    host, _, port = (listen or settings.listen).rpartition(":")
    return m.Configure(
        host=host,
        port=int(port),
        transports=list(settings.transports),
        trusted=list(trusted or settings.networks),
        codecs=list(settings.codecs),
        rtp_ports=settings.rtp_ports,
        jitter_ms=settings.jitter_ms,
        rtp_timeout_s=settings.rtp_timeout_s,
        media=list(settings.media),
        headers=[*EDGE, *settings.headers],
        username=settings.username,
        password=settings.password.get_secret_value(),
        auth_username=settings.auth_username,
        caller_id=settings.caller_id,
        caller_name=settings.caller_name,
        referrals=list(settings.referrals),
        registrar="" if listen else settings.registrar,  # nobody else is our extension
    )


class LiveCall(Protocol):
    """What the ingress needs of a call."""

    async def run(self) -> CallEnd:
        """Be the call, from its first frame to its last."""

    async def end(self, reason: str = "ended") -> None:
        """Finish soon; the first reason counts."""


MakePhoneCall = Callable[[SipLeg], LiveCall]
"""Builds a call on a leg, not yet running."""


class SipIngress:
    """Takes the phone's calls. ``run`` is the phone itself."""

    def __init__(
        self,
        settings: SipSettings,
        calls: Calls,
        make_call: MakePhoneCall,
        ready: Callable[[], bool],
        log_level: str = "INFO",
    ) -> None:
        """``ready``: whether a call could be answered now."""
        self.phone = Phone(configuration(settings), self._incoming, log_level)
        self._ring_s = settings.ring_s
        self._registrar = settings.registrar
        self._calls = calls
        self._make_call = make_call
        self._ready = ready

    @property
    def trouble(self) -> str:
        """Why nobody can call, for a person; empty: they can."""
        phone = self.phone
        if phone.listening is None:
            return phone.reason
        if self._registrar and phone.registered is None:
            return f"It is being registered at {self._registrar}."
        if phone.registered is not None and phone.registered.fault:
            return f"It is not registered at {phone.registered.registrar}: {phone.registered.fault}"
        return ""

    async def run(self) -> None:
        """Until cancelled; then every leg is hung up."""
        await self.phone.run()

    def _incoming(self, leg: WorkerLeg) -> None:
        try:
            if not self._ready():
                raise Refused("engine_not_ready", "The speech model is not ready.", retry_s=2)
            place = self._calls.admit()
        except Refused as refused:
            logger.info("phone: {} is refused: {}", leg.peer, refused)
            leg.reject(486 if refused.code == "full" else 503, refused.retry_s)
            return
        caller = _Caller(leg, self._make_call, self._ring_s)
        self._calls.start(place, leg.call_id, caller.run, caller.end)


class _Caller:
    """One incoming call, from its first ring."""

    def __init__(self, leg: WorkerLeg, make_call: MakePhoneCall, ring_s: float) -> None:
        self._leg = leg
        self._make_call = make_call
        self._ring_s = ring_s
        self._call: LiveCall | None = None

    async def run(self) -> None:
        leg = self._leg
        logger.info(
            "phone: {} calls{} (Call-ID {})", leg.peer, f" {leg.called}" * bool(leg.called), leg.sip_call_id
        )
        try:
            with suppress(TimeoutError):
                end = await asyncio.wait_for(leg.ended(), self._ring_s)
                logger.info("gave up ringing: {}", end.detail)
                return
            self._call = self._make_call(leg)
            await talk(leg, self._call)
        finally:
            leg.hang_up()

    async def end(self) -> None:
        if self._call is None:
            self._leg.hang_up()
        else:
            await self._call.end(STOPPING)


async def talk(leg: SipLeg, call: LiveCall) -> CallEnd:
    """Run ``call`` on ``leg`` until either is over; then both are."""

    async def end_with_leg() -> None:
        await call.end((await leg.ended()).reason)

    watching = asyncio.create_task(end_with_leg())
    try:
        end = await call.run()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        left = await hang_up(leg)
    said = f"; the line: {left.detail or 'no word'}, {left.quality}" if left else ""
    logger.info("call ended: {} after {:.1f} s{}", end.reason, end.seconds, said)
    return end


async def hang_up(leg: SipLeg) -> LegEnd | None:
    """End ``leg`` if it is not over. None: its worker does not say that it is."""
    leg.hang_up()
    try:
        return await asyncio.wait_for(leg.ended(), GOODBYE_S)
    except TimeoutError:
        return None
