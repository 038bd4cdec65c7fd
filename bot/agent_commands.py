"""``parley agents``: who there is, which calls are whose, and keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from bot.console import errors, fail, read_settings

if TYPE_CHECKING:
    from bot.agent_folder import AgentFolder
    from bot.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Those who answer: one YAML file each.")


@app.command("list")
def list_() -> None:
    """List the agents, and which calls each answers. What is wrong with the others is said, too."""
    settings, found = _read()
    table = Table(Column("Agent", no_wrap=True), "Name", "Page", "By phone", "Key", box=None, pad_edge=False)
    for name, agent in found.agents.items():
        calls = [agent.answers.said()] if agent.answers else []
        if name == (settings.sip.agent or settings.agent):
            calls.append("all others")
        page = f"/a/{name}/" + (" and /" if name == settings.agent else "")
        wanted = "wanted" if agent.keys else ""
        table.add_row(*map(escape, (name, agent.name, page, "; ".join(calls) or "none", wanted)))
    Console().print(table)
    for fault in found.faults.values():
        errors.print(fault, style="yellow", markup=False, highlight=False, soft_wrap=True)


@app.command()
def check() -> None:
    """Say whether every agent is good, each by itself and beside the others."""
    settings, found = _read()
    from bot.agent_folder import first_names

    faults = list(found.faults.values())
    missing = [name for name in first_names(settings) if name not in found.agents | found.faults]
    faults += [f"There is no agent {name!r}, who is to answer." for name in missing]
    if faults:
        fail("\n".join(faults))
    count = "1 agent" if len(found.agents) == 1 else f"{len(found.agents)} agents"
    Console().print(f"{count} in {settings.agents_dir}: fine.", markup=False, highlight=False, soft_wrap=True)


@app.command()
def key() -> None:
    """Make a key, and the line for the file of the agent that it is to open."""
    from bot.agent_keys import digest, new_key

    made = new_key()
    typer.echo(f"The key, for whoever may call; it is kept nowhere:\n\n  {made}\n")
    typer.echo(f'For the agent\'s file:\n\n  keys: ["{digest(made)}"]')


def _read() -> tuple[Settings, AgentFolder]:
    from bot import log

    log.set_up("ERROR")
    from bot.agent_folder import read_agents
    from bot.agents import AgentError

    settings = read_settings()
    try:
        return settings, read_agents(settings)
    except AgentError as error:
        fail(str(error))
