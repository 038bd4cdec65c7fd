"""Running one tool the model asked for, and putting what came of it into words the model can read."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from loguru import logger

from model_runtime.protocol import ToolCall
from pipeline.agent import Tool


@dataclass(frozen=True)
class Outcome:
    """What the model is told, and whether the tool did its work."""

    content: str
    ok: bool


async def run_tool(tools: Mapping[str, Tool], call: ToolCall, within: float) -> Outcome:
    """Run ``call`` once. Whatever goes wrong becomes an outcome: a tool never breaks the call.

    The model learns that a tool failed, not how: an exception's text may hold what a caller must not be told.
    """
    if call.error:
        return Outcome(f"Error: the call was malformed: {call.error}", ok=False)
    tool = tools.get(call.name)
    if tool is None:
        return Outcome(f"Error: there is no tool named {call.name}.", ok=False)
    try:
        async with asyncio.timeout(within):
            return Outcome(await tool.run(call.arguments), ok=True)
    except TimeoutError:
        logger.error(f"tool {call.name} took longer than {within} s")
        return Outcome(f"Error: {call.name} took too long.", ok=False)
    except Exception:
        logger.exception(f"tool {call.name} failed")
        return Outcome(f"Error: {call.name} failed.", ok=False)
