"""Agents: who answers a call.

One YAML file each, checked when Parley starts, so that a call never finds a broken one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class AgentError(Exception):
    """An agent cannot be used. The message names the file, the field and what is wrong with it."""


class Agent(BaseModel):
    """What one YAML file says."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    name: Text = Field(description="How the agent is called, shown on the page")
    instructions: str = Field(default="", description="The system prompt: who the agent is and how it speaks")
    greeting: str = Field(default="", description="What it says first; empty: it waits for the caller")
    voice: str = Field(
        default="",
        description="The name of one of the checkpoint's voices, or of the voice library; empty: its default",
    )
    tools: tuple[Text, ...] = Field(
        default=(), max_length=0, description="Names of the tools it may call; there are none yet"
    )
    language: str = Field(
        default="en", pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]+)*$", description="What it speaks (BCP 47)"
    )
    examples: tuple[Text, ...] = Field(default=(), description="Things to ask it, shown on the page")


def load_agent(folder: Path, name: str) -> Agent:
    """Read ``folder/name.yaml``. Raises ``AgentError``."""
    path = folder / f"{name}.yaml"
    if Path(name).name != name or not path.is_file():
        known = ", ".join(sorted(found.stem for found in folder.glob("*.yaml"))) or "none at all"
        raise AgentError(f"There is no agent {name!r} in {folder}; there is: {known}.")
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AgentError(f"{path}: cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise AgentError(f"{path}: is not UTF-8 text.") from None
    except yaml.YAMLError as error:
        raise AgentError(
            f"{path}{_where(error)}: is not YAML: {getattr(error, 'problem', None) or error}."
        ) from None
    if not isinstance(content, dict):
        raise AgentError(f"{path}: should hold fields, such as 'name: ...', and does not.")
    try:
        return Agent.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(f"{_field(fault['loc'])}: {_reason(fault)}" for fault in error.errors())
        raise AgentError(f"{path}: {faults}.") from None


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}" if mark else ""


def _field(location: tuple[int | str, ...]) -> str:
    return ".".join(f"[{part + 1}]" if isinstance(part, int) else str(part) for part in location).replace(
        ".[", "["
    )


def _reason(fault: Any) -> str:
    if fault["type"] == "extra_forbidden":
        return f"there is no such field (there are {', '.join(Agent.model_fields)})"
    if fault["type"] == "missing":
        return "is missing"
    return str(fault["msg"])[0].lower() + str(fault["msg"])[1:]
