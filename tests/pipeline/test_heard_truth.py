"""Whatever interrupts an answer, and whenever: all that is kept of it is what was heard, and all agree on it.

The caller, their line and the engine are made of dice, in virtual time; the dialogue, the fader and the
records are real.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import cast

import pytest
from pipecat.frames.frames import TTSAudioRawFrame, TTSStoppedFrame

from model_runtime.protocol import GROUP_SAMPLES, ClientMessage, Commit, Drop, HistoryEntry, Speech
from pipeline import page_messages as page
from pipeline.agent import CallAgent, CallSettings
from pipeline.conversation import Conversation, Exchange
from pipeline.dialogue import Dialogue
from pipeline.fader import AnswerBegins
from pipeline.memory import CallMemory
from pipeline.memory.stored import pack_conversation, unpack_conversation
from pipeline.record import CallRecord
from pipeline.segmenter import Segmenter
from tests.pipeline.tools.virtual import SILENCE, STEP_MS, VOICE, Ear, Engine, Fate, in_virtual_time

CHUNK = 960  # bytes: 20 ms at 24 kHz


class Line(Ear):
    """Plays in chunks of 20 ms behind the fader, as the transport does, and tells what really sounded."""

    def __init__(self) -> None:
        super().__init__()
        self.sounded: Counter[int] = Counter()  # samples of each turn
        self.shown: dict[int, str] = defaultdict(str)  # the page
        self._interruptions = 0

    async def play(self) -> None:
        assert self.listener is not None
        while True:
            frame = await self._queue.get()
            if isinstance(frame, AnswerBegins):
                await self.fader.process_frame(frame)
            elif isinstance(frame, TTSAudioRawFrame):
                await self._sound(int(frame.context_id or -1), frame.audio)
            elif isinstance(frame, TTSStoppedFrame):
                await self.listener.played_out(int(frame.context_id or -1))

    async def _sound(self, turn: int, audio: bytes) -> None:
        assert self.listener is not None
        began = self._interruptions
        for at in range(0, len(audio), CHUNK):
            chunk = audio[at : at + CHUNK]
            if not await self.fader.filter(chunk) or began != self._interruptions:
                return
            self.sounded[turn] += len(chunk) // 2
            await asyncio.sleep(0.02)
            if began != self._interruptions:  # the chunk on its way counts for nobody
                return
            self.played[turn] += len(chunk) // 2
            await self.listener.played(turn, len(chunk) // 2)

    async def interrupt(self) -> None:
        self._interruptions += 1
        await super().interrupt()

    async def tell(self, message: page.PageMessage) -> None:
        if isinstance(message, page.BotText):
            self.shown[message.turn] += message.text


class Remembering(Engine):
    """... what it was told of each turn."""

    def __init__(self, dice: Random, dialogue: Dialogue, ear: Ear) -> None:
        super().__init__(dice, Fate(), dialogue, 1, ear)
        self.kept: dict[int, int] = {}  # groups in its history
        self.made: Counter[int] = Counter()

    def _make_one(self, message: object) -> None:
        if isinstance(message, Speech):
            self.made[message.turn] = message.groups
        super()._make_one(message)  # type: ignore[arg-type]  # any of the engine's

    def send(self, message: ClientMessage) -> None:
        if isinstance(message, Commit):
            self.kept[message.turn] = (
                self.made[message.turn] if message.heard_groups == -1 else message.heard_groups
            )
        elif isinstance(message, Drop):
            self.kept.pop(message.turn, None)
        super().send(message)


class Kept:
    """What goes to Redis, as it goes there (``CallMemory``)."""

    conversation = b""

    def converse(self, conversation: Conversation) -> None:
        self.conversation = pack_conversation(conversation)

    def note(self, **facts: str) -> None:
        """Nothing of what was heard."""

    def entry(self, entry: HistoryEntry) -> None:
        """The engine's ids, of which the dice have none."""


class Interrupted:
    """A call whose caller cuts in all the time."""

    def __init__(self, seed: int, answers: int) -> None:
        self.line = Line()
        self.kept = Kept()
        self.record = CallRecord(memory=cast(CallMemory, self.kept))
        self._dice, self._answers = Random(seed), answers

    async def live(self) -> None:
        loop, settings = asyncio.get_running_loop(), CallSettings()
        dialogue = self.line.listener = Dialogue(CallAgent("A"), settings, self.record, self.line, loop.time)
        is_speech: Callable[[bytes], bool] = lambda frame: frame[0] == 1  # noqa: E731
        dialogue.ear.segmenter = Segmenter(settings.segmenter, is_speech)
        playing = asyncio.create_task(self.line.play())
        self.engine = Remembering(self._dice, dialogue, self.line)
        await dialogue.session_begun(self.engine, again=False)  # type: ignore[arg-type] # all that it uses
        for _ in range(self._answers):
            await self._say(dialogue, VOICE, self._dice.choice([80, 200, 440, 840, 1200]))
            await self._say(dialogue, SILENCE, self._dice.randrange(40, 3000))
            if self._dice.random() < 0.1:
                await dialogue.interrupted()  # somebody else's
        await dialogue.hang_up()
        playing.cancel()
        with suppress(asyncio.CancelledError):
            await playing
        await self.engine.die()

    async def _say(self, dialogue: Dialogue, sound: bytes, ms: int) -> None:
        for _ in range(ms // STEP_MS):
            await dialogue.caller_audio(sound)
            await asyncio.sleep(STEP_MS / 1000)


def interrupted(seed: int, answers: int) -> list[Exchange]:
    """Live through one call, and compare the four records with what sounded."""
    call = Interrupted(seed, answers)
    in_virtual_time(call.live())
    exchanges = call.record.conversation.exchanges
    assert not exchanges or unpack_conversation(call.kept.conversation).exchanges == exchanges
    for exchange in exchanges:
        turn, heard = exchange.turn, exchange.heard_groups
        assert heard * GROUP_SAMPLES <= call.line.sounded[turn], (seed, turn)  # nothing beyond what was heard
        assert call.line.sounded[turn] < (heard + 1) * GROUP_SAMPLES + CHUNK // 2, (
            seed,
            turn,
        )  # and all of it
        assert call.engine.kept[turn] == heard, (seed, turn)
        words = "".join(f"w{group} " for group in range(1, heard + 1))
        assert exchange.bot == words, (seed, turn)
        assert call.line.shown[turn] == words, (seed, turn)
    # Nobody remembers a turn of which the others know nothing.
    assert call.engine.kept.keys() == {exchange.turn for exchange in exchanges}, seed
    assert {turn for turn, text in call.line.shown.items() if text} <= call.engine.kept.keys(), seed
    return [exchange for exchange in exchanges if exchange.interrupted]


def test_all_records_of_an_interrupted_answer_end_where_it_was_heard_to() -> None:
    cut = [exchange for seed in range(20) for exchange in interrupted(seed, 25)]
    assert len(cut) > 60
    assert len({exchange.heard_groups for exchange in cut}) > 8  # the dice do cut anywhere


@pytest.mark.slow
@pytest.mark.parametrize("part", range(5))
def test_ten_thousand_interruptions(part: int) -> None:
    count, seed = 0, 100_000 * (part + 1)
    while count < 2000:
        count += len(interrupted(seed, 25))
        seed += 1
