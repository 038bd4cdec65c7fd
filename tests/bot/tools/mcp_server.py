"""A real MCP server for tests: ``python -m tests.bot.tools.mcp_server [PORT]``; without a port over stdio."""

from __future__ import annotations

import os
import sys

import anyio
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("shop")


@server.tool()
def order_status(number: str) -> str:
    """Tell how far an order has come."""
    return f"Order {number} is on its way. pid={os.getpid()} key={os.environ.get('SHOP_KEY', '')}"


@server.tool()
def weather(city: str) -> str:
    """Tell the weather in the shop's own words."""
    return f"It rains in {city}."


@server.tool()
def fail() -> str:
    """Fail."""
    raise ToolError("no such order")


@server.tool()
async def die() -> str:
    """Kill the server in the middle of it."""
    os._exit(1)


@server.tool()
async def hang() -> str:
    """Never return."""
    await anyio.sleep_forever()
    return ""


@server.tool()
def refund(number: str) -> str:
    """Give the money back."""
    return f"Refunded {number}."


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run("stdio")
