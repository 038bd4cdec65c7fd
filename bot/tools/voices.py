"""Changing the voice in the middle of a call: Step-Audio 2's audio search."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from bot.tools.function import ToolContext, tool
from bot.voices.finder import VoiceFinder, voice_finder
from bot.voices.library import Library
from bot.voices.shared import SharedVoices
from pipeline.tools.tool import Line, ToolError

if TYPE_CHECKING:
    from bot.agents import Agent
    from bot.settings import Settings

Description = Annotated[
    str,
    Field(description="The caller's words for the voice, such as: a deep, slow man", max_length=300),
]


@tool
async def search_voice(description: Description, *, line: Line, context: ToolContext) -> str:
    """Find a voice by its description and speak in it from now on, when the caller wants to hear another."""
    if context.voices is None:
        raise ToolError("there is no voice library here.")
    found = await context.voices.find(description, line.voice)
    if found is None:
        raise ToolError("no other voice fits that description.")
    await line.speak_as(found.name)
    described = found.description.rstrip(".") or "it has no description"
    return f"You speak in the voice {found.name} now: {described}."


def searches_voices(agent: Agent) -> bool:
    """Whether the agent has the tool."""
    return any(use.name == search_voice.name for use in agent.tools)


@asynccontextmanager
async def voices_for(
    settings: Settings, *agents: Agent, shared: SharedVoices | None = None
) -> AsyncIterator[VoiceFinder | None]:
    """What the tool searches; ``None`` if no agent has it, for reading the library takes seconds."""
    if not any(map(searches_voices, agents)):
        yield None
        return
    async with voice_finder(Library(settings).entries, settings.voices_dir, shared) as finder:
        yield finder
