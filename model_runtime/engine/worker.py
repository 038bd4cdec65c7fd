"""The one thread that owns the sessions and the language model:

it takes messages, does one unit of work, and looks at its messages again. Speech is rendered on a second
thread (``beside``), whose results come back as messages too.

The event loop never waits for the model and the model never waits for the network. Between two units every
message that has arrived is taken, so a cancel is obeyed within one unit.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import nullcontext
from typing import Any, NamedTuple, Protocol

import torch

from model_runtime.engine import scheduler
from model_runtime.engine.beside import Beside, own_stream
from model_runtime.engine.figures import Figures
from model_runtime.engine.job import Job, Purpose
from model_runtime.engine.kit import NO_NUMBERS, Kit
from model_runtime.engine.ops import Decode, Hear, Op, Prefill, Vocode
from model_runtime.engine.refusal import Refusal
from model_runtime.engine.session import Session
from model_runtime.protocol import ClientMessage, EngineMessage, Error, Open
from model_runtime.thinking.sampling import NOTHING

log = logging.getLogger(__name__)


class Port(Protocol):
    """The other end of a session, as the worker sees it: everything here is called from its thread."""

    @property
    def stalled(self) -> bool:
        """Whether the client leaves so much unread that nothing more should be made for it."""

    def deliver(self, message: EngineMessage) -> None:
        """Send ``message`` when there is time."""

    def finish(self) -> None:
        """The session is over and its memory free: send what is left, then close."""


class Piece(NamedTuple):
    """One unit of work that can be done now."""

    port: Port
    session: Session
    job: Job


def _drawn(id: int) -> Callable[[Op], int]:
    """How a decode step is finished that was done with others'."""

    def result(_: Op) -> int:
        if id == NOTHING:
            raise ArithmeticError(NO_NUMBERS)
        return id

    return result


def _together(one: Op, other: Op | None) -> bool:
    """Whether both can be done in one step."""
    match one, other:
        case Decode(), Decode():
            return True
        case Vocode(), Vocode():
            return one.shape == other.shape
        case _:
            return False


