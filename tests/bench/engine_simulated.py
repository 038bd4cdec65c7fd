"""The engine's scheduling on an H200 that is only reckoned: ``python -m tests.bench.engine_simulated``.

The worker, its sessions and all that decides who is served when are the real ones; nothing is computed. On a
virtual clock each unit of work takes what ``cost_model`` says, replies are of random words and lengths, and
callers come at random, say 2 to 25 s, hear the answer at the speed at which it is spoken, interrupt some, and
go. What the device would really take is not known by this.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from model_runtime.engine.context import Context
from model_runtime.engine.kit import DECODE_BATCH, SPEECH_BATCH, Kit
from model_runtime.engine.ops import Decode, Hear, Op, Prefill, Vocode
from model_runtime.engine.settings import Settings
from model_runtime.engine.worker import Piece
from model_runtime.listening.features import token_count
from model_runtime.model import SpeechModel
from model_runtime.protocol import (
    GROUP_MS,
    INPUT_RATE,
    OUTPUT_RATE,
    Audio,
    Commit,
    Done,
    EngineMessage,
    Error,
    Open,
    Respond,
    Speech,
)
from model_runtime.speaking.schedule import Schedule
from model_runtime.speaking.voice import Voice
from model_runtime.thinking.kv_cache import KVCache
from tests.bench import report
from tests.bench.cost_model import SPEECH_LAUNCHES, CostModel
from tests.bench.engine import NANO
from tests.bench.engine_alone import Alone, _SecondCore
from tests.bench.engine_report import GPU_FIRST_AUDIO_MS
from tests.bench.report import Goal, percentile

RECORDED = SPEECH_LAUNCHES // 10  # of token2wav's launches left, were it recorded as decoding is
FRAME_SAMPLES = 480  # of 24 kHz, 20 ms
LOOKAHEAD = 3  # codes
SHARED = 1.5  # what the two threads do on one device at the same time takes each so many times as long
CONTEXT = 8192  # tokens: so many fit for 136 sessions beside the weights, see ``kit``
RING_S = 60.0
WORDS_A_SECOND = 4  # tokens of a transcript
TALK_S = (2.0, 25.0)
SHORT_S, LONG_S = (1.0, 4.0), (8.0, 30.0)  # answers
LONG_SHARE = 0.25
INTERRUPTED = 0.15
TURNS = 8  # of a caller before the next one comes, on average
RUSH = 16  # callers a second that come at first


class Past(KVCache):
    """How many tokens a session has behind it, and what it is about to write; no keys, no values."""

    nbytes = 0

    def __init__(self) -> None:
        self.length = 0
        self.script: list[int] = []  # the next id last

    def truncate(self, length: int) -> None:
        """Keep the first ``length``."""
        self.length = min(self.length, length)

    def release(self) -> None:
        """Nothing is held."""


class SimulatedStream:
    """Token2WavStream's account of codes and samples, without sound."""

    nbytes = 0

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._pending = self._index = self._held = self._remembered = 0

    @property
    def needed(self) -> int:
        """Codes until the next chunk is due."""
        return max(0, self._schedule.size(self._index) + LOOKAHEAD - self._pending)

    def speak_as(self, voice: Voice) -> None:
        """All voices cost the same."""

    def shape(self, codes: int, last: bool) -> tuple[int, int, bool]:
        """Those in which this is equal can be rendered in one pass."""
        return self._pending + codes, self._remembered, last

    def push(self, codes: int, last: bool) -> int:
        """The samples that come of one more chunk."""
        self._pending += codes
        size = self._pending if last else self._schedule.size(self._index)
        frames = 2 * size
        hold = 0 if last else min(self._schedule.hold(self._index), max(1, frames // 2))
        given, self._held = self._held + frames - hold, hold
        self._remembered = min(self._schedule.tail_frames, self._remembered + frames)
        self._pending -= size
        self._index += 1
        return given * FRAME_SAMPLES


class SimulatedKit(Kit):
    """What it is asked it does in no time, and notes what it would have taken.

    ``spend`` is told the seconds on the thread of the sessions, ``rendering`` counts those on token2wav's.
    """

    def __init__(self, model: SpeechModel, costs: CostModel, seed: int = 0, **changes: Any) -> None:
        """``model`` lends its tokens and template; ``changes`` are settings."""
        given = {"decode_batch": DECODE_BATCH["cuda"], "speech_batch": SPEECH_BATCH["cuda"]} | changes
        settings = Settings(
            checkpoint="", max_sessions=1, max_context=256, audio_ring_s=RING_S, warm_up=False, **given
        )
        super().__init__(model, settings)
        self.card = msgspec.structs.replace(model.card, transcribes=True)
        self.max_context = CONTEXT
        self.costs = costs
        self.spend: Callable[[float], None] = lambda seconds: None
        self.rendering = 0.0
        self.passes = self.chunks = self.steps = self.ids = 0
        self._draw = random.Random(seed)
        self._row = torch.zeros(1, model.backbone.config.hidden_size)
        tokens = self.tokens
        letters = [model.tokenizer.encode(letter)[0] for letter in "abcdefghijklmnopqrstuvwxyz"]
        audio = range(tokens.audio0, tokens.audio0 + 6561)
        self._stock = [  # groups in which nothing repeats itself, the last id first
            id for _ in range(4000) for id in (*self._draw.choices(audio, k=4), self._draw.choice(letters))
        ]
        self._words = letters

    def context(self, size: int = 0) -> Context:
        """A context without a cache."""
        return Context(Past, size or self.max_context, self.settings.prefill_tokens)

    def stream(self, voice: Voice) -> Any:
        """A reply in that voice, as it begins."""
        return SimulatedStream(self.settings.schedule)

    def execute(self, op: Op) -> Any:
        """As the kit does it, in no time."""
        match op:
            case Hear():
                self.spend(self.costs.hear(len(op.wav) / INPUT_RATE))
                return self._row.expand(token_count(len(op.wav)), -1)
            case Prefill():
                return self._prefill(op)
            case Decode():
                return self.decode_each([op])[0]
            case Vocode():
                return self.vocode_each([op])[0]

    def _prefill(self, op: Prefill) -> int | None:
        past, draw = _past(op.cache), op.draw
        whole = draw is not None and draw.rows is None
        self.spend(self.costs.prefill(len(op.tokens), past.length, whole))
        past.length += len(op.tokens)
        if draw is None:
            return None
        if draw is self.best:
            heard = sum(len(rows) for _, rows in op.tokens.rows) / 12.5
            past.script = [self.tokens.eot, *self._draw.choices(self._words, k=round(WORDS_A_SECOND * heard))]
        else:
            past.script = self._reply()
        return past.script.pop()

    def _reply(self) -> list[int]:
        seconds = self._draw.uniform(*(LONG_S if self._draw.random() < LONG_SHARE else SHORT_S))
        groups = round(1000 * seconds / GROUP_MS)
        at = 5 * self._draw.randrange(len(self._stock) // 5 - groups)
        return [self.tokens.eot, self.tokens.tts_end, *self._stock[at : at + 5 * groups]]

    def decode_each(self, steps: Sequence[Decode]) -> list[int]:
        """The next id of each one's script."""
        pasts = [_past(step.cache) for step in steps]
        whole = any(step.draw.rows is None for step in steps)
        self.steps += 1
        self.ids += len(steps)
        self.spend(self.costs.decode([past.length for past in pasts], whole))
        for past in pasts:
            past.length += 1
        return [past.script.pop() for past in pasts]

    def vocode_each(self, chunks: Sequence[Vocode]) -> list[NDArray[np.float32]]:
        """Silence of the right length; chunks of one shape are one pass."""
        alike: defaultdict[tuple[int, int, bool], int] = defaultdict(int)
        for chunk in chunks:
            alike[_stream(chunk).shape(len(chunk.codes), chunk.last)] += 1
        self.passes += len(alike)
        self.chunks += len(chunks)
        self.rendering += sum(self.costs.speech(count, codes) for (codes, _, _), count in alike.items())
        return [np.zeros(_stream(one).push(len(one.codes), one.last), np.float32) for one in chunks]


def _past(cache: KVCache) -> Past:
    assert isinstance(cache, Past)
    return cache


def _stream(chunk: Vocode) -> SimulatedStream:
    stream: Any = chunk.stream
    assert isinstance(stream, SimulatedStream)
    return stream


class Simulation(Alone):
    """A worker with a simulated kit. ``stalled_s``: the longest time in which nobody's speech was written,
    though somebody's who was being heard waited to be.
    """

    def __init__(self, kit: SimulatedKit) -> None:
        super().__init__(kit)
        self.kit = kit
        self.worker._beside.stop()
        self.device = self.worker._beside = _SecondStream(kit, self)
        kit.spend = self._spend
        self.stalled_s = 0.0
        self._stall_s = 0.0

    def _work(self, pieces: list[Piece]) -> None:
        op, began = pieces[0].job.op, self.now
        held_up = not isinstance(op, Decode) and self._speaker_waits()
        self.worker._work(pieces)
        if isinstance(op, Vocode):
            return
        took = self.now - began
        self.used["Begin" if op is None else type(op).__name__] += took
        self._stall_s = self._stall_s + took if held_up else 0.0
        self.stalled_s = max(self.stalled_s, self._stall_s)

    def _spend(self, seconds: float) -> None:
        self.now += self.device.beside(seconds)

    def _speaker_waits(self) -> bool:
        return any(
            session._response is not None and session._response.speech.begun and isinstance(job.op, Decode)
            for session in self.worker._sessions.values()
            for job in itertools.islice(session._jobs, 1)
        )


class _SecondStream(_SecondCore):
    """Renders in no time, and says so when it would have been done, with the device shared."""

    def __init__(self, kit: SimulatedKit, alone: Simulation) -> None:
        super().__init__(kit, alone)
        self._simulated, self._simulation = kit, alone
        self._left = 0.0  # seconds of the pass, had it the device to itself
        self._since = 0.0  # the moment for which that is true
        self._ends = 0.0
        self._done: Callable[[], None] | None = None

    def begin(self, chunks: Sequence[Vocode], done: Callable[[list[Future[Any]]], None]) -> None:
        self.busy = True
        told: list[list[Future[Any]]] = []
        self._simulated.rendering = 0.0
        self._run(chunks, told.append)
        self._left, self._since = self._simulated.rendering, self._simulation.now
        self._done = lambda: done(told[0])
        self._simulation.used["Vocode"] += self._left
        self._expect()

    def beside(self, seconds: float) -> float:
        """How long work of the other thread takes that begins now and would take ``seconds`` alone."""
        if self._done is None:
            return seconds
        now = self._simulation.now
        self._left = max(0.0, self._left - (now - self._since))
        both = min(seconds, self._left)
        self._left -= both
        self._since = now + SHARED * both
        self._expect()
        return SHARED * both + seconds - both

    def _expect(self) -> None:
        """Look again when the pass would be over if nothing more were done beside it."""
        self._ends = ends = self._since + self._left

        def over() -> None:
            if self._done is not None and self._ends == ends:  # else something was
                done, self._done = self._done, None
                done()

        self._simulation.at(ends, over)


@dataclass
class Turn:
    """One answer. Times in seconds; ``late_s`` are its under-runs."""

    talk_s: float
    first_s: float = float("nan")
    spoken_s: float = 0.0
    late_s: list[float] = field(default_factory=list)


class Caller:
    """Speaks, hears the answer out or interrupts it, speaks again, and goes after some turns."""

    stalled = False

    def __init__(
        self, simulation: Simulation, draw: random.Random, until: float, gone: Callable[[], None]
    ) -> None:
        """Opened at once; asks within the first second."""
        self._simulation, self._draw, self._until, self._gone = simulation, draw, until, gone
        self.turns: list[Turn] = []
        self.failed: list[str] = []
        self._left = 1 + round(draw.expovariate(1 / TURNS))
        self._samples = 0
        self._open = True  # the answer is neither made nor interrupted
        self._worker = simulation.worker
        self._worker.open(self, Open("simulated", instructions="Be kind and brief, and stay with the facts."))
        simulation.at(simulation.now + draw.uniform(0, 1.0), self._ask)

    def _ask(self) -> None:
        now = self._simulation.now
        if now >= self._until:
            return
        if not self._left:
            self._worker.leave(self)
            self._gone()
            return
        self._left -= 1
        self.turns.append(Turn(self._draw.uniform(*TALK_S)))
        self._asked = self._began = now
        self._playing_until, self._open = 0.0, True
        samples = round(self.turns[-1].talk_s * INPUT_RATE)
        span = (self._samples, self._samples + samples)
        self._samples += samples
        self._worker.message(self, Audio(bytes(2 * samples)))
        self._worker.message(self, Respond(len(self.turns) - 1, [span], transcribe=True))
        if self._draw.random() < INTERRUPTED:
            turn = len(self.turns) - 1
            self._simulation.at(now + self._draw.uniform(0.5, 6.0), lambda: self._interrupt(turn))

    def _interrupt(self, turn: int) -> None:
        if turn == len(self.turns) - 1 and self._open:
            heard = self._simulation.now - self._began if self._playing_until else 0.0
            self._settle(int(1000 * min(heard, self.turns[-1].spoken_s) / GROUP_MS))
            self._simulation.at(self._simulation.now + self._draw.uniform(0.3, 0.8), self._ask)

    def _settle(self, heard: int) -> None:
        self._open = False
        self._worker.message(self, Commit(len(self.turns) - 1, heard))

    def deliver(self, message: EngineMessage) -> None:
        """What the engine says, when it says it."""
        now = self._simulation.now
        if isinstance(message, Error):
            self.failed.append(message.message)
        elif isinstance(message, Speech) and message.pcm and self._open:
            turn = self.turns[-1]
            if not self._playing_until:
                turn.first_s, self._began = now - self._asked, now
            elif now > self._playing_until + 1e-9:
                turn.late_s.append(now - self._playing_until)
            seconds = len(message.pcm) / 2 / OUTPUT_RATE
            turn.spoken_s += seconds
            self._playing_until = max(self._playing_until, now) + seconds
        elif isinstance(message, Done) and self._open:
            self._settle(-1)
            self._simulation.at(max(now, self._playing_until) + self._draw.uniform(0.3, 0.8), self._ask)

    def finish(self) -> None:
        """The session is over."""


@dataclass
class Crowd:
    """So many callers at a time, for so many seconds."""

    simulation: Simulation
    sessions: int
    seconds: float
    draw: random.Random = field(default_factory=lambda: random.Random(0))
    callers: list[Caller] = field(default_factory=list)

    def run(self) -> None:
        """They come at random, and for each who goes another comes."""
        rush = max(1.0, self.sessions / RUSH)
        for _ in range(self.sessions):
            self.simulation.at(self.draw.uniform(0, rush), self._come)
        with torch.inference_mode():
            self.simulation.run(self.seconds + 90)

    def _come(self) -> None:
        draw = random.Random(self.draw.random())
        self.callers.append(Caller(self.simulation, draw, self.seconds, self._gone))

    def _gone(self) -> None:
        self.simulation.at(self.simulation.now + self.draw.uniform(0, 2.0), self._come)

    @property
    def turns(self) -> list[Turn]:
        """All answers that were heard."""
        return [turn for caller in self.callers for turn in caller.turns]


def figures(crowd: Crowd) -> dict[str, Any]:
    """What came of it, as plain data."""
    simulation, turns = crowd.simulation, crowd.turns
    heard = [turn for turn in turns if turn.spoken_s]
    first = [1000 * turn.first_s for turn in heard]
    late = [1000 * late for turn in turns for late in turn.late_s]
    spoken = sum(turn.spoken_s for turn in turns)
    return {
        "sessions": crowd.sessions,
        "seconds": crowd.seconds,
        "answers": len(heard),
        "first_audio_ms": {
            "p50": round(percentile(first, 50), 1),
            "p95": round(percentile(first, 95), 1),
            "max": round(max(first, default=float("nan")), 1),
        },
        "under_runs": len(late),
        "longest_under_run_ms": round(max(late, default=0.0), 1),
        "longest_stall_ms": round(1000 * simulation.stalled_s, 1),
        "speaking_at_once": round(spoken / crowd.seconds, 1),
        "chunks_a_pass": round(simulation.kit.chunks / max(1, simulation.kit.passes), 2),
        "calls_a_step": round(simulation.kit.ids / max(1, simulation.kit.steps), 2),
        "load": {kind: round(used / simulation.now, 3) for kind, used in simulation.used.items()},
        "failed": [failed for caller in crowd.callers for failed in caller.failed][:5],
    }


def main() -> int:
    """Simulate, print, write. Status 1 if a goal is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--levels", default="1,16,64,128", help="callers at once")
    parser.add_argument("--seconds", type=float, default=60.0, help="virtual, of every level")
    parser.add_argument("--beyond", type=float, default=CostModel().beyond, help="times the floor")
    told_launches = f"kernels of a pass of token2wav; {SPEECH_LAUNCHES} as it is, eager"
    parser.add_argument("--speech-launches", type=int, default=RECORDED, help=told_launches)
    parser.add_argument("--speech-batch", type=int, default=SPEECH_BATCH["cuda"])
    options = parser.parse_args()
    costs = CostModel(beyond=options.beyond, speech_launches=options.speech_launches)
    where, console, told = report.machine(), Console(width=160), []
    model = SpeechModel.load(NANO)
    columns = ["callers", "answers", "first audio p50", "p95", "max ms", "under-runs", "longest ms"]
    columns += ["stall ms", "speaking at once", "calls a step", "chunks a pass", "load"]
    table = Table(*columns, title="simulated by the cost model: an H200, Step-Audio-2-mini")
    for sessions in map(int, options.levels.split(",")):
        kit = SimulatedKit(model, costs, speech_batch=options.speech_batch)
        crowd = Crowd(Simulation(kit), sessions, options.seconds)
        crowd.run()
        told.append(one := figures(crowd))
        first = one["first_audio_ms"]
        load = ", ".join(f"{kind} {used:.2f}" for kind, used in one["load"].items() if used >= 0.005)
        row = [sessions, one["answers"], first["p50"], first["p95"], first["max"], one["under_runs"]]
        row += [one["longest_under_run_ms"], one["longest_stall_ms"], one["speaking_at_once"]]
        table.add_row(*map(str, row), str(one["calls_a_step"]), str(one["chunks_a_pass"]), load)
    console.print(table)
    aims = list(goals(told))
    report.show(aims, console)
    metrics = {"simulated": asdict(costs), "levels": told}
    report.write("engine_simulated", where, metrics, aims)
    return 0 if all(goal.met for goal in aims) else 1


def goals(told: Iterable[dict[str, Any]]) -> Iterable[Goal]:
    """Those of the bench on a GPU, here of the simulation."""
    for one in told:
        sessions = one["sessions"]
        if sessions in GPU_FIRST_AUDIO_MS:
            percent, most = GPU_FIRST_AUDIO_MS[sessions]
            name = f"simulated: first audio, {sessions} callers, {percent}"
            yield Goal.at_most(name, one["first_audio_ms"][percent], most, "ms")
        yield Goal.at_most(f"simulated: under-runs, {sessions} callers", one["under_runs"], 0, "under-runs")
        yield Goal.at_most(f"simulated: failures, {sessions} callers", len(one["failed"]), 0, "sessions")


if __name__ == "__main__":
    sys.exit(main())
