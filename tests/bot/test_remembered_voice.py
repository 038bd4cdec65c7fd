"""Whose voice is remembered: of an agent that does so, and a caller who says who they are."""

from __future__ import annotations

import pytest

from bot.agents import Agent
from bot.remembering import callers_voice
from pipeline.memory import Memory
from tests.pipeline.memory.redis_server import drop, log, running_redis

ADA = "sip:ada@example.org"
REMEMBERS = Agent(name="Bluebird", remember_voice=True)


async def test_it_is_the_callers_with_that_agent() -> None:
    async with running_redis() as server:
        memory = Memory(server.url)
        ada = callers_voice(memory, REMEMBERS, ADA)
        assert ada is not None
        await ada.keep("slt")
        other = callers_voice(memory, Agent(name="Other", remember_voice=True), ADA)
        assert other is not None
        assert (await ada.recall(), await other.recall()) == ("slt", "")
        server.kill()
        with log() as lines:
            assert await ada.recall() == ""
            await ada.keep("rms")
        assert len(lines) == 2
        assert not any("ada" in line for line in lines)
        await drop(memory)


@pytest.mark.parametrize(
    ("agent", "caller"),
    [
        (Agent(name="Bluebird"), ADA),
        (REMEMBERS, "sip:anonymous@anonymous.invalid"),
        (REMEMBERS, ""),
    ],
)
def test_nobody_elses_is(agent: Agent, caller: str) -> None:
    assert callers_voice(Memory("unix:///nowhere"), agent, caller) is None