class Worker:
    """``load`` makes the kit, on the worker's thread.

    ``ready`` has the kit once it is loaded, or why it is not.
    """

    def __init__(self, load: Callable[[], Kit], clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing runs before ``start``."""
        self.ready: Future[Kit] = Future()
        self.ended: Future[None] = Future()  # with the fault that ended it, if one did
        self._load = load
        self._clock = clock
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._sessions: dict[Port, Session] = {}
        self._served = 0
        self._reads = 0  # callers heard or read since the last step of decoding
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    # --- called from any thread ---

    def start(self) -> None:
        """Begin to load."""
        self._thread.start()

    def open(self, port: Port, message: Open) -> None:
        """A new session for ``port``. Ends with ``port.finish`` in every case."""
        self._inbox.put(lambda: self._open(port, message))

    def message(self, port: Port, message: ClientMessage) -> None:
        """A message for ``port``'s session; forgotten if it has none."""
        self._inbox.put(lambda: self._message(port, message))

    def leave(self, port: Port) -> None:
        """``port``'s client has gone: free its session."""
        self._inbox.put(lambda: self._release(port))

    def wake(self) -> None:
        """Something outside has changed (a port reads again): look again at what can be done."""
        self._inbox.put(lambda: None)

    def figures(self) -> Future[Figures]:
        """What is known now of where its time and memory go; told between two units of work."""
        told: Future[Figures] = Future()

        def tell() -> None:
            if not told.set_running_or_notify_cancel():
                return  # whoever asked has gone
            try:
                told.set_result(self._kit.measures.told())
            except Exception as fault:  # told to whoever asked: no call shall suffer
                told.set_exception(fault)

        self._inbox.put(tell)
        return told

    @property
    def backlog(self) -> int:
        """Messages not yet taken."""
        return self._inbox.qsize()

    def stop(self) -> None:
        """Free everything and end the thread, after the unit of work it is in. ``ended`` tells when."""
        self._inbox.put(None)

    # --- the thread ---

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                kit = self._load()
                self._kit = kit
                own_stream(kit.model.device, urgent=True)
                self._beside = Beside(kit)
                kit.expect = self._beside.expect
                self.ready.set_result(kit)
                try:
                    self._serve()
                finally:
                    self._beside.stop()
            self.ended.set_result(None)
        except BaseException as error:
            # Whoever waits for the worker must learn of its end, whatever ended it.
            waiting = self.ended if self.ready.done() else self.ready
            waiting.set_exception(error)

    def _serve(self) -> None:
        while True:
            idle = next(self._candidates(), None) is None
            with self._kit.measures.waiting() if idle else nullcontext():
                if not self._take(wait=idle):
                    break
            # What is done is chosen after messages are taken: they may have changed what there is to do.
            if pieces := self._next():
                with self._kit.measures.unit([piece.job.op for piece in pieces]):
                    self._work(pieces)
        for port in list(self._sessions):
            self._release(port)

    def _take(self, wait: bool) -> bool:
        """Take every message there is, after waiting for one if ``wait``. False: the worker is to stop."""
        try:
            command = self._inbox.get(block=wait)
            while True:
                if command is None:
                    return False
                command()
                command = self._inbox.get_nowait()
        except queue.Empty:
            return True

    def _next(self) -> list[Piece]:
        """What is to be done now, in one step; empty if there is nothing."""
        candidates = [one.work for one in scheduler.ordered(self._candidates())]
        return self._company(self._choose(candidates), candidates) if candidates else []

    def _choose(self, candidates: list[Piece]) -> Piece:
        """Of ``candidates``, the most urgent first. See ``scheduler`` for the two exceptions."""
        for piece in candidates:
            if piece.job.op is None or isinstance(piece.job.op, Vocode):
                return piece
        if self._reads < scheduler.READS:
            for piece in candidates:
                if isinstance(piece.job.op, Hear | Prefill):
                    return piece if self._kit.pace.spare(self._clock()) > 0 else candidates[0]
        return candidates[0]

    def _candidates(self) -> Iterator[scheduler.Candidate[Piece]]:
        now = self._clock()
        for port, session in self._sessions.items():
            if not port.stalled:
                for job, due in session.waiting(now):
                    if not job.away and not (self._beside.busy and isinstance(job.op, Vocode)):
                        piece = Piece(port, session, job)
                        yield scheduler.Candidate(piece, due, job.since, session.served)

    def _company(self, chosen: Piece, candidates: list[Piece]) -> list[Piece]:
        """The chosen piece, and those that can be done in one step with it, the most urgent first.

        Decoding one id goes with decoding one, and rendering a chunk with rendering another of its shape: one
        of another shape would be a pass of its own, and whoever's sound is due would wait for it.
        """
        match chosen.job.op:
            case Decode():
                most = self._kit.decode_batch
            case Vocode():
                most = self._kit.speech_batch
            case _:
                return [chosen]
        if most == 1:
            return [chosen]
        others = [
            piece
            for piece in candidates
            if piece.job is not chosen.job and _together(chosen.job.op, piece.job.op)
        ]
        return [chosen, *others[: most - 1]]

    def _work(self, pieces: list[Piece]) -> None:
        """One unit of work, for one session or one for each of several."""
        if isinstance(pieces[0].job.op, Vocode):
            self._render(pieces)
            return
        pace, op, begun = self._kit.pace, pieces[0].job.op, self._clock()
        responses = any(piece.job.purpose is Purpose.RESPONSE for piece in pieces)
        if responses:
            pace.begin(begun)
        ids = self._decode(pieces) if len(pieces) > 1 else None
        for at, piece in enumerate(pieces):
            self._step(piece, self._kit.execute if ids is None else _drawn(ids[at]))
        now = self._clock()
        if responses:
            pace.end(now)
        if isinstance(op, Decode):
            self._reads = 0
            pace.took("step", now - begun)
        elif isinstance(op, Hear | Prefill):
            self._reads += 1
            pace.took("read", now - begun)

    def _render(self, pieces: list[Piece]) -> None:
        """Have speech rendered beside; the jobs go on when their sound is there, if still wanted then."""
        chunks = [piece.job.op for piece in pieces if isinstance(piece.job.op, Vocode)]
        begun = self._clock()

        def rendered(sounds: list[Future[Any]]) -> None:
            self._inbox.put(lambda: self._rendered(pieces, chunks, sounds, begun))

        for piece in pieces:
            piece.job.away = True
        self._kit.pace.begin(begun)
        self._beside.begin(chunks, rendered)

    def _rendered(
        self, pieces: list[Piece], chunks: list[Vocode], sounds: list[Future[Any]], begun: float
    ) -> None:
        self._beside.busy = False
        now = self._clock()
        self._kit.pace.end(now)
        self._kit.pace.took("pass", now - begun)
        for piece, chunk, sound in zip(pieces, chunks, sounds, strict=True):
            piece.job.away = False
            if piece.job.op is chunk:  # else it was closed meanwhile
                self._step(piece, lambda _, sound=sound: sound.result())  # type: ignore[misc] # sound is bound

    def _decode(self, pieces: list[Piece]) -> list[int] | None:
        """The ids of a step of several sessions; ``None`` if it failed, and each is to be tried alone."""
        try:
            return self._kit.decode_each(
                [piece.job.op for piece in pieces if isinstance(piece.job.op, Decode)]
            )
        except Exception:  # whoever's fault it is, the others shall not suffer: no cache has moved on
            log.exception("fault in a step of %d sessions: each goes on alone", len(pieces))
            return None

    def _step(self, piece: Piece, execute: Callable[[Op], Any]) -> None:
        """One unit of one session. A fault in it is that session's alone."""
        session, job = piece.session, piece.job
        self._served += 1
        session.served = self._served
        try:
            job.step(execute)
            session.stepped(job)
        except Refusal as refusal:
            session.abandon(job, refusal.error)
        except Exception as error:
            log.exception("fault call_id=%r turn=%d purpose=%s", session.call_id, job.turn, job.purpose.value)
            message = f"The engine failed on this turn ({type(error).__name__})."
            session.abandon(job, Error(code="internal", message=message, turn=job.turn))

    # --- messages ---

    def _open(self, port: Port, message: Open) -> None:
        try:
            self._sessions[port] = Session(self._kit, message, port.deliver, self._clock)
            log.info("opened call_id=%r sessions=%d", message.call_id, len(self._sessions))
        except Refusal as refusal:
            log.info("refused call_id=%r code=%s", message.call_id, refusal.error.code)
            port.deliver(refusal.error)
            port.finish()
        except Exception:
            log.exception("fault at opening call_id=%r", message.call_id)
            port.deliver(Error(code="internal", message="The engine failed to open the session.", fatal=True))
            port.finish()

    def _message(self, port: Port, message: ClientMessage) -> None:
        session = self._sessions.get(port)
        if session is None:
            return
        try:
            session.handle(message)
        except Refusal as refusal:
            log.info("refused call_id=%r code=%s: %s", session.call_id, refusal.error.code, refusal)
            port.deliver(refusal.error)
            session.ended = session.ended or refusal.error.fatal
        except Exception:
            log.exception("fault call_id=%r at %s", session.call_id, type(message).__name__)
            port.deliver(Error(code="internal", message="The engine failed on a message.", fatal=True))
            session.ended = True
        if session.ended:
            self._release(port)

    def _release(self, port: Port) -> None:
        session = self._sessions.pop(port, None)
        if session is not None:
            try:
                session.close()
            finally:
                log.info("closed call_id=%r sessions=%d", session.call_id, len(self._sessions))
                port.finish()
