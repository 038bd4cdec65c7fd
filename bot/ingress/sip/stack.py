"""baresip-python as Parley uses it: one stack, many lines. Lives in the worker process alone.

Its ways that this module is built around (0.5): one user agent for each transport, since a request that comes
by another is answered 404; ``answer(video=True)``, since without it every answer is followed by a re-INVITE
of its own (an audio offer is answered with audio all the same); an answer before the PRACK that is due is
refused and forgotten; refusing is 486 and nothing else (``refusal`` goes round that); audio is polled; what
happens to a call of ours while ``dial`` is still on its way back (a connection refused at once) is told to
nobody but those who listen to the whole stack.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Network
from typing import Any

from baresip.call import Call, CallState, TransferRequest
from baresip.config import Config
from baresip.errors import BaresipError
from baresip.events import Event, StackEvent
from baresip.runtime import Runtime
from baresip.ua import UserAgent
from loguru import logger

from bot.ingress.sip import messages as m
from bot.ingress.sip.account import account
from bot.ingress.sip.line import Line, Send
from bot.ingress.sip.media import admit
from bot.ingress.sip.referral import objection
from bot.ingress.sip.refusal import refuse
from bot.ingress.sip.registrar import Registrar
from bot.ingress.sip.registration import EXPIRES_S, Registration
from bot.ingress.sip.trust import attach, own_sockets

TICK_S = 0.01
# For as long as a phone rings we wait for word of who was sent on (RFC 3515, NOTIFY). Some never say any;
# their new call may be answered later all the same, and then ends the one with us.
REFERRED_S = 30.0
CLOSE_S = 1.0  # for goodbyes to go out


class StackError(Exception):
    """The stack cannot run as configured. The message says why and what to do."""


class Stack:
    """The SIP stack of this process and every call on it. ``handle`` takes orders, ``send`` gets the news."""

    def __init__(self, send: Send) -> None:
        """Nothing runs before ``start``."""
        self._send = send
        self._runtime = Runtime()
        self._agents: dict[str, UserAgent] = {}
        self._lines: dict[str, Line] = {}
        self._dialing: dict[str, bool] = {}  # calls of ours the stack has no name for yet: still wanted?
        self._tasks: set[asyncio.Task[None]] = set()
        self._referrals: list[str] = []
        self._trusted: list[str] = []
        self._media: list[IPv4Network] = []
        self._policy = "reject"
        self._registrar: Registrar | None = None
        self._registration: Registration | None = None
        self.died = asyncio.Event()

    async def start(self, wanted: m.Configure) -> m.Listening:
        """Listen. Raises ``StackError``."""
        self._runtime.on_dead = self.died.set  # type: ignore[assignment] # baresip's own hint is None
        self._referrals = wanted.referrals
        self._trusted = wanted.trusted
        self._media = [IPv4Network(network) for network in wanted.media]
        self._policy = "manual" if self._referrals else "reject"  # of the stack itself, for a REFER
        everywhere = wanted.host == "0.0.0.0"
        low, high = wanted.rtp_ports
        if wanted.registrar:
            self._registrar = Registrar.parse(wanted.registrar)
        transports = self._transports(wanted)
        config = Config(
            # Without an interface named, the stack finds them itself and leaves the loopback out.
            net_interface=None if everywhere else wanted.host,
            expose_headers=("To", *wanted.headers),
            max_concurrent_calls=None,  # the media process admits
            rtp_timeout=wanted.rtp_timeout_s,
            extra_config_text=f"sip_listen {wanted.host}:{wanted.port}\n"
            # Unsaid, it would listen for TLS too, on the port after ours, where nobody is kept out.
            f"sip_transports {','.join(transports)}\n"
            f"rtp_ports {low}-{high}\n"
            "audio_jitter_buffer_type adaptive\n"
            f"audio_jitter_buffer_ms {wanted.jitter_ms[0]}-{wanted.jitter_ms[1]}\n",
        )
        try:
            await self._runtime.start(config)
        except BaresipError as error:
            where = f"{wanted.host}:{wanted.port}"
            raise StackError(f"cannot listen on {where}: {error}; PARLEY_SIP__LISTEN chooses") from None
        networks = [IPv4Network(network) for network in wanted.trusted]
        # Before there is anybody to answer.
        if self._trust(wanted.port, networks) < len(transports):
            raise StackError(f"cannot listen on {wanted.host}:{wanted.port} for all transports")
        for transport in wanted.transports:
            us = account(
                wanted,
                "catchall=yes",  # whatever number was called
                user=wanted.caller_id or wanted.username or "parley",
                domain=wanted.host,
                reg_interval=0,
                transport=transport,
            )
            agent = await UserAgent.create(self._runtime, us, transfer_policy=self._policy)
            agent.on_incoming(self._incoming)
            self._agents[transport] = agent
        if self._registrar is not None:
            await self._be_extension(wanted, self._registrar, networks)
        return m.Listening(wanted.host, wanted.port)

    def _transports(self, wanted: m.Configure) -> list[str]:
        """What the stack is to speak: the registrar's, too, wherever else we are to be called."""
        registrar = [self._registrar.transport] if self._registrar is not None else []
        return list(dict.fromkeys([*wanted.transports, *registrar]))

    async def _be_extension(
        self, wanted: m.Configure, registrar: Registrar, networks: list[IPv4Network]
    ) -> None:
        us = account(
            wanted,
            user=wanted.username,
            domain=registrar.domain,
            reg_interval=EXPIRES_S,
            transport=registrar.transport,
        )
        agent = await UserAgent.create(self._runtime, us, transfer_policy=self._policy)
        agent.on_incoming(self._incoming)
        self._agents[registrar.domain] = agent
        self._registration = Registration(
            agent, registrar, lambda found: self._trust(wanted.port, [*networks, *found]), self._send
        )

    def _trust(self, port: int, networks: list[IPv4Network]) -> int:
        """Let only these reach the listening sockets. How many there are."""
        sockets = 0
        for found in own_sockets(port):
            attach(found, networks)
            sockets += 1
        return sockets

    async def stay_registered(self) -> None:
        """Where we are an extension, until cancelled."""
        if self._registration is not None:
            await self._registration.run()
        await asyncio.Future()

    async def run(self) -> None:
        """Move audio until cancelled."""
        due = time.monotonic()
        while True:
            due = max(due + TICK_S, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            for line in list(self._lines.values()):
                self._move(line, partial(line.tick, due))

    def _move(self, line: Line, move: Callable[[], None]) -> None:
        try:
            move()
        except Exception:  # its own fault, and the end of no other call
            logger.exception("{}: fault in moving audio", line.call_id)
            self._do(line.call_id, line.call.hangup())
            self._closed(line.call_id, "internal error", _quality(line, line.call))

    async def beat(self) -> None:
        """Say again and again that all is well; ends by ``BaresipError`` when it is not."""
        while True:
            await self._runtime.set_sip_trace(False)  # the cheapest order that its thread has to answer
            self._send(m.Alive())
            await asyncio.sleep(m.ALIVE_EVERY_S)

    async def close(self) -> None:
        """Hang up every call and stop the stack."""
        for task in list(self._tasks):
            task.cancel()
        for call_id in list(self._lines):
            self.handle(m.HangUp(call_id))
        if self._lines:
            await asyncio.sleep(CLOSE_S)
        if self._registration is not None:
            await self._registration.leave()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._runtime.close()

    # --- orders --------------------------------------------------------------------------------------------

    def handle(self, order: m.ToWorker) -> None:
        """Do it; what comes of it is told later. Orders for a call that is gone are late, not wrong."""
        if isinstance(order, m.Dial):
            self._dialing[order.call] = True
            self._do(order.call, self._dial(order))
            return
        assert not isinstance(order, m.Configure)
        line = self._lines.get(order.call)
        if line is None:
            if isinstance(order, m.HangUp) and order.call in self._dialing:
                self._dialing[order.call] = False
            if isinstance(order, m.Hold | m.SendDigits | m.Transfer):
                self._send(m.Outcome(order.call, order.number, "the call is over"))
            return
        call = line.call
        match order:
            case m.Speak():
                self._move(line, partial(line.speak, order.pcm))
            case m.Answer():
                self._do(order.call, _answer(call))
            case m.Reject():
                # Not by the binding's own order if it can be helped, which knows 486 alone.
                if not refuse(call.call_id or "", call.peer or "", order.status, order.retry_after_s):
                    self._do(order.call, call.reject())
            case m.HangUp():
                if line.next is not None:
                    self._do(order.call, line.next.hangup())
                self._do(order.call, call.hangup())
            case m.Hold():
                self._ask(order, call.hold() if order.on else call.resume())
            case m.SendDigits():
                self._ask(order, call.send_dtmf(order.digits))
            case m.Transfer():
                self._ask(order, call.transfer(order.uri, timeout=REFERRED_S))

    async def _dial(self, order: m.Dial) -> None:
        transport = "tcp" if "transport=tcp" in order.uri.lower() else "udp"
        if self._registrar is not None and self._registrar.names(order.uri):
            transport = self._registrar.domain  # as its extension
        agent = self._agents.get(transport)
        missed: list[StackEvent] = []  # what happens before there is a call to listen to
        hear = missed.append
        self._runtime.subscribe(hear)
        try:
            if agent is None:
                raise ValueError(f"{transport} is not among the transports")
            call = await agent.dial(order.uri, headers=order.headers)
        except (BaresipError, ValueError) as error:
            self._send(m.Closed(order.call, str(error)))
            return
        finally:
            self._runtime.unsubscribe(hear)
            wanted = self._dialing.pop(order.call)
        self._watch(order.call, call, order.early)
        for event in missed:
            call._on_stack_event(event)  # its state, too, is made of these; of other calls' it takes none
        if not wanted:
            await call.hangup()

    def _do(self, call_id: str, work: Coroutine[Any, Any, None]) -> None:
        """Beside the rest; a fault in it is this call's alone."""

        async def done() -> None:
            try:
                await work
            except BaresipError as error:  # most often: the far end was quicker
                logger.debug("{}: {}", call_id, error)
            except Exception:
                logger.exception("{}: fault in the phone's worker", call_id)
                self._closed(call_id, "internal error", m.Quality())

        self._spawn(done())

    def _ask(self, order: m.Hold | m.SendDigits | m.Transfer, work: Coroutine[Any, Any, None]) -> None:
        async def asked() -> None:
            try:
                await work
            except (BaresipError, ValueError) as error:
                self._send(m.Outcome(order.call, order.number, str(error)))
            else:
                self._send(m.Outcome(order.call, order.number))

        self._spawn(asked())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- news ----------------------------------------------------------------------------------------------

    def _incoming(self, call: Call) -> None:
        call_id = uuid.uuid4().hex
        self._watch(call_id, call)
        headers = dict(call.headers)
        called = headers.pop("To", "")
        self._send(m.Incoming(call_id, call.peer or "", called, call.call_id or "", headers))

    def _watch(self, call_id: str, call: Call, early: bool = False) -> None:
        line = self._lines[call_id] = Line(call_id, call, self._send)

        line.wants_early = early
        self._listen(line, call)
        if call.call_id:  # it was called, and SDP may have come already
            self._hear_only_it(line, call)

    def _listen(self, line: Line, call: Call) -> None:
        call.on(lambda event: self._happened(line, call, event))
        call.on_transfer_request(lambda request: self._do(line.call_id, self._referred(line, call, request)))

    def _happened(self, line: Line, call: Call, event: StackEvent) -> None:
        """On ``call``, the line's own or the one that it may go on with."""
        call_id = line.call_id
        if event.event in (Event.CALL_LOCAL_SDP, Event.CALL_REMOTE_SDP):
            self._hear_only_it(line, call)
        if call is line.next:
            if event.event is Event.CALL_ESTABLISHED:
                logger.info("{}: goes on with {}", call_id, call.peer)
                line.go_on()
            elif event.event is Event.CALL_CLOSED:
                line.next = None
                if line.call.state is CallState.CLOSED:
                    self._closed(call_id, event.text or "", _quality(line, call))
            return
        if call is not line.call:
            return  # the last word of who sent us on
        match event.event:
            case Event.CALL_RINGING | Event.CALL_PROGRESS:
                line.early |= line.wants_early and event.event is Event.CALL_PROGRESS
                self._send(m.Ringing(call_id))
            case Event.CALL_ESTABLISHED:
                self._send(m.Established(call_id))
            case Event.CALL_HOLD | Event.CALL_RESUME:
                on = event.event is Event.CALL_HOLD
                line.held(on)
                self._send(m.Held(call_id, on))
            case Event.CALL_DTMF_START if event.text:
                # Not its end, which the stack tells of the last alone when they come quickly by INFO.
                self._send(m.Digit(call_id, event.text))
            case Event.CALL_CLOSED if line.next is None:
                self._closed(call_id, event.text or "", _quality(line, call))

    def _hear_only_it(self, line: Line, call: Call) -> None:
        """Nobody but who is called, or calls, is to speak or press keys in a call."""
        heard = admit(call.call_id or "", self._media)
        if heard is None:
            logger.warning("{}: sound is let in from everybody: this stack cannot be asked", line.call_id)
        else:
            logger.debug("{}: heard from {}", line.call_id, ", ".join(map(str, heard)) or "nowhere yet")

    async def _referred(self, line: Line, call: Call, request: TransferRequest) -> None:
        registrar = self._registrar.host if self._registrar is not None else ""
        why_not = objection(request, self._referrals, self._trusted, registrar)
        if why_not or line.next is not None:
            logger.info("{}: is not sent to {}: {}", line.call_id, request.target, why_not or "one at a time")
            if self._referrals:  # else the stack has refused it
                await call.reject_transfer()
            return
        logger.info("{}: is sent to {}", line.call_id, request.target)
        line.next = await call.accept_transfer()
        self._listen(line, line.next)

    def _closed(self, call_id: str, reason: str, quality: m.Quality) -> None:
        if self._lines.pop(call_id, None) is not None:
            self._send(m.Closed(call_id, reason, quality))


async def _answer(call: Call) -> None:
    """As soon as may be: not before the caller has acknowledged that it rings, if they were to (RFC 3262)."""
    while True:
        try:
            await call.answer(video=True)
            return
        except BaresipError as error:
            if not str(error).endswith(os.strerror(errno.EAGAIN)):
                raise
        await asyncio.sleep(TICK_S)


def _quality(line: Line, call: Call) -> m.Quality:
    """``call`` is the line's own or the one it was to go on with."""
    if call.final_stats is None:
        return m.Quality(concealed_frames=line.concealed)
    # What RTCP says was lost is as old as its last report, and there may have been none.
    lost = max(call.final_stats.rx_lost, call.final_stats.jbuf_lost or 0)
    stats = replace(call.final_stats, rx_lost=lost)
    return m.Quality(
        sent_packets=stats.tx_packets,
        received_packets=stats.rx_packets,
        lost_packets=stats.rx_lost,
        jitter_ms=stats.rx_jitter_ms,
        concealed_frames=line.concealed,
        late_packets=stats.jbuf_late or 0,
        buffer_ms=stats.jbuf_delay_ms or 0,
        mos=stats.mos_estimate,
    )
