"""A call in virtual time: the real dialogue and desk between caller, ear, engine and tools made of dice.

Nothing here waits for a clock, so thousands of calls are lived through in minutes, and each is the same again
from its seed.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from pipecat.frames.frames import Frame, TTSAudioRawFrame, TTSStoppedFrame

from model_runtime.protocol import (
    GROUP_SAMPLES,
    INPUT_RATE,
    Audio,
    ClientMessage,
    Commit,
    Done,
    Drop,
    EngineMessage,
    HistoryEntry,
    Opened,
    Respond,
    Speech,
    ToolCall,
    ToolResult,
)
from pipeline import page_messages as page
from pipeline.agent import CallAgent, CallSettings
from pipeline.dialogue import Dialogue
from pipeline.engine_client import EngineGone
from pipeline.fader import Fader
from pipeline.memory import Remembered
from pipeline.record import CallRecord
from pipeline.segmenter import Segmenter
from pipeline.tools.tool import CannotTransfer, Line, Tool, ToolError
from pipeline.tools.waiting import WaitingPolicy

STEP_MS = 40
VOICE, SILENCE = (mark * (INPUT_RATE * STEP_MS // 1000) for mark in (b"\1\1", b"\0\0"))


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        select = self._selector.select  # type: ignore[attr-defined]  # asyncio's, which typeshed does not show

        def jump(timeout: float | None = None) -> Any:
            assert timeout is not None, "everything waits, and nothing is going to happen"
            self._now += timeout
            return select(0)

        self._selector.select = jump  # type: ignore[attr-defined]  # the same

    def time(self) -> float:
        return self._now


@dataclass
class Fate:
    """What must hold in the end is counted here, over all sessions and calls of one conversation."""

    effects: list[str] = field(default_factory=list)  # which tools have done something, by the call's key
    finished: list[str] = field(default_factory=list)
    committed: set[str] = field(default_factory=set)  # keys whose turn was committed whole
    given: set[str] = field(default_factory=set)  # ids of results an engine was given
    entries: dict[int, str] = field(default_factory=dict)  # entries of the history: result content, by number
    faults: list[str] = field(default_factory=list)
    asides: int = 0  # how often a caller was told that they wait


class Engine:
    """One session of an engine that answers by dice, and its end of the connection (``EngineClient``)."""

    opened = Opened("dice", transcribes=False)
    _numbers = itertools.count(1)

    def __init__(self, dice: Random, fate: Fate, dialogue: Dialogue, call: int, ear: Ear) -> None:
        self.alive = True
        self._ear = ear
        self.history = list(dialogue.history)
        self._call = call
        self._dice, self._fate, self._dialogue = dice, fate, dialogue
        self._late: list[ToolResult] = []
        self._response: Respond | None = None
        self._made: list[EngineMessage] = []
        self._told: asyncio.Queue[tuple[float, EngineMessage]] = asyncio.Queue()
        self._making: asyncio.Task[None] | None = None
        self._telling = asyncio.create_task(self._tell_all())

    def send(self, message: ClientMessage) -> None:
        """``EngineClient``."""
        if not self.alive:
            raise EngineGone("dead")
        match message:
            case Audio():
                return
            case Respond():
                if self._response is not None:
                    self._fate.faults.append("two responses at once")
                self._response, self._made = message, []
                self._fate.asides += bool(message.text)
                self._making = asyncio.create_task(self._make(message))
            case Commit(turn, heard) if self._unsettled(turn):
                if self._response is not None and self._response.text:
                    self._fate.faults.append("words said in passing have entered the history")
                self._settle(heard)
            case Drop(turn) if self._unsettled(turn):
                self._end()
            case ToolResult():
                self._fate.given.add(message.id)
                self._late.append(message)
                if self._response is None:
                    self._enter([])
            case _:
                pass

    async def die(self) -> None:
        self.alive = False
        for task in (self._telling, self._making):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})

    def _unsettled(self, turn: int) -> bool:
        return self._response is not None and self._response.turn == turn

    async def _make(self, respond: Respond) -> None:
        dice, turn = self._dice, respond.turn
        await asyncio.sleep(dice.choice([0.01, 0.05, 0.3]))
        groups = dice.choice([0, 1, 1, 2, 3, 8, 15])
        for group in range(1, groups + 1):
            self._make_one(Speech(turn, bytes(2 * GROUP_SAMPLES), group, [f"w{group} "]))
            await asyncio.sleep(dice.choice([0.0, 0.02, 0.1]))
        for key in self._wanted(respond):
            self._make_one(ToolCall(turn, "book", {"key": key}))
        failed = dice.random() < 0.03
        self._make_one(Done(turn, "error" if failed else "end", groups))

    def _wanted(self, respond: Respond) -> list[str]:
        """The same question wants the same, whoever is asked it and however often."""
        number = self._call
        if not respond.spans:
            return [f"prompted {number}.{respond.turn}"] if self._dice.random() < 0.2 else []
        question = f"asked {number}.{respond.spans[0][0] + self._dialogue.ear.session_start}"
        # One that reads what came of it may know better than to ask for it again.
        if any(key.startswith(question) for key in self._fate.effects) and self._dice.random() < 0.3:
            return []
        return [f"{question}.{n}" for n in range(Random(question).choice([0, 1, 1, 2]))]

    def _make_one(self, message: EngineMessage) -> None:
        self._made.append(message)
        self._tell(message)

    def _settle(self, heard: int) -> None:
        assert self._response is not None
        if self._making is not None:
            self._making.cancel()
        turn = self._response.turn
        done = next((m for m in self._made if isinstance(m, Done)), None)
        groups = sum(isinstance(m, Speech) for m in self._made)
        calls = [m for m in self._made if isinstance(m, ToolCall)]
        if heard == -1 and self._ear.played[turn] < groups * GROUP_SAMPLES:
            self._fate.faults.append(f"turn {turn} was settled whole, and not heard to its end")
        if done is not None and done.reason == "end" and heard in (-1, groups):
            self._fate.committed |= {str(call.arguments["key"]) for call in calls}
        new = [(True, "", "")] if self._response.spans else []
        self._end(turn, [*new, (False, "", "")])

    def _end(self, turn: int = -1, new: Iterable[tuple[bool, str, str]] = ()) -> None:
        if self._making is not None:
            self._making.cancel()
        self._response = None
        self._enter(new, turn)

    def _enter(self, new: Iterable[tuple[bool, str, str]], turn: int = -1) -> None:
        late, self._late = self._late, []
        for heard, result, content in [*new, *((False, one.id, one.content) for one in late)]:
            number = next(self._numbers)
            self._fate.entries[number] = content
            place = len(self.history)
            entry = HistoryEntry(place, [number], turn=-1 if result else turn, heard=heard, result=result)
            self.history.append(entry)
            self._tell(entry)

    def _tell(self, message: EngineMessage) -> None:
        self._told.put_nowait((self._dice.choice([0.0, 0.0, 0.0, 0.003, 0.05, 0.3]), message))

    async def _tell_all(self) -> None:
        while True:
            after, message = await self._told.get()
            await asyncio.sleep(after)
            await self._dialogue.session_said(message)


class Ear:
    """``Output``: plays what is pushed, in its own time."""

    def __init__(self) -> None:
        self.fader = Fader()
        self.listener: Dialogue | None = None
        self._queue: asyncio.Queue[Frame] = asyncio.Queue()
        self.played: Counter[int] = Counter()  # samples of each turn

    async def play(self) -> None:
        """Until cancelled."""
        assert self.listener is not None
        while True:
            frame = await self._queue.get()
            if isinstance(frame, TTSAudioRawFrame):
                await asyncio.sleep(len(frame.audio) / 48_000)
                self.played[int(frame.context_id or -1)] += len(frame.audio) // 2
                await self.listener.played(int(frame.context_id or -1), len(frame.audio) // 2)
            elif isinstance(frame, TTSStoppedFrame):
                await self.listener.played_out(int(frame.context_id or -1))

    async def push(self, frames: Iterable[Frame]) -> None:
        for frame in frames:
            self._queue.put_nowait(frame)

    async def interrupt(self) -> None:
        while not self._queue.empty():
            self._queue.get_nowait()

    async def tell(self, message: page.PageMessage) -> None:
        pass

    async def transcribed(self, text: str) -> None:
        pass

    async def caller_speaks(self, begun: bool) -> None:
        pass

    def beside(self, work: Coroutine[Any, Any, None]) -> None:
        raise AssertionError("nobody judges here by sound whether a turn is over")

    async def end(self, reason: str, text: str) -> None:
        raise AssertionError("no tool here ends the call")

    async def transfer(self, target: str, briefing: str | None = None) -> None:
        raise CannotTransfer(target)


class VirtualCall:
    """One conversation: a caller who speaks by dice, an engine that dies, a connection that breaks."""

    def __init__(self, seed: int) -> None:
        self.fate = Fate()
        self._dice = Random(seed)
        self._record = CallRecord()
        self._number = 0
        self._engine: Engine | None = None

    async def live(self) -> None:
        """Some calls in one conversation, the last of which comes to rest."""
        calls = self._dice.choice([1, 1, 2, 3])
        for number in range(calls):
            await self._call(last=number == calls - 1)

    async def _call(self, last: bool) -> None:
        ear = Ear()
        settings = CallSettings(tool_timeout_s=1.0, tool_end_s=0.5)
        tool = Tool({"function": {"name": "book"}}, self._book)
        waiting = WaitingPolicy("One moment.", after_ms=self._dice.choice([40, 200, 700]), again_ms=400)
        agent = CallAgent("A", tools={"book": tool}, waiting=waiting)
        loop = asyncio.get_running_loop()
        dialogue = ear.listener = Dialogue(agent, settings, self._record, ear, loop.time)
        self._number += 1
        is_speech: Callable[[bytes], bool] = lambda frame: frame[0] == 1  # noqa: E731
        dialogue.ear.segmenter = Segmenter(settings.segmenter, is_speech)
        beside = [asyncio.create_task(ear.play())]
        stop = asyncio.Event()
        beside.append(asyncio.create_task(self._engines(dialogue, ear, stop)))
        try:
            for _ in range(self._dice.randint(1, 5)):
                await self._speak(dialogue, VOICE, self._dice.choice([80, 200, 600, 1000]))
                await self._speak(dialogue, SILENCE, self._dice.choice([120, 240, 480, 900, 2000]))
            if last:
                stop.set()  # no more deaths: what is owed must come
                await self._speak(dialogue, SILENCE, 12_000)
            await dialogue.hang_up()
            if last or self._dice.random() < 0.5:
                await dialogue.desk.close()
                facts = self._record.facts
            else:
                facts = self._record.facts  # as Redis has it, when the process dies
                for task in list(dialogue.desk._tasks):
                    task.cancel()
                    await asyncio.wait({task})
        finally:
            for task in beside:
                task.cancel()
            await asyncio.wait(beside)
        if self._engine is not None:
            await self._engine.die()
        self._record = CallRecord(Remembered("talk", facts, self._record.history, self._record.conversation))

    @property
    def results(self) -> Counter[str]:
        """In the history that is left: how often each result, by its id."""
        return Counter(entry.result for entry in self._record.history if entry.result)

    @property
    def contents(self) -> Counter[str]:
        """The same by content."""
        history = self._record.history
        return Counter(self.fate.entries[entry.ids[0]] for entry in history if entry.result)

    @property
    def owed(self) -> int:
        """Results that never reached an engine."""
        return len(self._record.tools.undelivered)

    async def _speak(self, dialogue: Dialogue, sound: bytes, ms: int) -> None:
        for _ in range(ms // STEP_MS):
            await dialogue.caller_audio(sound)
            await asyncio.sleep(STEP_MS / 1000)

    async def _engines(self, dialogue: Dialogue, ear: Ear, stop: asyncio.Event) -> None:
        """Session after session, until they may die no more."""
        again = False
        while True:
            engine = self._engine = Engine(self._dice, self.fate, dialogue, self._number, ear)
            await dialogue.session_begun(engine, again)  # type: ignore[arg-type]  # all that it uses of a client
            again = True
            life = asyncio.create_task(asyncio.sleep(self._dice.choice([0.3, 0.9, 1.5, 2.5, 6.0, 60.0])))
            ended = asyncio.create_task(stop.wait())
            try:
                await asyncio.wait({life, ended}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                life.cancel()
                ended.cancel()
            if stop.is_set():
                await asyncio.sleep(1000)
            await engine.die()
            await asyncio.sleep(self._dice.choice([0.0, 0.01, 0.1]))
            await dialogue.session_lost()
            await asyncio.sleep(self._dice.choice([0.0, 0.2, 1.0]))

    async def _book(self, arguments: dict[str, Any], _: Line) -> str:
        key = str(arguments["key"])
        if key not in self.fate.committed:
            self.fate.faults.append(f"{key} was run for a turn that is not settled")
        self.fate.effects.append(key)
        await asyncio.sleep(self._dice.choice([0.0, 0.01, 0.1, 0.5, 0.9, 1.5]))
        if self._dice.random() < 0.1:
            raise ToolError(f"{key} was refused")
        self.fate.finished.append(key)
        return f"booked {key}"


def in_virtual_time(work: Coroutine[Any, Any, None]) -> None:
    """Run it to its end."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(work)
