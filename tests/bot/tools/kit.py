"""Tools as an agent has them, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bot.agents import Agent
from bot.settings import ToolSettings
from bot.tools.commands import NoCall
from bot.tools.toolbox import Toolbox, open_toolbox
from bot.voices.finder import VoiceFinder
from model_runtime.protocol import ToolCall
from pipeline.tools.runner import Outcome, run_tool
from pipeline.tools.tool import Line, Tool


@asynccontextmanager
async def toolbox(
    settings: ToolSettings | None = None, voices: VoiceFinder | None = None, **agent: Any
) -> AsyncIterator[Toolbox]:
    """The tools of an agent of these fields."""
    chosen = Agent.model_validate({"name": "A"} | agent)
    async with open_toolbox(settings or ToolSettings(), chosen, voices) as made:
        yield made


async def use(
    tools: dict[str, Tool],
    name: str,
    line: Line | None = None,
    within: float = 5.0,
    arguments: dict[str, Any] | None = None,
    **more: Any,
) -> Outcome:
    """Have the model call a tool, with every permission."""

    async def no_objection(_: Tool, __: dict[str, Any]) -> str:
        return ""

    call = ToolCall(0, name, {**(arguments or {}), **more})
    return await run_tool(tools, call, within, line or NoCall(), no_objection, lambda: None)
