"""The media process's end of the phone: keeps the worker alive, and has a leg for every call in it."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Literal

import msgspec
from loguru import logger

from bot.child_process import die_with_parent, ending, stop
from bot.ingress.sip import messages as m
from bot.ingress.sip.destinations import NotCallable, check_heard, parsed
from bot.ingress.sip.gathering import Gathering
from bot.ingress.sip.leg import LegEnd, LegError, LegEvent

FIRST_PAUSE_S = 0.2  # before the first restart; doubled at each one that follows soon
LONGEST_PAUSE_S = 30.0
STEADY_S = 60.0  # a worker that ran this long was well: the next restart is quick again
START_S = 60.0  # for a worker's first word: it starts in 1 to 10 s, and later where there is much else to do
MUTE_S = 20.0  # one not heard of any more for so long never will be
OUTCOME_S = 35.0  # for the far end to do as asked; the worker itself gives a transfer ``stack.REFERRED_S``

_STATUS = re.compile(r"([3-6]\d\d)\b")


class WorkerLeg:
    """A call in the worker: see ``leg.SipLeg``."""

    def __init__(
        self,
        call_id: str,
        send: Callable[[m.ToWorker], None],
        incoming: m.Incoming | None,
        dial: Callable[[str], WorkerLeg],
    ) -> None:
        """``incoming`` is None for a call of ours; ``dial`` places another one."""
        self.call_id = call_id
        self.peer = incoming.caller if incoming else ""
        self.called = incoming.called if incoming else ""
        self.headers: Mapping[str, str] = incoming.headers if incoming else {}
        self.sip_call_id = incoming.sip_call_id if incoming else ""
        self._incoming = incoming is not None
        self._send = send
        self._dial = dial
        self._events: asyncio.Queue[LegEvent] = asyncio.Queue()
        self._room = asyncio.Semaphore(m.WINDOW)
        self._taken = 0
        self._established = asyncio.Event()
        self._end: asyncio.Future[LegEnd] = asyncio.get_running_loop().create_future()
        self._asked: dict[int, asyncio.Future[str]] = {}
        self._number = 0
        self._sent_on = False  # a transfer is under way

    # --- what others want of it ----------------------------------------------------------------------------

    async def events(self) -> AsyncGenerator[LegEvent, None]:
        """``SipLeg``."""
        while True:
            event = await self._events.get()
            yield event
            if isinstance(event, m.Closed):
                return

    def put_back(self, events: Sequence[LegEvent]) -> None:
        """Let the next reader of ``events`` read these first; the one before is done."""
        later = [self._events.get_nowait() for _ in range(self._events.qsize())]
        for event in (*events, *later):
            self._events.put_nowait(event)

    async def ended(self) -> LegEnd:
        """``SipLeg``."""
        return await asyncio.shield(self._end)

    async def established(self) -> bool:
        """``SipLeg``."""
        answered = asyncio.create_task(self._established.wait())
        over = asyncio.create_task(self.ended())
        try:
            await asyncio.wait([answered, over], return_when=asyncio.FIRST_COMPLETED)
        finally:
            answered.cancel()
            over.cancel()
            await asyncio.gather(answered, over, return_exceptions=True)
        return self._established.is_set()

    def dial(self, uri: str) -> WorkerLeg:
        """``SipLeg``."""
        return self._dial(uri)

    def answer(self) -> None:
        """``SipLeg``. A call of ours is not ours to answer."""
        if self._incoming and not self._end.done():
            self._send(m.Answer(self.call_id))

    def reject(self, status: Literal[486, 503] = 486, retry_after_s: int = 10) -> None:
        """``SipLeg``."""
        self._send(m.Reject(self.call_id, status, retry_after_s))

    def hang_up(self) -> None:
        """``SipLeg``."""
        if not self._end.done():
            self._send(m.HangUp(self.call_id))

    async def speak(self, pcm: bytes) -> bool:
        """``SipLeg``."""
        if not self._end.done():
            await self._room.acquire()
        if self._end.done():
            return False
        self._send(m.Speak(self.call_id, pcm))
        return True

    async def hold(self, on: bool) -> None:
        """``SipLeg``."""
        await self._ask(lambda number: m.Hold(self.call_id, number, on))

    async def press(self, digits: str) -> None:
        """``SipLeg``."""
        await self._ask(lambda number: m.SendDigits(self.call_id, number, digits))

    async def transfer(self, uri: str) -> None:
        """``SipLeg``."""
        self._sent_on = True
        try:
            await self._ask(lambda number: m.Transfer(self.call_id, number, uri))
        finally:
            self._sent_on = False

    async def _ask(self, order: Callable[[int], m.ToWorker]) -> None:
        if self._end.done():
            raise LegError("the call is over")
        self._number += 1
        number = self._number
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(order(number))
            error = await asyncio.wait_for(answer, OUTCOME_S)
        except TimeoutError:
            raise LegError(f"nothing came of it within {OUTCOME_S:.0f} s") from None
        finally:
            del self._asked[number]
        if error:
            raise LegError(error)

    # --- what the worker tells -----------------------------------------------------------------------------

    def happened(self, message: m.CallNews) -> None:
        """The worker's next word on this call."""
        match message:
            case m.Outcome(number=number, error=error):
                answer = self._asked.get(number)
                if answer is not None and not answer.done():
                    answer.set_result(error)
                return
            case m.Heard(taken=taken):
                for _ in range(self._taken, taken):
                    self._room.release()
                self._taken = taken
            case m.Established():
                self._established.set()
            case m.Closed(reason=reason, quality=quality):
                self._over(LegEnd(self._why(reason), reason, quality))
        self._events.put_nowait(message)

    def lost(self) -> None:
        """The worker is gone, and this call with it."""
        if not self._end.done():
            self._over(LegEnd("worker-died", "the phone's worker died", m.Quality()))
            self._events.put_nowait(m.Closed(self.call_id, "the phone's worker died"))

    def _over(self, end: LegEnd) -> None:
        self._end.set_result(end)
        self._room.release()  # for whoever waits to speak
        for answer in self._asked.values():
            if not answer.done():
                answer.set_result(
                    "" if end.reason == "transferred" else f"the call is over: {end.detail or 'hung up'}"
                )

    def _why(self, reason: str) -> str:
        """The stack's close reasons, in our words."""
        if reason == "rtp stream error":
            return "rtp-timeout"
        if reason == "Call transfered":  # the stack's spelling
            return "transferred"
        if self._sent_on:
            return "transferred"  # some go where they are sent, and never say so
        if self._incoming or self._established.is_set():
            return "hung-up"
        status = _STATUS.match(reason)
        return f"refused:{status[1]}" if status else "failed"


