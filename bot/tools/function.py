"""A Python function with type hints and a docstring as a tool.

    @tool(privileged=True)
    async def cancel_order(
        number: Annotated[str, Field(description="The order's number", pattern=r"^[0-9]{4}$")],
    ) -> str:
        '''Cancel an order that has not been sent yet.'''

What the model may give are the ordinary parameters. What Parley gives are the keyword-only ones, known
by their type: ``Line`` (the call), ``ToolContext`` (agent, settings, HTTP) and a pydantic model of the
function's own options, which the agent's file fills in. It returns text, what can be written as JSON, or
``Found``: text, and where it was found.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import typing
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, overload

import httpx
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model

from bot.knowledge.knowledge import Answer
from bot.settings import ToolSettings
from bot.voices.finder import VoiceFinder
from pipeline.tools.tool import Found, Line, Tool, ToolError

MAX_CHARS = (
    2000  # about 500 tokens: more is no longer read out, and crowds the conversation out of the context
)
CUT = " ... (cut short)"

Body = Callable[..., Any]


class BadTool(Exception):  # noqa: N818 - reads as what it is wherever it is caught
    """A tool cannot be used as it is written or asked for. The message says why."""


class NoOptions(BaseModel):
    """For functions that have none.

    A model of options may have a method ``parameters`` that lists the values its arguments may have.
    """

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class ToolContext:
    """What a tool may know and use beside its arguments."""

    settings: ToolSettings
    http: httpx.AsyncClient
    time_zone: str = "UTC"  # the agent's (IANA)
    language: str = "en"  # the agent's (BCP 47)
    voices: VoiceFinder | None = None
    knowledge: Callable[[str], Awaitable[Answer]] | None = None  # asks the agent's own base


@dataclass(frozen=True)
class Terms:
    """On what terms an agent has a tool: what its file says.

    ``policy`` and ``question`` are for privileged ones, see ``pipeline.tools.permission``; ``allow`` lists
    the only values an argument may have.
    """

    policy: Literal["allow", "confirm"] | None = None
    question: str = ""
    allow: Mapping[str, tuple[Any, ...]] | None = None
    timeout_s: float | None = None
    max_chars: int | None = None


@dataclass(frozen=True)
class ToolFunction:
    """A function that can be a tool, and what it says of itself."""

    body: Body
    name: str
    description: str
    arguments: type[BaseModel]
    options: type[BaseModel]
    given: Mapping[str, type]  # what Parley gives, by parameter
    privileged: bool = False
    question: str = ""
    outside: bool = False
    speculative: bool = False
    timeout_s: float | None = None
    max_chars: int = MAX_CHARS

    def bind(self, context: Callable[[], ToolContext], options: Mapping[str, Any], terms: Terms) -> Tool:
        """The tool as one agent has it; ``context`` is asked for when it is run.

        Raises ``BadTool`` for options or terms that do not fit it.
        """
        try:
            chosen = self.options.model_validate(dict(options))
        except ValidationError as error:
            raise BadTool(f"{self.name}: options: {faults(error)}") from None
        own: dict[str, tuple[Any, ...]] = getattr(chosen, "parameters", dict)()
        schema = parameters_schema(self.arguments, _known(self, {**own, **(terms.allow or {})}))

        async def run(arguments: dict[str, Any], line: Line) -> str | Found:
            gifts: dict[type, Callable[[], Any]]
            gifts = {Line: lambda: line, ToolContext: context, self.options: lambda: chosen}
            given = {name: gifts[kind]() for name, kind in self.given.items()}
            result = await _called(self.body, arguments | given)
            return result if isinstance(result, Found) else _text(result)

        return make_tool(
            name=self.name,
            description=self.description,
            parameters=schema,
            check=lambda given: self._check(given, schema),
            run=run,
            terms=terms,
            privileged=self.privileged,
            question=self.question,
            outside=self.outside,
            speculative=self.speculative,
            timeout_s=self.timeout_s,
            max_chars=self.max_chars,
        )

    def _check(self, given: dict[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
        check_allowed(given, schema)
        try:
            checked = self.arguments.model_validate(given)
        except ValidationError as error:
            raise ToolError(faults(error)) from None
        return {name: getattr(checked, name) for name in type(checked).model_fields}


def make_tool(
    *,
    name: str,
    description: str,
    parameters: dict[str, Any],
    check: Callable[[dict[str, Any]], dict[str, Any]],
    run: Callable[[dict[str, Any], Line], Awaitable[str | Found]],
    terms: Terms,
    privileged: bool,
    question: str = "",
    outside: bool = False,
    foreign: bool = False,
    speculative: bool = False,
    timeout_s: float | None = None,
    max_chars: int = MAX_CHARS,
) -> Tool:
    """A tool on an agent's terms. Raises ``BadTool`` when they do not suffice."""
    if privileged and terms.policy is None:
        raise BadTool(f"{name} is privileged: say 'policy: confirm' (the caller is asked) or 'policy: allow'")
    limit = terms.max_chars or max_chars
    asks = terms.question or question

    def words(arguments: dict[str, Any]) -> str:
        shown = {key: str(value) for key, value in arguments.items()}
        if asks:
            return asks.format_map(shown)
        listed = ", ".join(f"{key} {value}" for key, value in shown.items())
        return f"Shall I do this: {name.replace('_', ' ')}{', ' + listed if listed else ''}?"

    try:
        words(dict.fromkeys(parameters.get("properties", {}), ""))
    except (KeyError, IndexError, ValueError) as error:
        raise BadTool(f"{name}: question: {error} is no argument of it") from None

    async def limited(arguments: dict[str, Any], line: Line) -> Found:
        came = await run(arguments, line)
        found = came if isinstance(came, Found) else Found(came)
        short = len(found.content) <= limit
        return found if short else replace(found, content=found.content[: limit - len(CUT)] + CUT)

    function = {"name": name, "description": description, "parameters": parameters}
    return Tool(
        schema={"type": "function", "function": function},
        run=limited,
        check=check,
        timeout_s=terms.timeout_s or timeout_s,
        privileged=privileged or terms.policy is not None,
        confirm=terms.policy == "confirm",
        question=words,
        outside=outside,
        foreign=foreign,
        speculative=speculative,
    )


