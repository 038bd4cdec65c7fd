"""Looking things up in the agent's own documents."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bot.tools.function import ToolContext, tool
from pipeline.tools.tool import Found, ToolError

Query = Annotated[str, Field(description="What the caller wants to know, in a few words", max_length=500)]


# A document may come from anybody, so its words are a stranger's: they must not lead to what is privileged.
@tool(outside=True, speculative=True, max_chars=4000)
async def search_knowledge(query: Query, *, context: ToolContext) -> Found:
    """Look something up in our own documents. Answer from what they say, and name the document."""
    if context.knowledge is None:
        raise ToolError("there is no knowledge base here.")
    answer = await context.knowledge(query)
    return Found(answer.said(), answer.sources)
