"""Whatever a tool does, the model gets words and the call goes on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from model_runtime.protocol import ToolCall
from pipeline.agent import Tool
from pipeline.tool_runner import run_tool


async def works(arguments: dict[str, Any]) -> str:
    return f"got {arguments['x']}"


async def breaks(_: dict[str, Any]) -> str:
    raise RuntimeError("the password is hunter2")


async def hangs(_: dict[str, Any]) -> str:
    await asyncio.Event().wait()
    raise AssertionError


TOOLS = {run.__name__: Tool({}, run) for run in (works, breaks, hangs)}


@pytest.mark.parametrize(
    ("call", "words", "ok"),
    [
        (ToolCall(0, "works", {"x": 1}), "got 1", True),
        (ToolCall(0, "breaks"), "Error: breaks failed.", False),
        (ToolCall(0, "hangs"), "Error: hangs took too long.", False),
        (ToolCall(0, "unknown"), "Error: there is no tool named unknown.", False),
        (ToolCall(0, raw="{", error="not JSON"), "Error: the call was malformed: not JSON", False),
    ],
)
async def test_outcomes(call: ToolCall, words: str, ok: bool) -> None:
    outcome = await run_tool(TOOLS, call, within=0.01)
    assert (outcome.content, outcome.ok) == (words, ok)
