"""A voice that was added on one machine speaks on another, whose engine has no folder: brought over Redis."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from bot.talk import read_wav
from bot.waveform import write_wav
from model_runtime.library.measures import measure
from model_runtime.training.encoder import NANO
from tests.bot.test_cli import run
from tests.e2e.server import parley_server
from tests.e2e.shop import QUESTIONS
from tests.e2e.speakers import VOICES, say
from tests.model_runtime.library.recordings import espeak
from tests.pipeline.memory.redis_server import RedisServer, running_redis

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

RATE = 48_000
AGENT = Path(__file__).resolve().parents[2] / "bot" / "agents" / "bluebird.yaml"


@contextmanager
def engine() -> Iterator[str]:
    """An engine that somebody else runs, with the checkpoint's voices alone."""
    command = [sys.executable, "-m", "model_runtime.engine", "--checkpoint", str(NANO), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready, _, url = process.stdout.readline().strip().partition(" ")
            assert ready == "ready"
            yield url
        finally:
            process.terminate()


@pytest_asyncio.fixture
async def redis() -> AsyncIterator[RedisServer]:
    async with running_redis() as server:
        yield server


def test_an_agent_speaks_in_a_voice_of_another_machine(redis: RedisServer, tmp_path: Path) -> None:
    espeak(tmp_path / "said.wav")
    write_wav(tmp_path / "question.wav", [say(next(iter(QUESTIONS)), VOICES[0])], RATE)
    for machine in ("one", "other"):
        (tmp_path / machine).mkdir()
    one = {"PARLEY_REDIS__URL": redis.url, "PARLEY_VOICES_DIR": str(tmp_path / "one" / "voices")}
    other = {"PARLEY_REDIS__URL": redis.url, "PARLEY_VOICES_DIR": str(tmp_path / "other" / "voices")}
    about = ("--description", "A robot woman.", "--consent", "nobody: espeak-ng")
    added = run(tmp_path, "voices", "add", "robot", "said.wav", *about, **one)
    assert added.returncode == 0, added.stderr
    text = AGENT.read_text(encoding="utf-8")
    assert "voice: rms" in text
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "robot.yaml").write_text(text.replace("voice: rms", "voice: robot"))
    agent = {"PARLEY_AGENT": "robot", "PARLEY_AGENTS_DIR": str(tmp_path / "agents")}
    with (
        engine() as url,
        parley_server(tmp_path / "log", 0, **other, **agent, PARLEY_ENGINE__URL=url) as server,
    ):
        call = ("talk", "--wav", "question.wav", "--out", "answer.wav", "--url", server.url)
        talked = run(tmp_path, *call)
        assert talked.returncode == 0, talked.stderr
    heard = measure(read_wav(tmp_path / "answer.wav"), RATE)
    assert heard.pitch_hz > 160  # the robot's has 214 Hz; the agent's own, and the default, about 110
    shutil.rmtree(tmp_path / "one")  # that machine is gone, and its voice can be removed all the same
    listed = {
        one["name"]: one for one in json.loads(run(tmp_path, "voices", "list", "--json", **other).stdout)
    }
    assert (listed["robot"]["origin"], listed["robot"]["consent"]) == ("shared", "nobody: espeak-ng")
    removed = run(tmp_path, "voices", "remove", "robot", **other)
    assert removed.returncode == 0, removed.stderr
    kept = asyncio.run(redis.keys())
    assert not any("robot" in key for key in kept), kept
    again = run(tmp_path, "voices", "remove", "robot", **other)
    assert (again.returncode, "is not in the library" in again.stderr) == (1, True)
