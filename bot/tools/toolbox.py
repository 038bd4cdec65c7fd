"""An agent's tools, ready for calls: owns what they need, an HTTP client and the MCP servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import httpx

from bot.beside import beside
from bot.knowledge.knowledge import Knowledge
from bot.settings import ToolSettings
from bot.tools import http
from bot.tools.function import ToolContext
from bot.tools.knowledge import search_knowledge
from bot.tools.registry import find
from bot.voices.finder import VoiceFinder
from pipeline.tools.tool import Tool

if TYPE_CHECKING:
    from bot.agents import Agent
    from bot.tools.mcp_servers import McpConnection


class Toolbox:
    """What a call is given when it begins: an MCP server that came since is in it."""

    def __init__(self, own: dict[str, Tool], servers: Sequence[McpConnection] = ()) -> None:
        """Made by ``open_toolbox``."""
        self.servers = servers
        self._own = own

    def tools(self) -> dict[str, Tool]:
        """By the names the model knows them by: an MCP server's are prefixed where another has the name."""
        tools = dict(self._own)
        for server in self.servers:
            for name, tool in server.tools.items():
                free = name not in tools
                tools[name if free else f"{server.name}_{name}"] = tool if free else server.renamed(name)
        return tools


@asynccontextmanager
async def open_toolbox(
    settings: ToolSettings,
    agent: Agent,
    voices: VoiceFinder | None = None,
    knowledge: Knowledge | None = None,
    client: httpx.AsyncClient | None = None,
) -> AsyncIterator[Toolbox]:
    """The tools of one agent; MCP servers are started, but not waited for. Raises ``BadTool``.

    ``client``: of ``http.client``, where several agents share one; else it has its own.
    """
    ask = partial(knowledge.search, agent.base) if knowledge else None
    async with AsyncExitStack() as stack:
        if client is None:
            client = await stack.enter_async_context(http.client())
        context = ToolContext(settings, client, agent.time_zone, agent.language, voices, ask)
        own = {
            use.name: find(use, agent.folder).bind(lambda: context, use.options, use.terms)
            for use in agent.tools
        }
        if knowledge and search_knowledge.name in own:
            # Else the first caller who asks would wait for an encoder to be loaded.
            ready = knowledge.prepare(agent.base)
            await stack.enter_async_context(beside(ready, f"knowledge of {agent.base}"))
        servers = []
        if agent.mcp:
            connection = await asyncio.to_thread(_mcp_connection)  # beside calls, where agents are read anew
            servers = [await stack.enter_async_context(connection(server)) for server in agent.mcp]
        yield Toolbox(own, servers)


def _mcp_connection() -> type[McpConnection]:
    """What needs MCP's library, which takes longer to load than all else of the bot's own."""
    from bot.tools.mcp_servers import McpConnection

    return McpConnection
