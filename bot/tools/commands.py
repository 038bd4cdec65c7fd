"""``parley tools``: what there is, and trying one without a call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from bot.console import errors, fail, read_settings
from pipeline.tools.tool import CannotTransfer, ToolError

if TYPE_CHECKING:
    from bot.agents import Agent
    from bot.settings import Settings
    from bot.tools.toolbox import Toolbox
    from pipeline.tools.tool import Tool

MCP_WAIT_S = 10.0  # for an agent's MCP servers to come up

app = typer.Typer(no_args_is_help=True, help="The tools an agent can be given.")
AgentName = Annotated[str | None, typer.Option("--agent", help="Whose tools; else PARLEY_AGENT's.")]


@app.command("list")
def list_(agent: AgentName = None) -> None:
    """List the tools that ship, and those of the agent."""
    settings, chosen = _agent(agent)
    from bot.tools.registry import SHIPPED

    own, faults = asyncio.run(_tools(settings, chosen))
    table = Table(
        Column("Tool", no_wrap=True), "What it does", "Arguments", "The agent", box=None, pad_edge=False
    )
    for name, tool in own.items():
        function = tool.schema["function"]
        table.add_row(name, function["description"], _arguments(function["parameters"]), _terms(tool))
    for name, shipped in SHIPPED.items():
        if name not in own:
            kind = "[dim]no (privileged)[/]" if shipped.privileged else "[dim]no[/]"
            table.add_row(name, shipped.description, _arguments(shipped.arguments.model_json_schema()), kind)
    Console().print(table)
    for fault in faults:
        errors.print(fault, style="yellow", markup=False, highlight=False)


@app.command()
def run(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A tool of the agent's, or one that ships.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Its arguments; JSON, or else text.")
    ] = None,
    agent: AgentName = None,
) -> None:
    """Run a tool as a call would, and print what the model would read."""
    given = dict(_pair(argument) for argument in arguments or ())
    settings, chosen = _agent(agent)
    from bot.tools.function import BadTool

    try:
        ok, content = asyncio.run(_run(settings, chosen, name, given))
    except BadTool as error:
        fail(f"{error} An agent's file can give such things.")
    if not ok:
        fail(content)
    typer.echo(content)


def _agent(name: str | None) -> tuple[Settings, Agent]:
    from bot import log

    log.set_up("ERROR")
    from bot.agents import AgentError, load_agent

    settings = read_settings(agent=name)
    try:
        return settings, load_agent(settings.agents_dir, settings.agent)
    except AgentError as error:
        fail(str(error))


async def _ready(toolbox: Toolbox) -> list[str]:
    """Wait until each MCP server has come or failed to. What is wrong with those that are not there."""
    tried = [asyncio.create_task(server.tried.wait()) for server in toolbox.servers]
    if tried:
        _, late = await asyncio.wait(tried, timeout=MCP_WAIT_S)
        for task in late:
            task.cancel()
    away = [server for server in toolbox.servers if not server.listed.is_set()]
    return [f"MCP server {server.name}: {server.fault or 'no answer'}" for server in away]


async def _tools(settings: Settings, agent: Agent) -> tuple[dict[str, Tool], list[str]]:
    from bot.tools.toolbox import open_toolbox

    async with open_toolbox(settings.tools, agent) as toolbox:
        faults = await _ready(toolbox)
        return toolbox.tools(), faults


async def _run(settings: Settings, agent: Agent, name: str, given: Mapping[str, str]) -> tuple[bool, str]:
    from bot.knowledge.knowledge import Knowledge
    from bot.tools.registry import SHIPPED
    from bot.tools.toolbox import open_toolbox
    from bot.tools.uses import ToolUse
    from bot.tools.voices import voices_for
    from model_runtime.protocol import ToolCall
    from pipeline.agent import CallSettings
    from pipeline.tools.runner import run_tool

    async def no_objection(_: Tool, __: dict[str, Any]) -> str:
        return ""  # who sits at the keyboard has agreed

    if name in SHIPPED and all(use.name != name for use in agent.tools):
        use = ToolUse(name=name, policy="allow" if SHIPPED[name].privileged else None)
        agent = agent.model_copy(update={"tools": (*agent.tools, use)})
    async with (
        voices_for(settings, agent) as voices,
        Knowledge(settings.knowledge) as knowledge,
        open_toolbox(settings.tools, agent, voices, knowledge) as toolbox,
    ):
        await _ready(toolbox)
        tools = toolbox.tools()
        properties = tools[name].schema["function"]["parameters"]["properties"] if name in tools else {}
        call = ToolCall(0, name, {key: _value(text, properties.get(key, {})) for key, text in given.items()})
        within = CallSettings().tool_timeout_s
        outcome = await run_tool(tools, call, within, NoCall(agent.voice), no_objection, lambda: None)
    return outcome.ok, outcome.content


class NoCall:
    """``Line`` where there is none."""

    def __init__(self, voice: str = "") -> None:
        """``voice``: what a call would speak in."""
        self.voice = voice

    async def speak_as(self, voice: str) -> None:
        """``Line``: nobody hears it."""
        self.voice = voice

    async def hang_up(self) -> None:
        """``Line``."""
        raise ToolError("there is no call to end.")

    async def transfer(self, target: str, briefing: str | None = None) -> None:
        """``Line``."""
        raise CannotTransfer(f"there is no call to put through to {target}.")


def _pair(argument: str) -> tuple[str, str]:
    key, equals, value = argument.partition("=")
    if not equals:
        fail(f"{argument!r} should be KEY=VALUE.")
    return key, value


def _value(text: str, schema: Mapping[str, Any]) -> Any:
    """Text where text is wanted, else the JSON that it may be."""
    if schema.get("type") == "string":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _arguments(schema: Mapping[str, Any]) -> str:
    """Those that may be left out in brackets, which Rich must not take for markup."""
    required = schema.get("required", ())
    names = schema.get("properties", {})
    return ", ".join(name if name in required else rf"\[{name}]" for name in names)


def _terms(tool: Tool) -> str:
    if not tool.privileged:
        return "yes"
    return "asks the caller first" if tool.confirm else "yes (privileged)"