@overload
def tool(body: Body, /) -> ToolFunction: ...
@overload
def tool(
    *,
    privileged: bool = False,
    question: str = "",
    outside: bool = False,
    speculative: bool = False,
    timeout_s: float | None = None,
    max_chars: int = MAX_CHARS,
) -> Callable[[Body], ToolFunction]: ...


def tool(body: Body | None = None, /, **facts: Any) -> ToolFunction | Callable[[Body], ToolFunction]:
    """Make a function a tool.

    Args:
        body: the function; a plain one (not ``async``) runs in a thread, so it may wait.
        facts: ``privileged``: it changes something that matters. ``question``: what the caller is asked
            before it, with ``{argument}`` in it. ``outside``: it returns words of strangers. ``speculative``:
            nobody notices that it has run, so it may be begun before the turn is over, and be given up.
            ``timeout_s``, ``max_chars``: unless the agent's file says otherwise.

    Raises:
        BadTool: the function has no docstring, or a parameter that a model cannot fill in.
    """
    if body is None:
        return lambda function: tool_of(function, **facts)
    return tool_of(body)


def tool_of(body: Body, **facts: Any) -> ToolFunction:
    """See ``tool``."""
    name = body.__name__
    description = inspect.cleandoc(body.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
    if not description:
        raise BadTool(f"{name}: has no docstring: it is what the model knows of it")
    try:
        hints = typing.get_type_hints(body, include_extras=True)
    except (NameError, TypeError) as error:
        raise BadTool(f"{name}: its type hints cannot be read: {error}") from None
    fields: dict[str, Any] = {}
    given: dict[str, type] = {}
    options: type[BaseModel] = NoOptions
    for parameter in inspect.signature(body).parameters.values():
        hint = hints.get(parameter.name)
        if hint is None or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise BadTool(f"{name}: {parameter} needs a name and a type")
        if parameter.kind is not parameter.KEYWORD_ONLY:
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[parameter.name] = (hint, default)
            continue
        if inspect.isclass(hint) and issubclass(hint, BaseModel):
            options = hint
        elif hint not in (Line, ToolContext):
            raise BadTool(f"{name}: {parameter}: Parley gives Line, ToolContext and a model of options")
        given[parameter.name] = hint
    try:
        arguments = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
        arguments.model_json_schema()
    except Exception as error:  # pydantic has many, for types it cannot describe
        raise BadTool(f"{name}: its parameters cannot be described to a model: {error}") from None
    return ToolFunction(body, name, description, arguments, options, given, **facts)


def parameters_schema(arguments: type[BaseModel], allow: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
    """JSON Schema of the arguments, without pydantic's titles, with the values allowed."""
    schema: dict[str, Any] = _untitled(arguments.model_json_schema())
    for name, values in allow.items():
        schema["properties"][name] |= {"enum": list(values)}
    return schema


def check_allowed(given: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    """Raises ``ToolError`` for an argument that is none of the values allowed."""
    for name, value in given.items():
        values = schema.get("properties", {}).get(name, {}).get("enum")
        if values is not None and value not in values:
            raise ToolError(f"{name}: should be one of {', '.join(map(str, values))}.")


def _known(function: ToolFunction, allow: Mapping[str, tuple[Any, ...]]) -> Mapping[str, tuple[Any, ...]]:
    for name in allow:
        if name not in function.arguments.model_fields:
            known = ", ".join(function.arguments.model_fields) or "none"
            raise BadTool(f"{function.name}: allow: it has no argument {name!r} (there are: {known})")
    return allow


def faults(error: ValidationError) -> str:
    """What is wrong, for whoever wrote it: a model or a person."""
    said = []
    for fault in error.errors(include_url=False, include_context=False):
        where = ".".join(map(str, fault["loc"]))
        what = (
            "there is no such field"
            if fault["type"] == "extra_forbidden"
            else fault["msg"].removeprefix("Value error, ")
        )
        said.append(f"{where}: {what[0].lower()}{what[1:]}")
    return "; ".join(said).removesuffix(".") + "."


def _untitled(schema: Any) -> Any:
    """What pydantic makes up from names only takes room in the prompt."""
    if isinstance(schema, list):
        return [_untitled(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: {name: _untitled(part) for name, part in value.items()}
        if key == "properties"
        else _untitled(value)
        for key, value in schema.items()
        if not (key == "title" and isinstance(value, str)) and key != "additionalProperties"
    }


async def _called(body: Body, arguments: Mapping[str, Any]) -> Any:
    if inspect.iscoroutinefunction(body):
        return await body(**arguments)
    return await asyncio.to_thread(body, **arguments)


def _text(result: Any) -> str:
    if isinstance(result, str):
        return result
    plain = TypeAdapter(Any).dump_python(result, mode="json")
    return json.dumps(plain, ensure_ascii=False)


__all__ = ["BadTool", "Field", "Found", "Line", "Terms", "ToolContext", "ToolError", "ToolFunction", "tool"]
