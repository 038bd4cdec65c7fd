"""Tools of MCP servers (Model Context Protocol): over stdio, as our child, or over streamable HTTP.

One task keeps each server: it connects, lists the tools, looks after the connection and makes it anew when it
breaks. A tool called meanwhile says that its service is away; one whose service breaks under it is not run
again, for nobody knows how far it came.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import httpx2
from loguru import logger
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, TextContent
from mcp.types import Tool as McpTool

from bot.tools.function import BadTool, check_allowed, make_tool
from bot.tools.uses import McpServer, ToolUse
from pipeline.tools.tool import Line, Tool, ToolError

CONNECT_S = 15.0  # for a server to start and list its tools
LOOK_S = 2.0  # between two looks whether it is still there
ANSWER_S = 5.0  # for it to say so
AGAIN_S = (0.2, 1.0, 5.0, 30.0)  # before it is started again, after so many failures in a row
DESCRIPTION_CHARS = 600  # of what a server says of a tool: it goes into every prompt
METHOD_NOT_FOUND = -32601  # JSON-RPC 2.0; a server that has no ping is there nevertheless


class McpConnection:
    """One server, for as long as the context lasts."""

    def __init__(self, server: McpServer) -> None:
        """Nothing is started yet."""
        self.name = server.name
        self.tools: dict[str, Tool] = {}  # by their own names; once known they stay, and say if it is away
        self.listed = asyncio.Event()  # the tools are known
        self.tried = asyncio.Event()  # they are, or a first try has failed
        self.fault = ""  # why it is not there
        self._server = server
        self._known: dict[str, McpTool] = {}
        self._client: Client | None = None
        self._broken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to connect."""
        self._task = asyncio.create_task(self._keep(), name=f"mcp {self.name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect; a child is ended."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})

    def renamed(self, name: str) -> Tool:
        """A tool under its server's name and its own."""
        return self._tool(self._use(name), self._known[name], f"{self.name}_{name}")

    async def _keep(self) -> None:
        failures = 0
        while True:
            try:
                await self._hold()
                failures = 0
            except Exception as error:  # the SDK raises groups of whatever the transport did
                self.fault = _reason(error)
                logger.warning(f"MCP server {self.name}: {self.fault}")
                failures = 1 if self._client else failures + 1
            finally:
                self._client = None
                self.tried.set()
            await asyncio.sleep(AGAIN_S[min(failures, len(AGAIN_S)) - 1])

    async def _hold(self) -> None:
        """One connection, until it breaks."""
        self._broken.clear()
        async with self._http() as http:
            client = Client(self._target(http), cache=None)
            async with asyncio.timeout(CONNECT_S) as connecting:
                async with client:
                    self._list((await client.list_tools()).tools)
                    connecting.reschedule(None)
                    self._client, self.fault = client, ""
                    self.listed.set()
                    self.tried.set()
                    await self._look_after(client)
        raise ConnectionError("the connection broke")

    async def _look_after(self, client: Client) -> None:
        while not self._broken.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._broken.wait(), LOOK_S)
                return
            try:
                async with asyncio.timeout(ANSWER_S):
                    await client.send_ping()
            except MCPError as error:
                if error.error.code != METHOD_NOT_FOUND:
                    return
            except Exception:
                return

    def _http(self) -> httpx2.AsyncClient:
        headers = {name: _expanded(value) for name, value in self._server.headers.items()}
        return httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(10.0, read=300.0))

    def _target(self, http: httpx2.AsyncClient) -> Any:
        if self._server.url:
            return streamable_http_client(self._server.url, http_client=http)
        command, *arguments = self._server.command
        env = {name: _expanded(value) for name, value in self._server.env.items()}
        return StdioServerParameters(command=command, args=arguments, env=env)

    def _list(self, listed: list[McpTool]) -> None:
        """Take the tools the agent's file names; say which of them there are not."""
        known = {tool.name: tool for tool in listed}
        tools: dict[str, Tool] = {}
        for use in self._server.tools:
            if use.name not in known:
                there = ", ".join(known) or "none"
                logger.error(f"MCP server {self.name}: it has no tool {use.name!r} (it has: {there})")
                continue
            try:
                tools[use.name] = self._tool(use, known[use.name], use.name)
            except BadTool as error:
                logger.error(f"MCP server {self.name}: {error}")
        self._known, self.tools = known, tools

    def _use(self, name: str) -> ToolUse:
        return next(use for use in self._server.tools if use.name == name)

    def _tool(self, use: ToolUse, listed: McpTool, name: str) -> Tool:
        schema = dict(listed.input_schema)
        properties = {key: dict(part) for key, part in schema.get("properties", {}).items()}
        for key, values in use.allow.items():
            if key not in properties:
                raise BadTool(f"{use.name}: allow: it has no argument {key!r}")
            properties[key]["enum"] = list(values)
        schema["properties"] = properties

        def check(given: dict[str, Any]) -> dict[str, Any]:
            check_allowed(given, schema)
            return given

        async def run(arguments: dict[str, Any], _: Line) -> str:
            return await self._call(use.name, arguments)

        return make_tool(
            name=name,
            description=(listed.description or name)[:DESCRIPTION_CHARS],
            parameters=schema,
            check=check,
            run=run,
            terms=use.terms,
            privileged=False,
            outside=True,
            foreign=True,
        )

    async def _call(self, name: str, arguments: dict[str, Any]) -> str:
        client = self._client
        if client is None:
            raise ToolError(f"the service of {name} is away at the moment; nothing was done.")
        try:
            result = await client.call_tool(name, arguments)
        except MCPError as error:
            if error.error.code in (-32600, -32601, -32602, -32603):  # the server's own words: it is there
                raise ToolError(f"{name} failed: {error.error.message[:200]}") from None
            self._broken.set()
            raise ToolError(f"the service of {name} broke; it may or may not have been done.") from None
        except Exception as error:
            logger.warning(f"MCP server {self.name}: {name}: {error!r}")
            self._broken.set()
            raise ToolError(f"the service of {name} broke; it may or may not have been done.") from None
        content = _text(result)
        if result.is_error:
            raise ToolError(content[:400] or f"{name} failed.")
        return content


def _text(result: CallToolResult) -> str:
    """What a model can read of it: texts; pictures and the like are only counted."""
    texts = [part.text for part in result.content if isinstance(part, TextContent)]
    others = len(result.content) - len(texts)
    return "\n".join(texts) + (f"\n({others} parts that are no text)" if others else "")


def _expanded(value: str) -> str:
    """``$NAME`` from the environment; anything else as it is."""
    return os.environ.get(value[1:], "") if value.startswith("$") else value


def _reason(error: BaseException) -> str:
    """The first plain exception in a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
