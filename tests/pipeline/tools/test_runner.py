"""Whatever a tool does, the model gets words and the call goes on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from model_runtime.protocol import ToolCall
from pipeline.tools.runner import run_tool
from pipeline.tools.tool import Line, Tool, ToolError


async def works(arguments: dict[str, Any], _: Line) -> str:
    return f"got {arguments['x']}"


async def breaks(_: dict[str, Any], __: Line) -> str:
    raise RuntimeError("the password is hunter2")


async def hangs(_: dict[str, Any], __: Line) -> str:
    await asyncio.Event().wait()
    raise AssertionError


async def refuses(_: dict[str, Any], __: Line) -> str:
    raise ToolError("there is no such order.")


class NoLine:
    voice = ""

    async def speak_as(self, voice: str) -> None:
        raise AssertionError

    async def hang_up(self) -> None:
        raise AssertionError

    async def transfer(self, target: str, briefing: str | None = None) -> None:
        raise AssertionError(target)


def only_even(arguments: dict[str, Any]) -> dict[str, Any]:
    if arguments["x"] % 2:
        raise ToolError("x: should be even.")
    return {"x": arguments["x"] * 10}


TOOLS = {run.__name__: Tool({}, run) for run in (works, breaks, hangs, refuses)} | {
    "checked": Tool({}, works, check=only_even),
    "slow": Tool({}, hangs, timeout_s=0.001),
    "forbidden": Tool({}, works, privileged=True),
}


@pytest.mark.parametrize(
    ("call", "words", "ok", "begun"),
    [
        (ToolCall(0, "works", {"x": 1}), "got 1", True, True),
        (ToolCall(0, "breaks"), "Error: breaks failed.", False, True),
        (ToolCall(0, "refuses"), "Error: there is no such order.", False, True),
        (ToolCall(0, "hangs"), "Error: hangs took too long; it may or may not have been done.", False, True),
        (ToolCall(0, "slow"), "Error: slow took too long; it may or may not have been done.", False, True),
        (ToolCall(0, "checked", {"x": 2}), "got 20", True, True),
        (ToolCall(0, "checked", {"x": 3}), "Error: x: should be even.", False, False),
        (ToolCall(0, "forbidden", {"x": 1}), "not now", False, False),
        (ToolCall(0, "unknown"), "Error: there is no tool named unknown.", False, False),
        (ToolCall(0, raw="{", error="not JSON"), "Error: the call was malformed: not JSON", False, False),
    ],
)
async def test_outcomes(call: ToolCall, words: str, ok: bool, begun: bool) -> None:
    began: list[bool] = []

    async def objection(tool: Tool, _: dict[str, Any]) -> str:
        return "not now" if tool.privileged else ""

    outcome = await run_tool(TOOLS, call, 0.01, NoLine(), objection, lambda: began.append(True))
    assert (outcome.content, outcome.ok, bool(began)) == (words, ok, begun)
