"""One call's conversation: what the caller says, what is answered, and what was heard of it.

It stands between caller and engine: the engine and the segmenter hear all of the caller's audio, the turn
machine says what must be done, and answers go out as pipecat's speech frames. Three tasks come in here (the
caller's audio, the engine's messages, the playback's count), so every entry takes the one lock: between two
``await``s nobody else moves a turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from loguru import logger

from model_runtime import protocol
from model_runtime.protocol import (
    OUTPUT_RATE,
    Audio,
    ClientMessage,
    Commit,
    Done,
    EngineMessage,
    Error,
    HistoryEntry,
    Respond,
    Speech,
    ToolCall,
    Transcript,
)
from pipeline import page_messages as page
from pipeline.agent import CallAgent, CallSettings
from pipeline.answer import Answer
from pipeline.chosen_voice import ChosenVoice, Favourite, Timbres, no_timbre
from pipeline.decisions import decided
from pipeline.ear import Ear
from pipeline.engine_client import EngineClient, EngineGone
from pipeline.output import Output
from pipeline.owed import Owed
from pipeline.record import CallRecord
from pipeline.segmenter import SpeechStart
from pipeline.tools.desk import ToolDesk
from pipeline.tools.line import CallLine
from pipeline.turn_end import TurnEnd
from pipeline.turns import (
    Action,
    Dip,
    Drop,
    Duck,
    Event,
    FallenSilent,
    Finished,
    Heard,
    Hold,
    Judge,
    Judged,
    Prompt,
    Reset,
    Resume,
    Silence,
    Sounds,
    Speak,
    Speculate,
    Stop,
    Turns,
    length,
)

GREETING_INSTRUCTION = "The call has just begun. Greet the caller with these words: {greeting}"
SILENCE_INSTRUCTION = "The caller has been silent for a while. Say these words: {words}"
WAITING_INSTRUCTION = "A tool is still at work, and the caller waits. Say these words: {words}"
KEYS_INSTRUCTION = "The caller pressed these keys on the phone: {keys}"


class Dialogue:
    """The state of one call's conversation.

    Args:
        agent: whom the caller talks to.
        settings: thresholds and timeouts.
        record: what was said, before and in this call.
        output: see ``Output``.
        clock: seconds, monotonic.
        timbres: where voices come from that the engine does not have.
        favourite: what is remembered of the caller, if it is to be.
    """

    def __init__(
        self,
        agent: CallAgent,
        settings: CallSettings,
        record: CallRecord,
        output: Output,
        clock: Callable[[], float],
        timbres: Timbres = no_timbre,
        favourite: Favourite | None = None,
    ) -> None:
        """See the class."""
        self.record = record
        self.chosen_voice = ChosenVoice(agent.voice, record, self._send, self._tell, timbres, favourite)
        self.line = CallLine(output, lambda: self._turns.idle, self.chosen_voice)
        self.ear = Ear(settings.segmenter, agent.kinds)
        self.desk = ToolDesk(agent, settings, record, self.line, self._tell, self._tool_news)
        self.last_audio_at: float | None = None  # when the caller was last heard from, silence included
        self._agent = agent
        self._settings = settings
        self._output = output
        self._clock = clock
        self._lock = asyncio.Lock()
        self._turns = Turns(settings.turns, record.next_turn)
        self._keyed: str | None = None  # what the prompt at hand says that the caller pressed
        self._client: EngineClient | None = None
        self._answer: Answer | None = None
        self._owed = Owed(record.tools)
        self._over = False

    # --- the caller ----------------------------------------------------------------------------------------

    async def caller_audio(self, pcm: bytes) -> None:
        """The caller's next samples, 16 kHz mono s16le."""
        async with self._lock:
            self.last_audio_at = self._clock()
            pcm = self.ear.aligned(pcm)
            self._send(Audio(pcm))
            for event in self.ear.push(pcm):
                await self._handle(event)
                await self._output.caller_speaks(isinstance(event, SpeechStart))
            tick = self.ear.tick
            await self._handle(tick)
            if self._client and self._turns.idle and not self.line.over:
                await self._prompted()
            self._keep_company(tick.now)

    async def key_pressed(self, key: str) -> None:
        """The caller pressed a key of their phone; an entry is answered once the floor is free."""
        async with self._lock:
            self.ear.press(key)

    async def voice_wished(self, voice: str) -> None:
        """The caller would like another voice, one of those they were offered.

        Not under the lock: one that the engine does not have is looked up first.
        """
        if self._client and voice in self._offered(self._client.opened.voices):
            await self.chosen_voice.choose(voice)

    def _offered(self, engines: list[str]) -> list[str]:
        """The voices that callers may choose, of the engine's and those it can be given."""
        return sorted({*engines, *self._agent.more_voices}) if self._agent.voice_choice else []

    async def _prompted(self) -> None:
        """Have the prompt that waits answered, or else what was entered on the keypad."""
        if self._owed.prompt is None and (keys := self.ear.keys()):
            self._owed.prompt = KEYS_INSTRUCTION.format(keys=" ".join(keys))
            self._keyed = f"[keys {keys}]"
        if self._owed.prompt is not None:
            await self._handle(Prompt())
            self._owed.prompt = self._keyed = None

    def _keep_company(self, now: int) -> None:
        """Say something to a caller who waits for a tool, when it is time."""
        ending = self._over or self.line.over or self.line.leaving
        client = None if ending or not self._turns.idle else self._client
        words = self.desk.words_for_waiting(now, client is not None)
        if client and words:
            self._say_aside(WAITING_INSTRUCTION.format(words=words), client)

    def _say_aside(self, text: str, client: EngineClient) -> None:
        """Have words said in passing, the floor being free, without a trace in the engine's history.

        There the result of a tool is to follow its call, and nothing that the model may say here counts as
        an answer or can ask for a tool.
        """
        asked, _ = self._turns.handle(Prompt())
        assert isinstance(asked, Speculate)
        self._answer = Answer(
            asked.turn, client, asked, again=False, prompt=None, to_voice=False, aside=True, may_speak=True
        )
        self._send(Respond(asked.turn, text=text))

    async def interrupted(self) -> None:
        """Somebody else in the pipeline interrupts: what was pushed is silenced already."""
        async with self._lock:
            await self._handle(Silence(), broadcast=False)

    # --- the turn machine's actions ------------------------------------------------------------------------

    async def _handle(self, event: Event, broadcast: bool = True) -> None:
        await self._tell_decided(event)
        for action in self._turns.handle(event):
            await self._do(action, broadcast)
            await self._tell_decided(action)

    async def _tell_decided(self, what: Event | Action) -> None:
        if self._settings.tell_decisions and (message := decided(what, self._turns.answering)):
            await self._output.tell(message)

    async def _do(self, action: Action, broadcast: bool) -> None:
        if isinstance(action, Speculate):
            self._speculate(action)
            return
        if isinstance(action, FallenSilent):
            await self._fallen_silent(action.times)
            return
        answer = self._answer
        if answer is None or answer.turn != action.turn:
            return  # it could not be begun: there was no engine
        match action:
            case Speak():
                await self._speak(answer)
            case Drop():
                await self._withdraw(answer, broadcast)
            case Stop():
                await self._stop_answer(answer, broadcast)
            case Dip():
                self._output.fader.dip()
            case Duck():
                self._output.fader.duck()
            case Hold():
                self._output.fader.hold()
            case Resume():
                self._output.fader.resume()
            case Judge(turn, span):
                await self._handle(Judged(turn, self.ear.meaning(span)))

    async def _fallen_silent(self, times: int) -> None:
        policy = self._agent.silence
        if policy is None or self._client is None or self._owed.prompt is not None or self.line.over:
            return
        if self.record.tools.at_work:
            return  # it is they who wait for us
        if times <= policy.times:
            self._owed.prompt = SILENCE_INSTRUCTION.format(words=policy.words)
        elif policy.hang_up:
            await self._output.end("silent-caller", "Nothing was heard from you, so this call has ended.")

    def _speculate(self, action: Speculate) -> None:
        asked = action if self._owed.question is None else action.after(self._owed.question)
        client = self._client
        if client is None and asked.spans:
            self._owed.question = asked
        spans = self.ear.in_session(asked.spans)
        if client is None or 2 * length(spans) < length(asked.spans):
            # The engine is away, or has been for so long that most of what was said is forgotten.
            self._turns.handle(Finished(action.turn))
            if client is not None:
                self._owed.question = None
            return
        self._answer = Answer(
            turn=action.turn,
            client=client,
            asked=asked,
            again=self._owed.again,
            prompt=None if spans else self._owed.prompt,
            to_voice=bool(spans),
            caller_ended=(self.last_audio_at or 0.0) - self.ear.seconds_since(asked.ended_at),
            transcript=None if spans else self._keyed,
        )
        if action.spans and self._agent.turn_end is not None:
            said = self.ear.turn(action.spans)
            self._output.beside(self._sounds(action.ended_at, self._agent.turn_end, said))
        text = "" if spans else (self._owed.prompt or "")
        transcribe = bool(spans) and client.opened.transcribes
        self._send(Respond(action.turn, spans=spans, text=text, transcribe=transcribe))

    async def _sounds(self, ended_at: int, turn_end: TurnEnd, said: bytes) -> None:
        """Have it judged by its sound whether the turn is over; who pauses may go on meanwhile."""
        told = await turn_end(said)
        async with self._lock:
            await self._handle(Sounds(ended_at, told))

    async def _speak(self, answer: Answer) -> None:
        self._owed.paid(answer)
        frames = answer.release()
        if answer.transcript is not None:
            await self._tell_transcript(answer.turn, answer.transcript)
        await self._output.push(frames)
        if answer.done:
            await self._made(answer)

    async def _withdraw(self, answer: Answer, broadcast: bool = True) -> None:
        """Take an answer back of which nothing was heard, as if it had never been begun."""
        self._answer = None
        self._send(protocol.Drop(answer.turn), answer.client)
        await self._silence(answer, broadcast)
        if answer.may_speak:
            await self._output.tell(page.Withdrawn(answer.turn))

    async def _stop_answer(self, answer: Answer, broadcast: bool = True) -> None:
        """Silence the answer, and cut every record of it at what was heard."""
        self._answer = None
        heard = answer.ledger.heard_groups
        if answer.aside:
            await self._passed(answer, interrupted=True)
        elif heard or answer.to_voice:
            self._send(Commit(answer.turn, -1 if answer.whole else heard), answer.client)
            await self._enter(answer, interrupted=True)
            self._run_tools(answer)
        else:
            self._send(protocol.Drop(answer.turn), answer.client)
        await self._silence(answer, broadcast)
        await self._output.tell(page.Interrupted(answer.turn))

    async def _silence(self, answer: Answer, broadcast: bool) -> None:
        if answer.started:
            if broadcast:
                await self._output.interrupt()
            await self._output.push(answer.closing())
        self._output.fader.discard()

    async def hang_up(self) -> bool:
        """The call is about to end: settle the answer going on as one cut short here, if there is one."""
        async with self._lock:
            self._over = True
            if self._answer is None:
                return False
            self._turns.handle(Reset())
            await self._stop_answer(self._answer)
            return True

    # --- the engine ----------------------------------------------------------------------------------------

    @property
    def voice(self) -> str:
        """``SessionListener``: the agent's, or one chosen in the call."""
        return self.chosen_voice.name

    async def timbre(self, voice: str) -> bytes:
        """``SessionListener``: from wherever the bot has them."""
        return await self.chosen_voice.timbre(voice)

    async def voice_refused(self, reason: str) -> None:
        """``SessionListener``: another one, then."""
        async with self._lock:
            await self.chosen_voice.refused(reason)

    @property
    def history(self) -> list[HistoryEntry]:
        """``SessionListener``: as the engine told it."""
        return self.record.history

    async def session_begun(self, client: EngineClient, again: bool) -> None:
        """``SessionListener``: say whom the caller talks to, and greet."""
        async with self._lock:
            self._client = client
            if heard := self.ear.begin_session():
                self._send(Audio(heard))
            self._owed.new_session()
            delivered = self._deliver()
            waits = self._owed.again and self.record.tools.running
            if (self._owed.question is not None or delivered) and not waits:
                self._owed.prompt = ""
            elif self._agent.greeting and not self.record.greeted:
                self._owed.prompt = GREETING_INSTRUCTION.format(greeting=self._agent.greeting)
            opened, offered = client.opened, self._offered(client.opened.voices)
            self.chosen_voice.spoken, self.chosen_voice.engines = opened.voice, frozenset(opened.voices)
            await self._output.tell(
                page.CallInfo(
                    checkpoint=opened.checkpoint,
                    label=opened.label,
                    examples=list(self._agent.examples) or opened.examples,
                    voice=opened.voice,
                    agent=self._agent.name,
                    transcribes=opened.transcribes,
                    voices=offered,
                    descriptions={name: opened.descriptions.get(name, "") for name in offered},
                )
            )
            if again:
                await self._output.tell(page.Notice("info", "The speech engine is back."))

    async def session_lost(self) -> None:
        """``SessionListener``: nothing being made will come; say so."""
        async with self._lock:
            self._client = None
            self._turns.handle(Reset())
            if (answer := self._answer) is not None:
                unheard = not answer.ledger.heard_groups
                if (unheard or answer.tool_calls) and not answer.aside:
                    self._owed.lost(answer)
                await (self._withdraw(answer) if unheard else self._stop_answer(answer))
            text = "The speech engine stopped and is being started again. One moment, please."
            await self._output.tell(page.Notice("error", text))

    async def session_waits(self) -> None:
        """``SessionListener``: say so."""
        await self._output.tell(page.Notice("warning", "Waiting for the speech engine to start."))

    async def session_said(self, event: EngineMessage) -> None:
        """``SessionListener``: one message from the engine."""
        async with self._lock:
            await self._engine_said(event)

    async def _engine_said(self, event: EngineMessage) -> None:
        turn = getattr(event, "turn", -1)
        answer = self._answer if self._answer and self._answer.turn == turn else None
        match event:
            case HistoryEntry():
                self.record.enter(event)
                if not event.heard:
                    self._owed.accounted(event.turn)
            case Speech() if answer:
                await self._output.push(answer.take(event))
            case Transcript(turn, text):
                if answer:
                    answer.transcript = text
                    if answer.may_speak:
                        await self._tell_transcript(turn, text)
                elif self.record.transcribe(turn, text):
                    self.desk.transcribed()
                    await self._tell_transcript(turn, text)
            case ToolCall() if answer and not answer.aside:
                answer.tool_calls.append(event)
                self.desk.speculate(event)
            case Done() if answer and not answer.done:
                answer.done = event
                if answer.may_speak:
                    await self._made(answer)
            case Error(code="voice"):
                await self.chosen_voice.refused(event.message)
            case Error():
                logger.error(f"engine error {event.code}: {event.message}")
                if answer and not answer.done:
                    answer.done = Done(turn, "error")
                    if answer.may_speak:
                        await self._made(answer)

    async def _made(self, answer: Answer) -> None:
        """The engine makes nothing more of an answer that may speak."""
        assert answer.done is not None
        if answer.done.reason == "error" and not answer.aside:
            await self._output.tell(
                page.Notice("warning", "The answer could not be made. Please say it again.")
            )
        if answer.started:
            await self._output.push(answer.closing())  # the playback says when it is over
        else:
            await self._settle(answer)

    # --- the playback --------------------------------------------------------------------------------------

    async def played(self, turn: int, samples: int) -> None:
        """``PlaybackListener``: count it, and show the text it completes."""
        async with self._lock:
            answer = self._answer
            if answer is None or answer.turn != turn:
                return
            if not answer.sounded:
                answer.sounded = True
                if answer.to_voice:
                    seconds = self._clock() - samples / OUTPUT_RATE - answer.caller_ended
                    await self._output.tell(page.Latency(turn, round(seconds * 1000)))
            await self._heard(answer, answer.ledger.play(samples))

    async def played_out(self, turn: int) -> None:
        """``PlaybackListener``: the answer is over."""
        async with self._lock:
            answer = self._answer
            if answer is not None and answer.turn == turn:
                await self._heard(answer, answer.ledger.settle())
                await self._settle(answer)

    async def _heard(self, answer: Answer, text: str) -> None:
        if answer.ledger.heard_groups:
            await self._handle(Heard(answer.turn))
        if text:
            await self._output.tell(page.BotText(answer.turn, text))

    async def _settle(self, answer: Answer) -> None:
        """An answer has ended of itself: put it on record, run its tools, free the floor."""
        assert answer.done is not None
        self._answer = None
        self._output.fader.resume()
        ledger = answer.ledger
        failed = answer.done.reason == "error"
        if answer.aside:
            await self._passed(answer, interrupted=False)
            await self._output.tell(page.BotDone(answer.turn))
        elif failed and not ledger.heard_groups:
            self._send(protocol.Drop(answer.turn), answer.client)
        else:
            whole = ledger.complete and not failed
            self._send(Commit(answer.turn, -1 if whole else ledger.heard_groups), answer.client)
            await self._enter(answer, interrupted=False)
            await self._output.tell(page.BotDone(answer.turn))
            self._run_tools(answer)
        await self._handle(Finished(answer.turn))

    async def _passed(self, answer: Answer, interrupted: bool) -> None:
        """Words in passing are over: what was heard of them is on record, and the engine forgets them."""
        self._send(protocol.Drop(answer.turn), answer.client)
        if answer.ledger.heard_groups:
            await self._enter(answer, interrupted)

    async def _enter(self, answer: Answer, interrupted: bool) -> None:
        """Put what was heard on record."""
        exchange = answer.exchange(interrupted)
        self.record.add(exchange, answer.aside)
        if exchange.sources:
            await self._output.tell(page.Sources(answer.turn, exchange.sources))

    # --- tools ---------------------------------------------------------------------------------------------

    def _run_tools(self, answer: Answer) -> None:
        """What a settled turn asks for, if the history has it with its tool calls."""
        calls = answer.tool_calls if answer.whole else []
        if calls and self._client is not answer.client:
            self._owed.lost(answer)  # the engine that made it will never know that it was settled
            calls = []
        if calls:
            self._owed.asked_for_tools(answer)
        transcribes = answer.to_voice and answer.client.opened.transcribes
        self.desk.take(
            answer.turn, calls, to_voice=answer.to_voice, again=answer.again, transcribes=transcribes
        )

    async def _tool_news(self, answer: bool) -> None:
        """A result is there; ``answer``: the model should speak."""
        async with self._lock:
            going_on = self._answer
            if answer and going_on and going_on.aside and not going_on.sounded:
                self._turns.handle(Finished(going_on.turn))  # nobody waits any more
                await self._withdraw(going_on)
            self._deliver()
            if answer and self._owed.prompt is None:
                self._owed.prompt = ""
            if answer and self._answer is not None:
                self._answer.sees_prompt = False

    def _deliver(self) -> bool:
        """Give the engine the results it may not have. Whether there were any."""
        results = self._owed.results() if self._client else []
        for result in results:
            self._send(result)
        return bool(results)

    async def _tell(self, message: page.PageMessage) -> None:
        if not self._over:
            await self._output.tell(message)

    # --- the engine's ear ----------------------------------------------------------------------------------

    def _send(self, message: ClientMessage, client: EngineClient | None = None) -> None:
        """To the engine; with ``client``, only if that is still the session."""
        if self._client is None or (client is not None and client is not self._client):
            return
        try:
            self._client.send(message)
        except EngineGone:
            self._client = None  # whoever reads the session's events is about to be told the same

    async def _tell_transcript(self, turn: int, text: str) -> None:
        await self._output.tell(page.UserText(turn, text))
        await self._output.transcribed(text)
