"""Running one tool the model asked for, and putting what came of it into words the model can read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from loguru import logger

from model_runtime.protocol import ToolCall
from pipeline.tools.tool import Found, Line, Tool, ToolError

Objection = Callable[[Tool, dict[str, Any]], Awaitable[str]]
"""Why a tool may not be run with these arguments, now; empty if it may. Waits for the caller's words."""


@dataclass(frozen=True)
class Outcome:
    """What the model is told, and whether the tool did its work."""

    content: str
    ok: bool
    outside: bool = False  # it holds words of strangers
    sources: tuple[str, ...] = ()  # where it was found


async def run_tool(
    tools: Mapping[str, Tool],
    call: ToolCall,
    within: float,
    line: Line,
    objection: Objection,
    begin: Callable[[], None],
    looked: Awaitable[str | Found] | None = None,
) -> Outcome:
    """Run ``call`` once. Whatever goes wrong becomes an outcome: a tool never breaks the call.

    ``begin`` is called before the tool does anything. ``looked``: what comes of it, if begun before. The
    model learns that a tool failed, not how: an exception's text may hold what a caller must not be told.
    """
    if call.error:
        return Outcome(f"Error: the call was malformed: {call.error}", ok=False)
    tool = tools.get(call.name)
    if tool is None:
        return Outcome(f"Error: there is no tool named {call.name}.", ok=False)
    within = tool.timeout_s or within
    try:
        arguments = tool.check(call.arguments)
        if why_not := await objection(tool, arguments):
            return Outcome(why_not, ok=False)
        begin()
        async with asyncio.timeout(within):
            came = await (looked or tool.run(arguments, line))
        found = came if isinstance(came, Found) else Found(came)
        return Outcome(found.content, ok=True, outside=tool.outside, sources=found.sources)
    except ToolError as error:
        return Outcome(f"Error: {error}", ok=False, outside=tool.outside)
    except TimeoutError:
        logger.error(f"tool {call.name} took longer than {within} s")
        return Outcome(f"Error: {call.name} took too long; it may or may not have been done.", ok=False)
    except Exception:
        logger.exception(f"tool {call.name} failed")
        return Outcome(f"Error: {call.name} failed.", ok=False)