class Phone:
    """The worker under supervision: ``run`` keeps one alive until cancelled, and leaves none behind."""

    def __init__(
        self, configure: m.Configure, on_incoming: Callable[[WorkerLeg], None], log_level: str = "INFO"
    ) -> None:
        """``on_incoming`` is told of each call that comes in, while it rings; it must not wait."""
        self.listening: m.Listening | None = None  # None: no worker is ready
        self.reason = "The phone is being started."  # why not
        self.registered: m.Registered | None = None  # at a PBX; None: nothing is known, or none is wanted
        self.pid: int | None = None
        self.ready = asyncio.Event()  # set while it listens
        self._configure = configure
        self._on_incoming = on_incoming
        self._log_level = log_level
        self._legs: dict[str, WorkerLeg] = {}
        self._worker: Gathering | None = None

    def dial(
        self, uri: str, headers: Mapping[str, str] | None = None, *, early: bool = False, call_id: str = ""
    ) -> WorkerLeg:
        """Call ``uri``, with ``headers`` in the INVITE; ``early``: and hear what comes before the answer.

        ``call_id``: made up if empty. Raises ``LegError`` while there is no worker, and for a ``uri`` that is
        none, or whose answers would not be let in.
        """
        if self.listening is None:
            raise LegError(self.reason)
        try:
            check_heard(parsed(uri), self._configure.trusted, self._configure.registrar)
        except NotCallable as error:
            raise LegError(str(error)) from None
        leg = self._leg(call_id or uuid.uuid4().hex, None)
        leg.peer = leg.called = uri
        self._send(m.Dial(leg.call_id, uri, dict(headers or {}), early))
        return leg

    async def run(self) -> None:
        """Start the worker, and start it again whenever it ends."""
        pause = FIRST_PAUSE_S
        while True:
            born = time.monotonic()
            code = await self._live_once()
            if time.monotonic() - born > STEADY_S:
                pause = FIRST_PAUSE_S
            logger.error("the phone's worker ended ({}); starting another in {:g} s", ending(code), pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    async def _live_once(self) -> int | None:
        ours, theirs = socket.socketpair()
        with theirs:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "bot.ingress.sip.worker",
                str(theirs.fileno()),
                self._log_level,
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self.pid = child.pid
        ended = asyncio.create_task(child.wait())
        writer = None
        try:
            reader, writer = await asyncio.open_unix_connection(sock=ours)
            self._worker = Gathering(writer)
            self._send(self._configure)
            await self._listen(reader)
            await asyncio.wait({ended}, timeout=1.0)
            return ended.result() if ended.done() else None
        finally:
            self._now(None, self.reason if self.listening is None else "The phone is being started again.")
            self._worker = self.pid = self.registered = None
            for leg in list(self._legs.values()):
                leg.lost()
            self._legs.clear()
            await stop(child, ended)
            if writer is None:
                ours.close()
            else:
                writer.close()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Until the worker is gone, or has been mute for so long that it never will speak again."""
        deframer, clock, limit_s = m.Deframer(), asyncio.get_running_loop().time, START_S
        try:
            async with asyncio.timeout(limit_s) as patience:
                while data := await reader.read(1 << 16):
                    limit_s = MUTE_S
                    patience.reschedule(clock() + limit_s)
                    for body in deframer.feed(data):
                        self._said(m.from_worker.decode(body))
        except (m.BadFrame, msgspec.DecodeError) as error:
            logger.error("the phone's worker does not speak our protocol: {}", error)
        except TimeoutError:
            logger.error("the phone's worker has not been heard of for {:g} s", limit_s)
        except ConnectionError:
            pass

    def _said(self, message: m.FromWorker) -> None:
        match message:
            case m.Listening(host, port):
                logger.info("phone: answers sip:{}:{}", host, port)
                self._now(message, "")
            case m.Failed(reason):
                logger.error("phone: {}", reason)
                self._now(None, reason)
            case m.Alive():
                pass
            case m.Registered(registrar, fault):
                self.registered = message
                if fault:
                    logger.error("phone: not registered at {}: {}", registrar, fault)
                else:
                    logger.info("phone: registered at {}", registrar)
            case m.Incoming():
                self._on_incoming(self._leg(message.call, message))
            case _:
                leg = self._legs.get(message.call)
                if leg is not None:
                    leg.happened(message)
                    if isinstance(message, m.Closed):
                        del self._legs[message.call]

    def _leg(self, call_id: str, incoming: m.Incoming | None) -> WorkerLeg:
        leg = self._legs[call_id] = WorkerLeg(call_id, self._send, incoming, self.dial)
        return leg

    def _now(self, listening: m.Listening | None, reason: str) -> None:
        self.listening, self.reason = listening, reason
        if listening is None:
            self.ready.clear()
        else:
            self.ready.set()

    def _send(self, message: m.ToWorker) -> None:
        """Never waits. To a worker that is gone, nothing: its legs are about to be told."""
        if self._worker is not None:
            self._worker.say(message)
