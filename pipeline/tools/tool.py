"""What a tool is to a call, and what a call is to a tool."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol


class ToolError(Exception):
    """A tool cannot do what was asked.

    The message is for the model and so, sooner or later, for the caller: it holds nothing of our insides.
    """


class CannotTransfer(ToolError):  # noqa: N818 - reads as what happened
    """The caller cannot be put through. The message says why."""


class Line(Protocol):
    """The call as a tool may change it."""

    @property
    def voice(self) -> str:
        """The name of the voice it speaks in; empty if that is not known."""

    async def speak_as(self, voice: str) -> None:
        """Go on in another voice."""

    async def hang_up(self) -> None:
        """End the call. Raises ``ToolError`` while the caller speaks."""

    async def transfer(self, target: str, briefing: str | None = None) -> None:
        """Put the caller through to ``target``, in the ingress's terms, and end our part of the call.

        ``briefing``: told first to the person there, who may refuse; the caller waits meanwhile.
        Raises ``CannotTransfer``.
        """


@dataclass(frozen=True)
class Found:
    """What a tool returns that has looked something up."""

    content: str  # what the model will read
    sources: tuple[str, ...] = ()  # where it stands, for people: documents, sites


@dataclass(frozen=True)
class Tool:
    """Something the agent can do.

    Args:
        schema: OpenAI-style, ``{"type": "function", "function": {"name": ..., "parameters": ...}}``.
        run: gets checked arguments and returns what the model will read, and from where it is.
        check: the model's arguments as ``run`` wants them. Raises ``ToolError``.
        timeout_s: for ``run``; ``None`` leaves it to the call's settings.
        privileged: it changes something that matters: see ``pipeline.tools.permission``.
        confirm: privileged, and the caller is always asked first.
        question: what the caller is asked before it, word for word, with checked arguments.
        outside: what it returns holds words of strangers (web pages, documents, other services).
        foreign: what the schema says is theirs, too, and so in the history from the start.
        speculative: it only looks something up, and nobody notices: it may be begun before the turn is surely
            over, and be given up.
    """

    schema: dict[str, Any]
    run: Callable[[dict[str, Any], Line], Awaitable[str | Found]]
    check: Callable[[dict[str, Any]], dict[str, Any]] = dict
    timeout_s: float | None = None
    privileged: bool = False
    confirm: bool = False
    question: Callable[[dict[str, Any]], str] = lambda arguments: "Shall I do that?"
    outside: bool = False
    foreign: bool = False
    speculative: bool = False
