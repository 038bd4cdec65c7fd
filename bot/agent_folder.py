"""All agents of a folder: which of them are good, each by itself and beside the others.

What is wrong with one is said of that one and leaves the others alone. When the folder is read again, an
agent whose file has a fault now stays as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path

from bot.agents import Agent, AgentError, agent_names, load_agent
from bot.routing import EDGE, clash
from bot.settings import Settings, variable

Stamp = tuple[tuple[str, int, int, int], ...]
"""Files at one moment: the path, the time of the last change in ns, the size in bytes, the inode of each."""


@dataclass(frozen=True)
class AgentFolder:
    """What was found, all of it by the agents' names."""

    agents: dict[str, Agent] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)  # a sentence each, with file and line
    stamps: dict[str, Stamp] = field(default_factory=dict)  # of the files each of ``agents`` was made of


def first_names(settings: Settings) -> list[str]:
    """Those without whom Parley cannot be: who answers the page, and who answers the phone."""
    return list(dict.fromkeys(filter(None, (settings.agent, settings.sip.agent))))


def open_folder(settings: Settings) -> AgentFolder:
    """The agents of the settings. Raises ``AgentError`` if one of ``first_names`` cannot answer."""
    names = first_names(settings)
    found = read_agents(settings)
    for name in names:
        if name in found.faults:
            raise AgentError(found.faults[name])
        if name not in found.agents:
            load_agent(settings.agents_dir, name)  # which says who there is
    return found


def read_agents(settings: Settings, before: AgentFolder | None = None) -> AgentFolder:
    """``read_folder`` as the settings say."""
    return read_folder(
        settings.agents_dir, first_names(settings), before, {*map(str.lower, (*EDGE, *settings.sip.headers))}
    )


def read_folder(
    folder: Path,
    first: Sequence[str] = (),
    before: AgentFolder | None = None,
    headers: Set[str] | None = None,
) -> AgentFolder:
    """Read every agent in ``folder``. Raises ``AgentError`` if the folder cannot be read.

    ``first``: whose side is taken where two say the same, and who stay when their file is gone. An agent
    whose files have not changed since ``before`` is the same object. ``headers``: those of a call that are
    told, in small letters; all if it is left out.
    """
    before = before or AgentFolder()
    names = agent_names(folder)
    agents: dict[str, Agent] = {}
    faults: dict[str, str] = {}
    stamps: dict[str, Stamp] = {}
    for name in sorted({*names, *(name for name in first if name in before.agents)}):
        known = before.agents.get(name)
        if known and before.stamps[name] == stamp(known.files):
            agents[name], stamps[name] = known, before.stamps[name]
            continue
        written = stamp([folder / f"{name}.yaml"])  # before it is read: what changes meanwhile is read again
        try:
            agent = load_agent(folder, name)
            _check_headers(agent, headers)
            agents[name], stamps[name] = agent, written + stamp(agent.files[1:])
        except AgentError as error:
            faults[name] = str(error)
            if known:
                agents[name], stamps[name] = known, before.stamps[name]
    faults |= _part(agents, before.agents, first)
    for name in faults:
        if name in agents:
            stamps[name] = before.stamps[name]
    return AgentFolder(agents, faults, stamps)


def stamp(files: Sequence[Path]) -> Stamp:
    """What changes when one of the files does, or is touched; a missing one has no size."""
    found = []
    for path in files:
        try:
            state = path.stat()
        except OSError:
            found.append((str(path), 0, -1, 0))
        else:
            found.append((str(path), state.st_mtime_ns, state.st_size, state.st_ino))
    return tuple(found)


def _check_headers(agent: Agent, told: Set[str] | None) -> None:
    if agent.answers is None or told is None:
        return
    for name in agent.answers.headers:
        if name.lower() not in told:
            where, setting = agent.where("answers", "headers", name), variable("sip", "headers")
            raise AgentError(f"{where}: nobody is told a call's header {name} unless {setting} names it.")


def _part(agents: dict[str, Agent], before: Mapping[str, Agent], first: Sequence[str]) -> dict[str, str]:
    """Leave no two agents in ``agents`` that say the same, and say of whom it was not taken.

    Of two, who has changed gives way, or else who comes later; to what it was ``before``, or altogether. What
    was before is at peace with itself, so this ends.
    """
    faults: dict[str, str] = {}
    while (found := _quarrel(agents, first)) is not None:
        senior, junior, said = found
        if agents[junior] is before.get(junior):
            senior, junior, said = junior, senior, (said[1], said[0])
        mine, theirs = said
        faults[junior] = f"{mine}: the same stands in {theirs}, and it can only be one agent's."
        if junior in before:
            agents[junior] = before[junior]
        else:
            del agents[junior]
    return faults


def _quarrel(agents: Mapping[str, Agent], first: Sequence[str]) -> tuple[str, str, tuple[str, str]] | None:
    """Two agents that say the same, the elder first, and where the younger and the elder say it."""
    names = sorted(agents, key=lambda name: (first.index(name) if name in first else len(first), name))
    for elder, younger in combinations(names, 2):
        said = _same(agents[younger], agents[elder])
        if said is not None:
            return elder, younger, said
    return None


def _same(one: Agent, other: Agent) -> tuple[str, str] | None:
    """Where two agents say the same, in the file of each."""
    if one.answers and other.answers and (places := clash(one.answers, other.answers)):
        return one.where("answers", *places[0]), other.where("answers", *places[1])
    for at, key in enumerate(one.keys):
        if key in other.keys:
            return one.where("keys", at), other.where("keys", other.keys.index(key))
    return None
