"""Thousands of sessions of every kind, and the engine holds what it held before: no more of anything."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
import pytest

from model_runtime import protocol
from model_runtime.engine.voices import KEPT
from model_runtime.protocol import (
    Audio,
    Cancel,
    Close,
    Commit,
    Done,
    Drop,
    Error,
    Open,
    Opened,
    Respond,
    Sampling,
    SetVoice,
    Speech,
    ToolResult,
)
from model_runtime.speaking.flow_stream import FlowPlan
from tests.model_runtime.engine.live import PATIENCE, Client, Running, running
from tests.model_runtime.engine.rig import model
from tests.model_runtime.engine.test_voices import file_of

# Whatever one session, one answer or one connection is made of.
KINDS = (
    *("Session", "Response", "SpeechOut", "Job", "Context", "AudioRing", "InterleaveParser", "Sampler"),
    *("Slot", "Token2WavStream", "FlowStream", "VocoderStream", "FlowMemory", "Voice"),
    *("Connection", "WebSocket", "ServerConnection", "ClientConnection"),
)
SHORT = {"max_reply_s": 0.48, "max_text_tokens": 6, "max_thought_tokens": 6, "max_transcript_tokens": 4}
MB = 1 << 20


@dataclass
class Round:
    """One session of each kind at a time: as many as there are places, all open before any goes on, and
    those that get no place.
    """

    engine: Running
    timbres: list[bytes]
    number: int = 0
    full: asyncio.Event = field(default_factory=asyncio.Event)  # and one too many has been refused
    reasons: Counter[str] = field(default_factory=Counter)  # how answers ended

    # --- those with a place ---

    async def answered(self, client: Client) -> None:
        await self.ask(client)
        await self.end(client)
        await client.send(Commit(0), Respond(1, text="And then?"))
        await self.end(client)
        await client.send(Commit(1, 2), Close())
        await client.closed()

    async def dropped(self, client: Client) -> None:
        await self.ask(client)
        if self.number % 2:
            await self.begun(client)
        await client.send(Drop(0), Respond(1, text="No, wait."), Drop(1), Close())
        await client.closed()

    async def cancelled(self, client: Client) -> None:
        await self.ask(client, transcribe=True)
        await self.begun(client)
        await client.send(Cancel(0), Commit(0, 1))  # and the call ends while that is being settled

    async def thinks(self, client: Client) -> None:
        await self.ask(client, think=True)
        await self.end(client)
        await client.send(Commit(0))

    async def uses_a_tool(self, client: Client) -> None:
        await client.send(ToolResult("find", "A boat.", "1"), Respond(0))
        await self.end(client)
        await client.send(ToolResult("find", "Two.", "2"), Commit(0), Close())
        await client.closed()

    async def brings_a_voice(self, client: Client) -> None:
        await client.send(SetVoice("brought", self.timbres[self.number % len(self.timbres)]))
        await self.ask(client)
        await self.begun(client)
        await client.send(SetVoice("brought", self.timbres[(self.number + 1) % len(self.timbres)]))
        await self.end(client)

    async def vanishes(self, client: Client) -> None:
        await self.ask(client)
        await self.begun(client)
        client.socket.transport.abort()

    async def talks_nonsense(self, client: Client) -> None:
        await self.ask(client)
        await client.socket.send(b"\xc1 nonsense" if self.number % 2 else "nonsense")
        assert (await client.read(Error)).fatal
        await client.closed()

    # --- those without ---

    async def begins_with_nonsense(self) -> None:
        async with self.engine.client() as client:
            await client.socket.send(protocol.encode(Drop(0)) if self.number % 2 else b"nonsense")
            assert (await client.read(Error)).fatal
            await client.closed()

    async def is_one_too_many(self) -> None:
        await self.engine.until(lambda: self.engine.server.sessions == PLACES)
        async with self.engine.client() as client:
            await client.send(Open("too many"))
            assert (await client.read(Error)).code == "capacity"
            await client.closed()
        self.full.set()

    # --- what they have in common ---

    async def ask(self, client: Client, transcribe: bool = False, think: bool = False) -> None:
        draw = np.random.default_rng(self.number)
        noise = draw.integers(-8000, 8000, int(draw.integers(2_000, 8_000)), dtype=np.int16)
        spans = [(0, len(noise))]
        await client.send(Audio(noise.tobytes()), Respond(0, spans, transcribe=transcribe, think=think))

    async def end(self, client: Client) -> None:
        self.reasons[(await client.read(Done)).reason] += 1

    async def begun(self, client: Client) -> None:
        """The first sound of an answer; one without any ends instead."""
        async with asyncio.timeout(PATIENCE):
            while not isinstance(
                protocol.decode_engine(await client.socket.recv(decode=False)), Speech | Done
            ):
                pass

    async def session(self, kind: Callable[[Round, Client], Awaitable[None]]) -> None:
        async with self.engine.client() as client:
            sampling = Sampling(temperature=1.0, seed=self.number)
            await client.send(Open(kind.__name__, instructions="Be kind.", sampling=sampling))
            await client.read(Opened)
            await self.full.wait()
            await kind(self, client)

    async def run(self) -> int:
        """Returns how many sessions there were."""
        self.number += 1
        self.full.clear()
        async with asyncio.timeout(10 * PATIENCE), asyncio.TaskGroup() as group:
            for kind in PLACED:
                group.create_task(self.session(kind))
            group.create_task(self.is_one_too_many())
            group.create_task(self.begins_with_nonsense())
        await self.engine.until(lambda: self.engine.server.sessions == 0)
        return PLACES + 2


PLACED = (
    *(Round.answered, Round.dropped, Round.cancelled, Round.thinks),
    *(Round.uses_a_tool, Round.brings_a_voice, Round.vanishes, Round.talks_nonsense),
)
PLACES = len(PLACED)


def held(engine: Running) -> dict[str, int]:
    """What could have been left behind, counted."""
    gc.collect()
    kit = engine.kit
    found = Counter(type(thing).__name__ for thing in gc.get_objects())
    return {kind: found[kind] for kind in KINDS} | {
        "slots": kit.memory.free,
        "sessions": len(engine.worker._sessions),
        "messages": engine.worker.backlog,
        "replies": len(kit.pace._replies),
        "at work": kit.pace._at_work,
        "brought": len(kit.voices._brought),
        "prompts": len(kit.model.token2wav._prompts),
        "tasks": len(asyncio.all_tasks()),
        "threads": threading.active_count(),
        "files": len(list(Path("/proc/self/fd").iterdir())),
    }


def resident() -> int:
    """Bytes of memory that this process has, without what its allocator keeps for later."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@asynccontextmanager
