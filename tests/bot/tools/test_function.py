"""A Python function as a tool: what the model is told of it, and what it may give."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from bot.settings import ToolSettings
from bot.tools import http
from bot.tools.function import BadTool, Terms, ToolContext, ToolFunction, tool
from bot.tools.registry import find
from bot.tools.uses import ToolUse
from pipeline.tools.tool import Line, ToolError
from tests.bot.tools.kit import use


class Options(BaseModel):
    """Of the tool below."""

    model_config = ConfigDict(extra="forbid")

    greeting: str = "Hello"


@tool
async def greet(
    name: Annotated[str, Field(description="Whom", max_length=10)],
    times: int = 1,
    tone: Literal["warm", "cold"] = "warm",
    *,
    options: Options,
    context: ToolContext,
) -> dict[str, Any]:
    """Greet somebody.

    This is for readers of the code.
    """
    return {"said": [f"{options.greeting}, {name}"] * times, "tone": tone, "zone": context.time_zone}


def bound(function: ToolFunction, options: dict[str, Any] | None = None, **terms: Any) -> dict[str, Any]:
    made = function.bind(lambda: ToolContext(ToolSettings(), http.client()), options or {}, Terms(**terms))
    return {function.name: made}


def test_the_model_is_told_what_the_signature_says() -> None:
    function = bound(greet)["greet"].schema["function"]
    assert function["name"] == "greet"
    assert function["description"] == "Greet somebody."
    assert function["parameters"] == {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 10, "description": "Whom"},
            "times": {"type": "integer", "default": 1},
            "tone": {"type": "string", "enum": ["warm", "cold"], "default": "warm"},
        },
        "required": ["name"],
    }


@pytest.mark.parametrize(
    ("arguments", "content"),
    [
        ({"name": "Ann"}, '{"said": ["Hello, Ann"], "tone": "warm", "zone": "UTC"}'),
        ({"name": "Ö", "times": 2}, '{"said": ["Hello, Ö", "Hello, Ö"], "tone": "warm", "zone": "UTC"}'),
        ({}, "Error: name: field required."),
        ({"name": "a" * 11}, "Error: name: string should have at most 10 characters."),
        ({"name": 5, "tone": "warm"}, "Error: name: input should be a valid string."),
        ({"name": "Ann", "tone": "rude"}, "Error: tone: should be one of warm, cold."),
        ({"name": "Ann", "admin": True}, "Error: admin: there is no such field."),
        ({"name": "Ann", "options": {}}, "Error: options: there is no such field."),
    ],
)  # fmt: skip
async def test_arguments_are_checked_and_faults_told_to_the_model(
    arguments: dict[str, Any], content: str
) -> None:
    tools = bound(greet)
    assert (await use(tools, "greet", arguments=arguments)).content == content


async def test_terms_narrow_what_a_tool_may_do() -> None:
    tools = bound(greet, {"greeting": "Hi"}, allow={"name": ("Ann", "Bob")}, max_chars=50)
    assert tools["greet"].schema["function"]["parameters"]["properties"]["name"]["enum"] == ["Ann", "Bob"]
    assert (
        await use(tools, "greet", arguments={"name": "Eve"})
    ).content == "Error: name: should be one of Ann, Bob."
    long = await use(tools, "greet", arguments={"name": "Bob", "times": 9})
    assert len(long.content) == 50
    assert long.content.endswith(" ... (cut short)")


async def test_a_plain_function_may_wait_without_holding_up_the_call() -> None:
    def slow() -> str:
        """Take a while."""
        time.sleep(0.4)
        return "done"

    patient = bound(tool(timeout_s=30)(slow))
    assert (await use(patient, "slow", within=30)).content == "done"
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)

    ticking = asyncio.create_task(tick())
    outcome = await use(bound(tool(timeout_s=0.2)(slow)), "slow")
    ticking.cancel()
    assert "took too long" in outcome.content
    assert ticks > 2


async def test_a_tool_may_refuse_in_its_own_words() -> None:
    @tool
    async def never() -> str:
        """Refuse."""
        raise ToolError("not on Sundays.")

    assert (await use(bound(never), "never")).content == "Error: not on Sundays."


@tool(privileged=True, question="Shall I cancel {number}?")
async def cancel(number: str) -> str:
    """Cancel an order."""
    return number


def test_a_privileged_tool_needs_the_agents_word() -> None:
    with pytest.raises(BadTool, match="cancel is privileged: say 'policy: confirm'"):
        bound(cancel)
    allowed, confirmed = bound(cancel, policy="allow")["cancel"], bound(cancel, policy="confirm")["cancel"]
    assert (allowed.privileged, allowed.confirm) == (True, False)
    assert (confirmed.privileged, confirmed.confirm) == (True, True)
    assert confirmed.question({"number": "7"}) == "Shall I cancel 7?"
    asked = bound(greet, policy="confirm")["greet"]  # a plain tool may be made a privileged one
    assert asked.question({"name": "Ann", "times": 2}) == "Shall I do this: greet, name Ann, times 2?"


def no_docstring(x: int) -> int:
    return x


def no_type(x) -> str:  # type: ignore[no-untyped-def]  # what is tested
    """Do something."""
    return str(x)


def any_number(*numbers: int) -> str:
    """Do something."""
    return str(numbers)


def strange_type(line: Line) -> str:
    """Do something."""
    return str(line)


def strange_gift(*, loop: asyncio.AbstractEventLoop) -> str:
    """Do something."""
    return str(loop)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (no_docstring, "has no docstring"),
        (no_type, "x needs a name and a type"),
        (any_number, "needs a name and a type"),
        (strange_type, "cannot be described to a model"),
        (strange_gift, "Parley gives Line, ToolContext"),
    ],
)
def test_a_function_that_is_no_tool_is_refused_with_the_reason(function: Any, said: str) -> None:
    with pytest.raises(BadTool, match=said):
        tool(function)


@pytest.mark.parametrize(
    ("options", "terms", "said"),
    [
        ({"colour": "red"}, {}, "greet: options: colour: there is no such field"),
        ({}, {"allow": {"who": ("Ann",)}}, "it has no argument 'who'"),
        ({}, {"policy": "confirm", "question": "Shall I greet {whom}?"}, "'whom' is no argument of it"),
    ],
)
def test_terms_that_do_not_fit_are_refused(options: dict[str, Any], terms: dict[str, Any], said: str) -> None:
    with pytest.raises(BadTool, match=said):
        bound(greet, options, **terms)


OWN = '''
from bot.tools.function import tool

def plain(number: str) -> str:
    """Look up an order."""
    return "found " + number

@tool(privileged=True)
def marked() -> str:
    """Do it."""
    return "done"

nothing = 3
'''


async def test_an_operators_own_file(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    function = find(ToolUse(name="plain", file="own.py"), tmp_path)
    assert (await use(bound(function), "plain", arguments={"number": "7"})).content == "found 7"
    assert find(ToolUse(name="marked", file="own.py"), tmp_path).privileged
    (tmp_path / "bad.py").write_text("import nothing_like_it")
    for name, file, said in (
        ("nothing", "own.py", "there is no function 'nothing'"),
        ("absent", "own.py", "there is no function 'absent'"),
        ("x", "gone.py", "there is no file"),
        ("x", "bad.py", "cannot be loaded: ModuleNotFoundError"),
        ("x", "", "there is no tool 'x'"),
    ):
        with pytest.raises(BadTool, match=said):
            find(ToolUse(name=name, file=file), tmp_path)
