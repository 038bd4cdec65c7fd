"""Tools of real MCP servers, over stdio and over HTTP: beside the others, and away and back again."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from bot.tools import mcp_servers
from bot.tools.toolbox import Toolbox
from tests.bot.tools.kit import toolbox, use
from tests.ports import free_port

ROOT = Path(__file__).parents[3]
SERVER = [sys.executable, "-m", "tests.bot.tools.mcp_server"]
TOOLS = ["order_status", "weather", "fail", "die", "hang"]
LONG_S = 60.0  # only a test that fails waits so long


@pytest.fixture(autouse=True)
def _soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that starts slowly is looked for often."""
    monkeypatch.setattr(mcp_servers, "AGAIN_S", (0.2,))


def stdio(tools: list[Any] | None = None) -> dict[str, Any]:
    env = {"PYTHONPATH": str(ROOT), "SHOP_KEY": "$TEST_SHOP_KEY"}
    return {"name": "shop", "command": SERVER, "env": env, "tools": tools or TOOLS}


@contextmanager
def http_server(port: int) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([*SERVER, str(port)], cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


@asynccontextmanager
async def served(**agent: Any) -> AsyncIterator[Toolbox]:
    """The toolbox, when its servers have listed their tools."""
    async with toolbox(**agent) as box:
        for server in box.servers:
            async with asyncio.timeout(LONG_S):
                await server.listed.wait()
        yield box


async def status(box: Toolbox) -> str:
    return (await use(box.tools(), "order_status", number="1234")).content


async def until_back(box: Toolbox, before: str) -> str:
    """The status again, when another server tells it."""
    async with asyncio.timeout(LONG_S):
        while True:
            told = await status(box)
            if not told.startswith("Error") and told != before:
                return told
            await asyncio.sleep(0.1)


async def test_tools_of_a_child_are_beside_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_SHOP_KEY", "s3cret")
    async with served(tools=["weather"], mcp=[stdio()]) as box:
        tools = box.tools()
        assert set(tools) == {"weather", "order_status", "shop_weather", "fail", "die", "hang"}
        assert tools["shop_weather"].schema["function"]["name"] == "shop_weather"
        schema = tools["order_status"].schema["function"]
        assert schema["description"] == "Tell how far an order has come."
        assert schema["parameters"]["properties"]["number"]["type"] == "string"
        told = await use(tools, "order_status", number="1234")
        assert told.content.startswith("Order 1234 is on its way.")
        assert told.content.endswith("key=s3cret")
        assert told.outside
        assert tools["order_status"].foreign
        assert (await use(tools, "shop_weather", city="Rome")).content == "It rains in Rome."
        failed = await use(tools, "fail")
        assert not failed.ok
        assert "no such order" in failed.content
        wrong = await use(tools, "order_status", colour="red")
        assert not wrong.ok
        assert "number" in wrong.content
        assert (await use(tools, "order_status", number="5")).ok  # none of that has harmed the server


async def test_a_child_that_dies_under_a_tool_is_started_again_and_the_tool_is_not_run_again() -> None:
    async with served(mcp=[stdio()]) as box:
        before = await status(box)
        died = await use(box.tools(), "die", within=20)
        assert died.content == "Error: the service of die broke; it may or may not have been done."
        after = await until_back(box, before)
        assert re.search(r"pid=(\d+)", after) != re.search(r"pid=(\d+)", before)


async def test_a_child_that_dies_by_itself_is_noticed_and_started_again() -> None:
    async with served(mcp=[stdio()]) as box:
        before = await status(box)
        found = re.search(r"pid=(\d+)", before)
        assert found
        os.kill(int(found[1]), signal.SIGKILL)
        assert await until_back(box, before) != before


async def test_a_tool_that_hangs_is_given_up_and_the_others_go_on() -> None:
    async with served(mcp=[stdio([{"name": "hang", "timeout_s": 0.3}, "order_status"])]) as box:
        assert "took too long" in (await use(box.tools(), "hang")).content
        assert (await status(box)).startswith("Order 1234")


async def test_tools_of_a_server_over_http_come_go_and_come_back() -> None:
    port = free_port()
    server = {"name": "shop", "url": f"http://127.0.0.1:{port}/mcp", "tools": TOOLS}
    with http_server(port) as process:
        async with served(mcp=[server]) as box:
            before = await status(box)
            assert before.startswith("Order 1234 is on its way.")
            process.kill()
            process.wait()
            away = await status(box)
            assert away.startswith("Error: the service of order_status")
            with http_server(port):
                assert (await until_back(box, before)).startswith("Order 1234 is on its way.")


async def test_a_server_that_was_never_there_has_no_tools_and_keeps_nobody_waiting() -> None:
    missing = {"name": "gone", "command": ["/no/such/server"], "tools": ["x"]}
    async with asyncio.timeout(LONG_S), toolbox(tools=["date_time"], mcp=[missing]) as box:
        assert set(box.tools()) == {"date_time"}
        await box.servers[0].tried.wait()
        assert set(box.tools()) == {"date_time"}
        assert not box.servers[0].listed.is_set()
        assert "/no/such/server" in box.servers[0].fault


async def test_only_the_tools_named_are_offered_and_on_the_terms_said() -> None:
    refund = {"name": "refund", "policy": "confirm", "question": "Shall I refund {number}?"}
    status_of = {"name": "order_status", "allow": {"number": ["1", "2"]}}
    async with served(mcp=[stdio([refund, status_of, "never_heard_of"])]) as box:
        tools = box.tools()
        assert set(tools) == {"refund", "order_status"}
        assert tools["refund"].confirm
        assert tools["refund"].question({"number": "7"}) == "Shall I refund 7?"
        assert (
            await use(tools, "order_status", number="3")
        ).content == "Error: number: should be one of 1, 2."
        assert (await use(tools, "order_status", number="2")).ok


async def test_no_child_outlives_the_toolbox() -> None:
    async with served(mcp=[stdio()]) as box:
        found = re.search(r"pid=(\d+)", await status(box))
    assert found
    for _ in range(100):
        try:
            os.kill(int(found[1]), 0)
        except ProcessLookupError:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the child is still there")
