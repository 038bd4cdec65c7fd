"""One call as the engine sees it:

its settled history, the one response in the making, and the rules between them.

Everything here runs on the model's thread and touches no socket: messages come in by ``handle``, go out by
``emit``. The rules: one response at a time; a response is in the history only once committed; one that was
dropped leaves no trace, in the history or in the KV cache.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator

from model_runtime.engine import scheduler
from model_runtime.engine.heard import Heard
from model_runtime.engine.history import Entry, History
from model_runtime.engine.job import Job, Purpose
from model_runtime.engine.kit import Kit
from model_runtime.engine.ops import Work
from model_runtime.engine.record import Record
from model_runtime.engine.refusal import Refusal
from model_runtime.engine.response import Response
from model_runtime.engine.ring import AudioRing
from model_runtime.engine.transcript import transcribe
from model_runtime.errors import VoiceError
from model_runtime.protocol import (
    Audio,
    Cancel,
    ClientMessage,
    Close,
    Commit,
    Drop,
    EngineMessage,
    Error,
    HistoryEntry,
    Open,
    Opened,
    Respond,
    SetVoice,
    ToolResult,
    Transcript,
)
from model_runtime.speaking.voice import Voice

log = logging.getLogger(__name__)

NEXT_TURN = 320  # tokens, 25 s of the caller: room is made ahead for what they may say next ...
NEXT_TURN_SHARE = 8  # ... within this part of the context


class Session:
    """Made by an ``Open``; answers it with ``Opened``. Raises ``Refusal`` if it cannot be opened.

    ``clock`` gives seconds and is only compared with itself. ``ended`` turns true at ``Close``; ``served`` is
    the worker's, which notes there when it last did something for this session.
    """

    def __init__(
        self, kit: Kit, message: Open, emit: Callable[[EngineMessage], None], clock: Callable[[], float]
    ) -> None:
        """Opened, and told so by ``emit``."""
        self.call_id = message.call_id
        self.ended = False
        self.served = 0
        self._kit = kit
        self._emit = emit
        self._clock = clock
        name, self._voice = self._named_voice(message, fatal=True)
        self._draws = kit.draws(message.sampling)
        self._ring = AudioRing(kit.settings.audio_ring_s)
        self._heard = Heard()
        self._history = History()
        self._context = kit.context()
        self._late: list[Entry] = []  # tool results that came while a response was unsettled
        self._jobs: deque[Job] = deque()  # done in order
        self._background: deque[Job] = deque()  # done in order, when there is time
        self._response: Response | None = None  # running or done, but neither committed nor dropped
        self._last_turn = -1
        self._record = Record()
        self._missing = message.history  # entries of another session's history that are still to come
        if not self._missing:
            self._history.append(kit.prompts.opening_turns(message.instructions, message.tools))
            self._check_opening()
        self._emit(
            Opened(
                checkpoint=kit.card.name,
                label=kit.card.label,
                voice=name,
                voices=kit.voices.names,
                transcribes=kit.card.transcribes,
                examples=list(kit.card.examples),
                descriptions=kit.voices.descriptions,
            )
        )
        if not self._missing:
            self._enter(None)

    # --- messages ---

    def handle(self, message: ClientMessage) -> None:
        """Take one message. Raises ``Refusal`` for what cannot be done."""
        if self._missing and not isinstance(message, HistoryEntry | Audio | Close):
            text = f"{self._missing} entries of the history are still to come."
            raise Refusal("bad_request", text, fatal=True)
        match message:
            case HistoryEntry():
                self._restore(message)
            case Audio():
                try:
                    self._ring.put(message.pcm)
                except ValueError as error:
                    raise Refusal("bad_request", f"Audio refused: {error}.", fatal=True) from None
            case Respond():
                self._respond(message)
            case ToolResult():
                output = self._kit.prompts.function_output(message.name, message.content, message.id)
                self._late.append(output)
                if self._response is None:
                    self._enter(None)
            case Cancel():
                if (response := self._unsettled(message.turn)) is not None:
                    self._cancel(response)
            case Commit():
                if (response := self._unsettled(message.turn)) is not None:
                    self._cancel(response)
                    self._response = None
                    self._enter(response, message.heard_groups)
                    self._start_transcript(response)
                elif message.turn > self._last_turn:
                    text = f"There has been no turn {message.turn} to commit."
                    raise Refusal("bad_request", text, turn=message.turn)
            case Drop():
                if (response := self._unsettled(message.turn)) is not None:
                    self._drop(response)
            case SetVoice():
                _, self._voice = self._named_voice(message, fatal=False)
                if self._response is not None:
                    self._response.speech.speak_as(self._voice)
            case Close():
                self.ended = True
            case Open():
                raise Refusal("bad_request", "The session is open already.", fatal=True)

    def _restore(self, message: HistoryEntry) -> None:
        """The next entry of the history that this session goes on with."""
        if not self._missing or message.place != len(self._history.entries):
            raise Refusal("bad_request", f"No entry {message.place} of a history is due.", fatal=True)
        self._history.append([self._kit.restored(message)])
        self._last_turn = max(self._last_turn, message.turn)
        self._missing -= 1
        if not self._missing:
            self._check_opening()
            self._record.known(self._history)
            self._enter(None)

    def _check_opening(self) -> None:
        """Raises ``Refusal`` when what stays for the whole call leaves too little room for the call."""
        kept = sum(len(entry.tokens) for entry in self._history.entries if entry.kept)
        if kept > self._kit.max_context // 2:
            text = "The instructions and tools fill more than half the context."
            raise Refusal("context", text, fatal=True)

    def _respond(self, message: Respond) -> None:
        """Begin a response; the encoding, reading and speaking is done by its job."""
        turn = message.turn
        unsettled = self._response
        if unsettled is not None and not unsettled.cancelled:
            state = "being made" if unsettled.running else "neither committed nor dropped"
            raise Refusal("bad_request", f"Turn {unsettled.turn} is still {state}.", turn=turn)
        if turn <= self._last_turn:
            raise Refusal("bad_request", f"Turn {turn} does not follow turn {self._last_turn}.", turn=turn)
        wav = self._kit.cut(self._ring, message)
        if unsettled is not None:  # cancelled and never committed: it leaves no trace
            self._drop(unsettled)
        self._last_turn = turn
        self._draws.restart(turn)
        response = Response(
            self._kit,
            self.call_id,
            message,
            wav,
            self._heard,
            self._context,
            self._history,
            self._draws,
            self._voice,
            self._emit,
            self._clock,
        )
        self._response = response
        self._jobs.append(Job(response.run(), Purpose.RESPONSE, self._clock(), turn))

    def _named_voice(self, asked: Open | SetVoice, fatal: bool) -> tuple[str, Voice]:
        """The name, or the default for an empty one, and its voice. Raises ``Refusal`` (``voice``)."""
        name = asked.voice or self._kit.default_voice
        try:
            voice = self._kit.voices.find(name, asked.timbre)
        except VoiceError as error:
            raise Refusal("voice", str(error), fatal=fatal) from None
        self._kit.expect(voice)
        return name, voice

    def _unsettled(self, turn: int) -> Response | None:
        """The unsettled response, if it is ``turn``. One that was settled before is nobody's fault."""
        response = self._response
        return response if response is not None and response.turn == turn else None

    # --- the end of a response ---

    def _cancel(self, response: Response) -> None:
        """Stop making ``response``, if it is being made; it can still be committed or dropped."""
        if response.running:
            for job in [job for job in self._jobs if job.purpose is Purpose.RESPONSE]:
                job.close()
                self._jobs.remove(job)
            response.finish("cancelled")

    def _drop(self, response: Response) -> None:
        """Forget ``response``: nothing of it was ever in the history."""
        self._cancel(response)
        for job in [job for job in self._background if job.turn == response.turn]:
            job.close()
            self._background.remove(job)
        self._response = None
        self._enter(None)

    def _enter(self, response: Response | None, heard_groups: int = -1) -> None:
        """Settle:

        put ``response`` and what waited for it into the history, as a job because it may have to hear first.
        """
        late, self._late = self._late, []
        turn = -1 if response is None else response.turn
        work = self._settle(response, heard_groups, late)
        self._jobs.append(Job(work, Purpose.SETTLE, self._clock(), turn))

    def _settle(self, response: Response | None, heard_groups: int, late: list[Entry]) -> Work[None]:
        """Make the cache the history's again, and read what that has gained before it is needed."""
        try:
            if response is not None:
                self._history.append((yield from response.settled(heard_groups)))
        finally:
            self._history.append(late)
            self._make_room()
            self._tell_history()
        whole = self._history.tokens()
        self._context.align(whole.ids)
        if len(whole) <= self._context.size:  # else the next response makes room first
            yield from self._context.read(whole)

    def _make_room(self) -> None:
        """Shorten the history if the next response would have to, since now nobody waits for the reading.

        What is kept fills half the context at most, so there is something to shorten. A tool's result that
        waits for its answer does not go for what may be said later: the reply to it makes room.
        """
        last = self._history.entries[-1:]
        if any(entry.turn < 0 and not entry.kept for entry in last):
            return
        size = self._context.size
        limit = size - self._kit.reserve(think=False) - min(NEXT_TURN, size // NEXT_TURN_SHARE)
        if self._history.shorten(limit, limit * 3 // 4) is not None:
            log.info("context nearly full call_id=%r: the oldest of it went", self.call_id)

    def _start_transcript(self, response: Response) -> None:
        """Queue the transcription of what the caller said, once, if it was asked for."""
        if response.wants_transcript:
            response.wants_transcript = False
            work = transcribe(self._kit, response, self._transcribed)
            self._background.append(Job(work, Purpose.TRANSCRIBE, self._clock(), response.turn))

    def _transcribed(self, response: Response, text: str) -> None:
        """A transcript is there:

        the caller is told, and the history has something to keep when the sound must go.
        """
        response.transcript = text
        self._emit(Transcript(response.turn, text))
        self._history.in_words(response.turn, response.human_in_words())
        self._tell_history()

    def _tell_history(self) -> None:
        """Whatever of the history has changed, for whoever may have to go on with it elsewhere."""
        for entry in self._record.changes(self._history):
            self._emit(entry)

    # --- work ---

    def waiting(self, now: float) -> Iterator[tuple[Job, float]]:
        """What could be done next, and when its result is needed."""
        if self._jobs:
            yield self._jobs[0], min(self._due(job, now) for job in self._jobs)
        if self._background:
            job = self._background[0]
            yield job, scheduler.background_due(job.since, scheduler.TRANSCRIBE_S, now)

    def _due(self, job: Job, now: float) -> float:
        if job.purpose is Purpose.RESPONSE and self._response is not None:
            return scheduler.response_due(job.since, self._response.speech.playing_until, now)
        return scheduler.background_due(job.since, scheduler.SETTLE_S, now)

    def stepped(self, job: Job) -> None:
        """``job`` has done a unit of work."""
        response = self._response
        if response is not None and response.turn == job.turn and (job.done or response.speech.begun):
            self._start_transcript(response)
        if job.done:
            self._remove(job)

    def abandon(self, job: Job, error: Error) -> None:
        """``job`` cannot go on because of ``error``. The session goes on without it."""
        job.close()
        self._remove(job)
        if job.purpose is Purpose.TRANSCRIBE:
            return  # nobody waits for a transcript, and its cache was its own
        self._context.forget()
        self._emit(error)
        response = self._response
        if job.purpose is Purpose.RESPONSE and response is not None and response.running:
            response.finish("error")

    def close(self) -> None:
        """Give everything back."""
        for job in (*self._jobs, *self._background):
            job.close()
        self._jobs.clear()
        self._background.clear()
        self._context.forget()
        self._response = None

    def _remove(self, job: Job) -> None:
        for queue in (self._jobs, self._background):
            if job in queue:
                queue.remove(job)