async def rounds(folder: Path) -> AsyncIterator[Round]:
    """An engine that has had some sessions, and as many voices brought as it keeps."""
    timbres = [file_of(folder, "brought", seed) for seed in range(KEPT + 4)]
    async with running(max_sessions=PLACES, slot_masking=True, max_context=512, **SHORT) as engine:
        for timbre in timbres:
            async with engine.session(voice="brought", timbre=timbre):
                pass
        await engine.until(lambda: engine.server.sessions == 0)
        round = Round(engine, timbres)
        for _ in range(2):
            await round.run()
        yield round


@pytest.mark.parametrize("sessions", [150, pytest.param(10_000, marks=pytest.mark.slow)])
async def test_sessions_leave_nothing_behind(
    tmp_path: Path, sessions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    token2wav = model().token2wav
    monkeypatch.setattr(token2wav, "plan", FlowPlan(token2wav.flow, steps=1))  # most of a session's time
    monkeypatch.setattr(token2wav, "_prompts", WeakKeyDictionary())
    async with rounds(tmp_path) as round:
        before, had, sizes = held(round.engine), 0, [resident()]
        for half in (1, 2):
            while had < half * sessions / 2:
                had += await round.run()
            sizes.append(resident())
        for _ in range(50):  # what ended last is let go of in its own time
            if (after := held(round.engine)) == before:
                break
            await asyncio.sleep(0.1)
        assert after == before
        assert before["slots"] == PLACES
        assert before["brought"] == KEPT
        assert not any(before[name] for name in ("sessions", "messages", "replies", "at work"))
        print({"sessions": had, "MB": [size // MB for size in sizes], "ends": dict(round.reasons)})
        if sessions > 1000:
            assert sizes[2] - sizes[1] < 8 * MB
