"""Several agents in one Parley, on real calls: who answers, and what becomes of calls when files change."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from loguru import logger

from bot import reception as module
from bot.agent_folder import open_folder
from bot.agent_keys import digest, new_key
from bot.app import create_app
from bot.engine_process import Engine
from bot.headset import RATE
from bot.reception import Reception
from bot.settings import Settings
from bot.talk import CallFailed, PlacedCall, place_call
from bot.voices.shared import SharedVoices
from pipeline.memory import Memory
from tests.bot.speaking_engine import SpeakingEngine
from tests.bot.test_talk import voice

ROOT = Path(__file__).parents[2]
MCP = f"""
mcp:
  - name: shop
    command: [{sys.executable}, -m, tests.bot.tools.mcp_server]
    env: {{PYTHONPATH: {ROOT}}}
    tools: [weather]
"""


@dataclass
class Parley:
    """A whole Parley in this process: where it listens, its agents, and what it has logged."""

    url: str
    reception: Reception
    folder: Path
    log: list[str]

    async def call(self, agent: str = "", key: str = "", **options: object) -> PlacedCall:
        """A short call; with a name, to that agent's page."""
        url = f"{self.url}/a/{agent}" if agent else self.url
        return await place_call(url, [voice(0.6)], key=key, greeting=False, quiet_s=0.4, **options)  # type: ignore[arg-type]  # a test's options

    def write(self, **agents: str) -> None:
        for name, text in agents.items():
            (self.folder / f"{name}.yaml").write_text(text)


@asynccontextmanager
async def running(folder: Path, **agents: str) -> AsyncIterator[Parley]:
    log: list[str] = []
    sink = logger.add(lambda line: log.append(str(line)), format="{message}", level="INFO")
    for name, text in agents.items():
        (folder / f"{name}.yaml").write_text(text)
    settings = Settings.model_construct(agents_dir=folder, agent="main", drain_s=1.0)
    try:
        async with SpeakingEngine() as speaking:
            engine = Engine(speaking.url)
            memory = Memory("unix:///nowhere")
            voices = SharedVoices(memory.voices, folder)
            async with Reception(settings, open_folder(settings), engine, memory, voices) as reception:
                server = uvicorn.Server(
                    uvicorn.Config(create_app(settings, reception, engine), log_config=None)
                )
                with socket.create_server(("127.0.0.1", 0)) as listening:
                    serving = asyncio.create_task(server.serve(sockets=[listening]))
                    await until(lambda: engine.status.ready, "the engine")
                    port = listening.getsockname()[1]
                    yield Parley(f"http://127.0.0.1:{port}", reception, folder, log)
                    server.should_exit = True
                    await serving
    finally:
        logger.remove(sink)


async def until(fact: Callable[[], bool], what: str) -> None:
    for _ in range(3000):
        if fact():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"never came: {what}")


def servers() -> set[int]:
    """The MCP servers that are our children."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {pid for pid in map(int, children) if b"mcp_server" in command_line(pid)}


def command_line(pid: int) -> bytes:
    """Empty of a process that is gone by now."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


@asynccontextmanager
async def on_the_line(parley: Parley, agent: str = "") -> AsyncIterator[asyncio.Task[PlacedCall]]:
    """A call that has begun, and goes on until the context is left."""
    begun = asyncio.Event()
    question = np.concatenate([voice(0.6), np.zeros(RATE, np.float32)])

    def told(what: str) -> None:
        begun.set() if what.startswith("asking") else None

    async def talk() -> PlacedCall:
        url = f"{parley.url}/a/{agent}" if agent else parley.url
        return await place_call(url, [question] * 20, greeting=False, quiet_s=0.4, on_turn=told)

    calling = asyncio.create_task(talk())
    try:
        await asyncio.wait_for(begun.wait(), 30)
        yield calling
    finally:
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)


async def test_each_agent_answers_at_its_own_address(tmp_path: Path) -> None:
    async with running(tmp_path, main="name: Main", sales="name: Sales") as parley:
        first, second = await asyncio.gather(parley.call(), parley.call("sales"))
        assert (first.info["agent"], second.info["agent"]) == ("Main", "Sales")
        with pytest.raises(CallFailed, match="There is no such agent here"):
            await parley.call("nobody")


async def test_a_key_opens_its_agent_and_nothing_logs_it(tmp_path: Path) -> None:
    key = new_key()
    async with running(tmp_path, main="name: Main", sales=f"name: Sales\nkeys: ['{digest(key)}']") as parley:
        assert (await parley.call("sales", key)).info["agent"] == "Sales"
        assert (await parley.call("", key)).info["agent"] == "Sales"  # the key says whom
        for agent, given in (("sales", ""), ("sales", new_key()), ("", new_key())):
            with pytest.raises(CallFailed, match="key"):
                await parley.call(agent, given)
        assert not any(key in line or digest(key) in line for line in parley.log)


