"""The supervisor, with small real child processes in the engine's place."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bot.engine_probe import EngineFull, EngineUnavailable, ask_engine
from bot.engine_process import Engine, EngineProcess, OwnEngine
from bot.settings import EngineSettings
from model_runtime.protocol import Opened
from tests.bot.speaking_engine import SpeakingEngine

SERVES = """
import asyncio, sys
from model_runtime.protocol import Opened
from tests.bot.speaking_engine import SpeakingEngine
async def main():
    async with SpeakingEngine(sys.argv[1]):
        await asyncio.Future()
asyncio.run(main())
"""


@asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[None]:
    task = asyncio.create_task(engine.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def until(fact: Callable[[], bool]) -> None:
    for _ in range(3000):
        if fact():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to be")


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def child(code: str, tmp_path: Path, start_timeout_s: float = 60.0) -> EngineProcess:
    socket = tmp_path / "engine.sock"
    return EngineProcess(
        [sys.executable, "-c", code, str(socket)],
        f"unix:{socket}",
        first_pause_s=0.01,
        start_timeout_s=start_timeout_s,
    )


async def test_an_engine_is_started_is_ready_and_is_gone_at_the_end(tmp_path: Path) -> None:
    engine = child(SERVES, tmp_path)
    assert not engine.status.ready
    async with running(engine):
        await until(lambda: engine.status.ready)
        assert engine.status.about is not None
        assert engine.status.about.checkpoint == "tone"
        assert engine.pid is not None
        pid = engine.pid
    assert not alive(pid)


async def test_an_engine_that_crashes_is_started_again(tmp_path: Path) -> None:
    engine = child(SERVES, tmp_path)
    states: list[str] = []
    engine.on_change = lambda status: states.append(status.state)
    async with running(engine):
        await until(lambda: engine.status.ready)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        await until(lambda: engine.restarts == 1)
        await until(lambda: engine.status.ready)
    assert states == ["ready", "down", "starting", "ready"]


async def test_an_engine_that_cannot_start_says_why_and_is_not_tried_again(tmp_path: Path) -> None:
    code = (
        "import sys; print('loading'); print('model.safetensors is cut short.', file=sys.stderr); sys.exit(2)"
    )
    engine = child(code, tmp_path)
    await asyncio.wait_for(engine.run(), 30)
    assert engine.status.state == "failed"
    assert engine.status.reason == "model.safetensors is cut short."
    assert engine.restarts == 0


async def test_an_engine_that_never_gets_ready_is_started_anew(tmp_path: Path) -> None:
    engine = child("import time; time.sleep(1000)", tmp_path, start_timeout_s=0.1)
    async with running(engine):
        await until(lambda: engine.restarts >= 1)
        assert "did not answer in time" in engine.status.reason or engine.status.state == "starting"


async def test_an_engine_that_ignores_sigterm_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.child_process.STOP_S", 0.1)
    engine = child(
        "import signal; signal.signal(15, signal.SIG_IGN)\n" + SERVES,
        tmp_path,
    )
    async with running(engine):
        await until(lambda: engine.status.ready)
        assert engine.pid is not None
        pid = engine.pid
    assert not alive(pid)


async def test_a_wrong_option_for_our_own_engine_is_told_in_its_words() -> None:
    engine = OwnEngine(EngineSettings(options="--chunks 8,many"), "no checkpoint", Path("voices"), 2, "INFO")
    await asyncio.wait_for(engine.run(), 60)
    assert engine.status.state == "failed"
    assert "numbers of codes" in engine.status.reason


async def test_an_engine_that_falls_silent_is_started_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.engine_process.WATCH_EVERY_S", 0.05)
    monkeypatch.setattr("bot.engine_probe.ANSWER_S", 0.2)
    monkeypatch.setattr("bot.child_process.STOP_S", 0.1)
    engine = child(SERVES, tmp_path, start_timeout_s=60.0)
    async with running(engine):
        await until(lambda: engine.status.ready)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGSTOP)
        await until(lambda: engine.restarts == 1)
        monkeypatch.setattr("bot.engine_probe.ANSWER_S", 5.0)
        await until(lambda: engine.status.ready)


async def test_an_engine_that_is_full_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.engine_process.WATCH_EVERY_S", 0.01)
    asked = 0

    async def ask(url: str) -> Opened:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise EngineFull("All places are taken.")
        return Opened("tone")

    states: list[str] = []
    engine = Engine("ws://127.0.0.1:9", ask)
    engine.on_change = lambda status: states.append(status.state)
    async with running(engine):
        await until(lambda: engine.status.ready)
        await until(lambda: asked > 2)
        assert states == ["ready"]
        assert engine.status.about is not None


async def test_somebody_elses_engine_is_watched() -> None:
    async with SpeakingEngine() as there:
        engine = Engine(there.url)
        async with running(engine):
            await until(lambda: engine.status.ready)
    gone = Engine("ws://127.0.0.1:9")
    async with running(gone):
        await until(lambda: gone.status.state == "down")
        assert gone.status.reason == "The engine does not answer."


@pytest.mark.parametrize("url", ["", "nonsense", "ws://", "unix:/no/such/socket", "ws://127.0.0.1:9"])
async def test_asking_where_no_engine_is_gives_a_sentence(url: str) -> None:
    with pytest.raises(EngineUnavailable, match="does not answer"):
        await ask_engine(url)


async def test_asking_frees_the_place_it_took() -> None:
    async with SpeakingEngine() as there:
        await ask_engine(there.url)
        await until(lambda: there.sessions == 0)


async def test_a_voice_added_while_it_runs_becomes_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.engine_process.WATCH_EVERY_S", 0.01)
    voices = ["rms"]

    async def ask(url: str) -> Opened:
        return Opened("tone", voices=list(voices))

    sleeps = [sys.executable, "-c", "import time; time.sleep(60)"]
    engine = EngineProcess(sleeps, f"unix:{tmp_path}/engine.sock", ask=ask)
    async with running(engine):
        await until(lambda: engine.status.ready)
        assert not engine.has_voice("emma")
        voices.append("emma")
        await until(lambda: engine.has_voice("emma"))
