"""One response, from the caller's words to the last sample: the order in which the model is asked for things.

Everything made here is provisional. It reads the settled history and the KV cache behind it, and says what
the history would gain (``settled``), but changes neither for good; only making room for a turn that is longer
than the room made ahead does, and that would have had to happen anyway.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from model_runtime.engine.context import Context
from model_runtime.engine.draws import Draw, Draws
from model_runtime.engine.guards import LoopGuard
from model_runtime.engine.heard import Heard, covered
from model_runtime.engine.history import ContextFull, Entry, History, Tokens
from model_runtime.engine.kit import Kit
from model_runtime.engine.ops import Hear, Work
from model_runtime.engine.refusal import Refusal
from model_runtime.engine.speech import SpeechOut
from model_runtime.engine.thought import think
from model_runtime.interleave import Code, Event, Group, MalformedToolCall, Slot, SpeechEnd, Text, ToolCall
from model_runtime.listening.features import split_pieces
from model_runtime.protocol import Done, EngineMessage, Error, Respond, Timings
from model_runtime.protocol import ToolCall as Call
from model_runtime.speaking.voice import Voice

log = logging.getLogger(__name__)

Reason = Literal["end", "length", "cancelled", "silent", "error"]
CLOSING = 2  # tokens that close a turn: <tts_end><|EOT|>; there must always be room for them


class Response:
    """``wav``:

    the caller's audio of this turn, float32 16 kHz [n], possibly empty; ``heard``: what the session has heard
    of it before. ``reason`` is set when it has ended.

    The context must hold a beginning of the history, and nothing else, when ``run`` starts.
    """

    def __init__(
        self,
        kit: Kit,
        call_id: str,
        asked: Respond,
        wav: NDArray[np.float32],
        heard: Heard,
        context: Context,
        history: History,
        draws: Draws,
        voice: Voice,
        emit: Callable[[EngineMessage], None],
        clock: Callable[[], float],
    ) -> None:
        """Nothing is done before ``run``."""
        self.turn = asked.turn
        self.reason: Reason | None = None
        self.wants_transcript = asked.transcribe and kit.card.transcribes and len(wav) > 0
        self.transcript = ""
        self.speech = SpeechOut(asked.turn, voice, kit.stream, kit.pace, emit, clock)
        self._kit = kit
        self._call_id = call_id
        self._asked = asked
        self._wav = wav
        self._heard = heard
        self._rows: list[Tensor] | None = None  # what was heard, once it has been
        self._context = context
        self._history = history
        self._draws = draws
        self._emit = emit
        self._clock = clock
        self._parser = kit.parser(speaking=True)
        self._ids: list[int] = []  # what the model has written after <tts_start>
        self._group_ends: list[int] = []  # how many of them stand up to the end of each group
        self._codes: list[int] = []  # of the group being written
        self._guard = LoopGuard()
        self._calls = 0
        self._beside = False  # words were written beside the speech
        self._asked_at = clock()
        self._heard_at = self._read_at = self._asked_at
        self._prompt_tokens = 0

    @property
    def running(self) -> bool:
        """Whether it is still being made."""
        return self.reason is None

    @property
    def cancelled(self) -> bool:
        """Whether it ended before its time, so that nobody will miss it."""
        return self.reason in ("cancelled", "error")

    def finish(self, reason: Reason) -> None:
        """It has ended: say so."""
        self.reason = reason
        first = self.speech.first_at
        timings = Timings(
            encode_ms=1000 * (self._heard_at - self._asked_at),
            prefill_ms=1000 * (self._read_at - self._heard_at) if self._prompt_tokens else 0.0,
            first_audio_ms=0.0 if first is None else 1000 * (first - self._asked_at),
            total_ms=1000 * (self._clock() - self._asked_at),
            prompt_tokens=self._prompt_tokens,
            output_tokens=len(self._ids),
        )
        ledger = self.speech.ledger
        self._emit(Done(self.turn, reason, ledger.made, ledger.text, timings))

    # --- making it ---

    def run(self) -> Work[None]:
        """Everything from hearing to ``Done``. Raises ``Refusal`` if it cannot be answered."""
        with self._kit.pace.one_more(self.speech):
            reason = yield from self._answer()
        self.finish(reason)

    def _answer(self) -> Work[Reason]:
        kit = self._kit
        human = yield from self._human()
        prompt = self._prompt(human)
        if not len(prompt):
            raise Refusal("bad_request", "There is nothing to answer.", turn=self.turn)
        if self._asked.think:
            yield from think(kit, self.turn, prompt, self._context, self._draws, self._emit)
        else:
            prompt.extend(kit.prompts.speech_opening())
        self._prompt_tokens = len(prompt)
        return (yield from self._speaking(prompt))

    def hear(self) -> Work[list[Tensor]]:
        """What the model hears of the caller's audio, a block [N, hidden] for each 25 s; heard once, kept
        after that.
        """
        if self._rows is None:
            cuts = split_pieces(len(self._wav))
            pieces = [covered(self._asked.spans, start, stop) for start, stop in cuts]
            self._heard.keep(pieces)
            rows: list[Tensor] = []
            for piece, (start, stop) in zip(pieces, cuts, strict=True):
                block = self._heard.get(piece)
                if block is None:
                    block = yield Hear(self._wav[start:stop])
                    self._heard.put(piece, block)
                rows.append(block)
            self._rows = rows
            self._heard_at = self._read_at = self._clock()
        return self._rows

    def _human(self) -> Work[Entry | None]:
        """The caller's side as an entry of the history; ``None`` if the history is answered as it stands."""
        if not len(self._wav) and not self._asked.text:
            return None
        rows = yield from self.hear()
        return self._kit.prompts.human(self.turn, rows, self._asked.text, self.transcript)

    def human_in_words(self) -> Tokens:
        """The caller's side without its sound: the transcript, if there is one, and what was typed."""
        return self._kit.prompts.human_in_words(self.transcript, self._asked.text)

    def _prompt(self, human: Entry | None) -> Tokens:
        """The history and the human turn, after making room for them and for a fair reply."""
        new = Tokens() if human is None else human.tokens
        limit = self._context.size - self._kit.reserve(self._asked.think) - len(new)
        try:
            changed = self._history.shorten(limit, limit * 3 // 4)
        except ContextFull as full:
            raise Refusal("context", str(full), turn=self.turn) from None
        if changed is not None:
            log.info("context full call_id=%r turn=%d: the oldest of it went", self._call_id, self.turn)
            self._context.keep(changed)
        prompt = self._history.tokens()
        prompt.extend(new)
        return prompt

    def _speaking(self, prompt: Tokens) -> Work[Reason]:
        """Read the prompt and reply. Words without sound are taken back, and the model has to sound then."""
        draw = self._draws.speaking(prompt.ids, self._parser)
        drawn = yield from self._context.read(prompt, draw)
        self._read_at = self._clock()
        reason = yield from self._write(drawn, draw)
        if not self._mute(reason):
            return reason
        log.warning("words without sound call_id=%r turn=%d: once more", self._call_id, self.turn)
        self._begin_again()
        draw = self._draws.speaking(prompt.ids, self._parser, sounding=True)
        drawn = yield from self._context.read(prompt, draw)  # forgets what was written
        reason = yield from self._write(drawn, draw)
        if not self._mute(reason):
            return reason
        self._emit(Error("internal", "The model answered in words without sound.", turn=self.turn))
        return "error"

    def _mute(self, reason: Reason) -> bool:
        """Whether something was written that nobody would hear. A reply that is empty is meant to be."""
        return reason == "silent" and (self.speech.ledger.made > 0 or self._beside)

    def _begin_again(self) -> None:
        self._parser = self._kit.parser(speaking=True)
        self._ids, self._group_ends, self._codes = [], [], []
        self._guard = LoopGuard()
        self._beside = False
        self.speech.begin_again()

    def _write(self, drawn: int, draw: Draw) -> Work[Reason]:
        """Decode from the first id on, speaking while writing."""
        while True:
            events = self._parser.push([drawn])
            if not self._parser.over:
                self._ids.append(drawn)
            yield from self._speak(events)
            if self._parser.over:
                return "end" if self.speech.ledger.codes or self._calls else "silent"
            if self._guard.mute:
                return "silent"
            if problem := self._problem():
                log.warning("cut short call_id=%r turn=%d: %s", self._call_id, self.turn, problem)
                yield from self._speak(self._parser.finish())
                return "length" if self.speech.ledger.codes or self._calls else "silent"
            drawn = yield from self._context.decode(drawn, draw)

    def _speak(self, events: list[Event]) -> Work[None]:
        """Give out what has become known."""
        for event in events:
            match event:
                case Code():
                    self._codes.append(event.code)
                    yield from self.speech.code(event.code)
                case Group():
                    codes, self._codes = self._codes, []
                    self._group_ends.append(event.end)
                    self._guard.push(event.text, codes)
                    self.speech.group(event.codes, event.text)
                case SpeechEnd():
                    if self.speech.ledger.codes:  # else it may have to be taken back
                        yield from self.speech.end()
                case ToolCall():
                    yield from self._call(Call(self.turn, event.name, event.arguments, event.raw))
                case MalformedToolCall():
                    yield from self._call(Call(self.turn, raw=event.raw, error=event.error))
                case Text():  # not for the caller's ear
                    self._beside = self._beside or bool(event.text.strip())
                case _:
                    pass

    def _call(self, call: Call) -> Work[None]:
        """A tool is asked for: whatever was said before it, even without sound, stands."""
        self._calls += 1
        yield from self.speech.end()
        self._emit(call)

    def _problem(self) -> str:
        """Why the reply has to be cut short here; empty if it has not."""
        settings, groups = self._kit.settings, len(self._group_ends)
        if self._parser.slot is not Slot.FREE and groups >= settings.max_groups:
            return "the reply is as long as a reply may be"
        # Ids that belong to no group: what follows the speech, and what a model off its format writes.
        spoken = self._group_ends[-1] if groups else 0
        if len(self._ids) - spoken > settings.max_text_tokens:
            return "the text beside the speech is as long as it may be"
        if self._context.room <= 1 + CLOSING:
            return "the context is full"
        return self._guard.problem

    # --- what the history gains ---

    def settled(self, heard_groups: int) -> Work[list[Entry]]:
        """The turns that enter the history, the assistant's cut after ``heard_groups`` groups (-1:

        all that was made).

        Hears the caller's audio if the response was stopped before it could. A reply that ended by itself and
        was heard to the end stays id for id as it was written, tool calls included; any other is cut to whole
        groups and closed in valid format: ``<tts_end><|EOT|>``.
        """
        human = yield from self._human()
        made = self.speech.ledger.made
        heard = made if heard_groups < 0 else min(heard_groups, made)
        natural = self.reason in ("end", "silent")
        start, end = self._kit.tokens.tts_start, self._kit.tokens.tts_end
        after: list[int] = []
        if natural and heard == made and (heard_groups != 0 or self._calls):
            ids = [*self._ids, end] if self._speech_open() else self._ids
            after = self._ids[self._group_ends[-1] if made else 0 :]
            after = [id for id in after if id not in (start, end)]
        else:
            ids = [*self._ids[: self._group_ends[heard - 1] if heard else 0], end]
        reply = self._kit.prompts.reply(self.turn, ids, self.speech.ledger.text_of(heard), after)
        return [reply] if human is None else [human, reply]

    def _speech_open(self) -> bool:
        """Whether the model has left its speech open, perhaps one that it had opened again. A tool call ends
        it, too.
        """
        tokens = self._kit.tokens
        marks = (tokens.tts_start, tokens.tts_end, tokens.tool_call)
        return next((id for id in reversed(self._ids) if id in marks), marks[0]) == marks[0]