async def test_new_calls_get_the_new_agent_and_the_old_one_ends_with_its_last_call(tmp_path: Path) -> None:
    async with running(tmp_path, main=f"name: Old{MCP}") as parley:
        await until(lambda: len(servers()) == 1, "the old agent's MCP server")
        (old,) = servers()
        async with on_the_line(parley) as calling:
            parley.write(main=f"name: New{MCP}")
            await parley.reception.reload()
            assert "agents: main is read anew\n" in parley.log
            await until(lambda: len(servers()) == 2, "the new agent's MCP server")
            assert (await parley.call()).info["agent"] == "New"
            assert old in servers()
            assert not calling.done()
        await until(lambda: old not in servers(), "the end of the old agent's MCP server")
        assert len(servers()) == 1
    assert servers() == set()


async def test_a_file_that_breaks_keeps_the_old_agent_and_the_log_says_where(tmp_path: Path) -> None:
    async with running(tmp_path, main="name: Main", sales="name: Sales") as parley:
        parley.write(sales="name: Sells\nvioce: x", main="name: Changed")
        await parley.reception.reload()
        await parley.reception.reload()
        said = [line for line in parley.log if "sales.yaml" in line]
        assert said == [
            f"agents: sales stays as it was: {tmp_path}/sales.yaml: line 2: vioce: there is no such field "
            f"(there are {', '.join(type(parley.reception.agents['main']).model_fields)}).\n"
        ]
        assert (await parley.call("sales")).info["agent"] == "Sales"
        assert (await parley.call()).info["agent"] == "Changed"


async def test_agents_come_and_go_and_one_with_a_fault_says_so_to_callers(tmp_path: Path) -> None:
    async with running(tmp_path, main="name: Main", bad="name: ''") as parley:
        assert any("agents: bad does not answer" in line and "line 1: name" in line for line in parley.log)
        with pytest.raises(CallFailed, match="fault in its file"):
            await parley.call("bad")
        parley.write(sales="name: Sales", bad="name: Mended")
        await parley.reception.reload()
        assert (await parley.call("sales")).info["agent"] == "Sales"
        assert (await parley.call("bad")).info["agent"] == "Mended"
        async with on_the_line(parley, "sales") as calling:
            (tmp_path / "sales.yaml").unlink()
            await parley.reception.reload()
            with pytest.raises(CallFailed, match="no such agent"):
                await parley.call("sales")
            assert not calling.done()


async def test_a_folder_that_is_gone_changes_nothing(tmp_path: Path) -> None:
    agents = tmp_path / "agents"
    agents.mkdir()
    async with running(agents, main="name: Main") as parley:
        agents.rename(tmp_path / "elsewhere")
        await parley.reception.reload()
        assert any("All stay as they were" in line for line in parley.log)
        assert (await parley.call()).info["agent"] == "Main"


async def test_changes_are_noticed_when_nothing_is_written_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.02)
    async with running(tmp_path, main="name: Main") as parley:
        watching = asyncio.create_task(parley.reception.watch())
        await asyncio.sleep(0.1)
        for number in range(3):
            parley.write(**{f"new{number}": "name: New"})
            await until(lambda: f"new{number}" in parley.reception.agents, "the new agent")  # noqa: B023
        (tmp_path / "new1.yaml").unlink()
        await until(lambda: "new1" not in parley.reception.agents, "the end of an agent")
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


@pytest.mark.parametrize("reloads", [50, pytest.param(1000, marks=pytest.mark.slow)])
async def test_reloads_leave_nothing_behind(tmp_path: Path, reloads: int) -> None:
    tool = "tools: [date_time, {name: mine, from: mine.py}]"
    (tmp_path / "mine.py").write_text('def mine() -> str:\n    """Do."""\n    return "x"\n')

    def counts() -> dict[str, int]:
        gc.collect()
        kinds = ("Agent", "Answering", "Toolbox", "_Desk", "ToolFunction", "AsyncClient")
        found = [type(thing).__name__ for thing in gc.get_objects()]
        here = {kind: found.count(kind) for kind in kinds}
        return here | {"tasks": len(asyncio.all_tasks()), "fds": len(list(Path("/proc/self/fd").iterdir()))}

    async def settled(wanted: dict[str, int] | None = None) -> dict[str, int]:
        """The counts that stand, or are as wanted: what was dismissed last closes in its own time."""
        before = counts()
        for _ in range(100):
            await asyncio.sleep(0.1)
            after = counts()
            if after == (before if wanted is None else wanted):
                break
            before = after
        return after

    async def change(number: int) -> None:
        answers = f"answers: {{numbers: ['{number}']}}"
        parley.write(main=f"name: Number {number}\n{tool}", sales=f"name: '{number}'\n{answers}")
        if number % 3 == 0:
            parley.write(other="name: [" if number % 2 else "name: Other")
        await parley.reception.reload()

    async with running(tmp_path, main=f"name: Main\n{tool}", other="name: Other") as parley:
        for number in range(6):
            await change(number)
        before = await settled()
        for number in range(6, 6 + reloads):
            await change(number)
        assert await settled(before) == before
        assert parley.reception.agents["sales"].name == str(5 + reloads)
        assert (await parley.call()).info["agent"] == f"Number {5 + reloads}"
