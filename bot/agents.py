"""Agents: who answers a call.

One YAML file each, checked when Parley starts, so that a call never finds a broken one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationError,
)

from bot.agent_keys import Key
from bot.routing import Answers
from bot.tools.registry import check
from bot.tools.uses import Agreeing, McpServer, Use
from pipeline.tools.consent import ENGLISH, AgreeingWords

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class AgentError(Exception):
    """An agent cannot be used. The message names the file, the field and what is wrong with it."""


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # the last when it is not found
        raise ValueError(f"there is no time zone {name!r}; one is written like Europe/Berlin") from None
    return name


class SilencePrompt(BaseModel):
    """What is said to a caller who has fallen silent."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    say: Text = Field(description="The words")
    after_s: float = Field(default=15, ge=3, le=600, description="Seconds in which neither has spoken")
    times: int = Field(default=2, ge=0, le=10, description="How often in a row")
    hang_up: bool = Field(
        default=False, description="Whether the call is then ended, at the next such silence"
    )


WAITING_WORDS = {
    "de": "Einen Moment, bitte.",
    "en": "One moment, please.",
    "es": "Un momento, por favor.",
    "fr": "Un instant, s'il vous plaît.",
    "it": "Un momento, per favore.",
    "ja": "少々お待ちください。",
    "ko": "잠시만 기다려 주세요.",
    "nl": "Een ogenblikje, alstublieft.",
    "pl": "Chwileczkę, proszę.",
    "pt": "Um momento, por favor.",
    "zh": "请稍等。",
}
"""Said to those who wait for a tool, by the agent's language, where its file does not say it better."""


class Waiting(BaseModel):
    """What is said to a caller who waits for a tool."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    say: str = Field(default="", description="The words; empty: those of its language, if Parley has some")
    after_s: float = Field(
        default=0.7, ge=0, le=60, description="Seconds of silence after which they are said; 0: never"
    )
    again_s: float = Field(default=8, ge=1, le=600, description="... and said again")
    times: int = Field(default=2, ge=1, le=10, description="How often, at most, for what the caller said")


class LeaveMessage(BaseModel):
    """What is said to an answering machine, after its beep."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    leave_message: Text = Field(description="The words")


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
    silence: SilencePrompt | None = Field(
        default=None, description="What it does about a caller who has fallen silent; nothing: it waits"
    )
    waiting: Waiting = Field(
        default=Waiting(), description="What it says while a tool takes its time, and when"
    )
    voice_choice: bool = Field(
        default=False, description="Whether callers on the page may have it speak in another voice"
    )
    remember_voice: bool = Field(
        default=False,
        description="Whether callers on the phone who had it speak in another voice hear that one the next "
        "time, too",
    )
    tools: tuple[Use, ...] = Field(default=(), description="The tools it may call, and on what terms")
    mcp: tuple[McpServer, ...] = Field(default=(), description="MCP servers whose tools it may call")
    agreeing: Agreeing | None = Field(
        default=None, description="How its callers say yes, if they do not speak English"
    )
    time_zone: Annotated[str, AfterValidator(_time_zone)] = Field(
        default="UTC", description="Where it is (IANA), for the date and the time"
    )
    language: str = Field(
        default="en", pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]+)*$", description="What it speaks (BCP 47)"
    )
    may_call: tuple[Text, ...] = Field(
        default=(), description="Whom it may call: USER@HOST, * for any characters; none: nobody"
    )
    answering_machine: Literal["hang_up", "ignore"] | LeaveMessage = Field(
        default="ignore", description="What it does when a machine answers its call; ignore: nobody listens"
    )
    examples: tuple[Text, ...] = Field(default=(), description="Things to ask it, shown on the page")
    answers: Answers | None = Field(default=None, description="Which calls by phone are its own")
    keys: tuple[Key, ...] = Field(
        default=(), description="Keys of those who may call it over HTTP; none: whoever reaches it"
    )
    _file: Path = PrivateAttr(default=Path("agent.yaml"))
    _node: yaml.Node | None = PrivateAttr(default=None)

    @property
    def folder(self) -> Path:
        """Where its file is, and what it names is seen from."""
        return self._file.parent

    @property
    def base(self) -> str:
        """Its own name and its knowledge base's: its file's, without ``.yaml``."""
        return self._file.stem

    @property
    def files(self) -> list[Path]:
        """What it is made of: its own file, and those of its tools."""
        return [self._file, *(self.folder / use.file for use in self.tools if use.file)]

    def where(self, *place: int | str) -> str:
        """The file and the line of a field, ``where("answers", "numbers", 0)``, for a person."""
        line = _line(self._node, place).removesuffix(": ")
        return f"{self._file}, {line}" if line else str(self._file)

    @property
    def waiting_words(self) -> str:
        """What its callers hear who wait for a tool; empty: nothing."""
        if not self.waiting.after_s:
            return ""
        return self.waiting.say or WAITING_WORDS.get(self.language.split("-")[0], "")

    @property
    def agreeing_words(self) -> AgreeingWords:
        """What its callers say who agree."""
        if self.agreeing is None:
            return ENGLISH
        return AgreeingWords(frozenset(self.agreeing.words), frozenset(self.agreeing.filler))


def agent_names(folder: Path) -> list[str]:
    """The names of the agents in a folder, good or not. Raises ``AgentError`` if it cannot be read."""
    try:
        found = sorted(path.stem for path in folder.iterdir() if path.suffix == ".yaml")
    except OSError as error:
        raise AgentError(f"{folder}: the agents cannot be read: {error.strerror or error}.") from None
    return [name for name in found if not name.startswith(".")]  # editors' own


def load_agent(folder: Path, name: str) -> Agent:
    """Read ``folder/name.yaml``. Raises ``AgentError``."""
    path = folder / f"{name}.yaml"
    if Path(name).name != name or not path.is_file():
        known = ", ".join(agent_names(folder)) or "none at all"
        raise AgentError(f"There is no agent {name!r} in {folder}; there is: {known}.")
    try:
        text = path.read_text(encoding="utf-8")
        content: Any = yaml.safe_load(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
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
        agent = Agent.model_validate(content)
    except ValidationError as error:
        faults = [(fault["loc"], _reason(fault)) for fault in error.errors()]
    else:
        faults = [(("tools", number), why) for number, why in check(agent.tools, path.parent)]
    if faults:
        said = "; ".join(f"{_line(node, place)}{_field(place)}: {why}" for place, why in faults)
        raise AgentError(f"{path}: {said}.")
    agent._file, agent._node = path, node
    return agent


def _line(node: yaml.Node | None, place: Sequence[int | str]) -> str:
    """Where in the file a field is, as far as it is there."""
    line = None
    for part in place:
        if isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == part), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line
        else:
            break
    return "" if line is None else f"line {line + 1}: "


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f", line {mark.line + 1}" if mark else ""


def _field(location: tuple[int | str, ...]) -> str:
    return ".".join(f"[{part + 1}]" if isinstance(part, int) else str(part) for part in location).replace(
        ".[", "["
    )


def _reason(fault: Any) -> str:
    if fault["type"] == "extra_forbidden":
        known = f" (there are {', '.join(Agent.model_fields)})" if len(fault["loc"]) == 1 else ""
        return f"there is no such field{known}"
    if fault["type"] == "missing":
        return "is missing"
    said = str(fault["msg"]).removeprefix("Value error, ")
    return said[0].lower() + said[1:]
