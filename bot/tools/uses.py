"""What an agent's file says of its tools: shapes alone. Whether a tool is there, the registry knows."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from bot.tools.function import Terms

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ToolUse(_Said):
    """One tool, and the terms on which the agent has it."""

    name: Name
    file: str = Field(
        default="",
        validation_alias=AliasChoices("from", "file"),
        description="A Python file of your own, seen from the agent's file",
    )
    policy: Literal["allow", "confirm"] | None = None
    question: str = ""
    allow: dict[str, tuple[Any, ...]] = {}
    timeout_s: float | None = Field(default=None, gt=0, le=300)
    max_chars: int | None = Field(default=None, ge=50, le=20_000)
    options: dict[str, Any] = {}

    @property
    def terms(self) -> Terms:
        """For ``ToolFunction.bind``."""
        return Terms(self.policy, self.question, self.allow, self.timeout_s, self.max_chars)


def _by_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Use = Annotated[ToolUse, BeforeValidator(_by_name)]


class McpServer(_Said):
    """An MCP server: a ``command`` to be started (stdio), or the ``url`` of one that runs (streamable HTTP).

    Only the tools named are offered, each on its own terms. In ``env`` and ``headers`` a value ``$NAME`` is
    the environment variable of that name.
    """

    name: Name
    command: tuple[Text, ...] = ()
    env: dict[str, str] = {}
    url: str = Field(default="", pattern=r"^(https?://.+)?$")
    headers: dict[str, str] = {}
    tools: tuple[Use, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_of_both(self) -> McpServer:
        if bool(self.command) == bool(self.url):
            raise ValueError("should have either a command or a url")
        return self


class Agreeing(_Said):
    """What a caller says who agrees, if not in English: words of a yes, and words that may go with it."""

    words: tuple[Text, ...] = Field(min_length=1)  # not "yes", which YAML takes for true
    filler: tuple[Text, ...] = ()
