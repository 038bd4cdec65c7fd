"""Which tools there are, by name, and those in an operator's own files."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bot.tools.call_control import hang_up, transfer
from bot.tools.clock import date_time
from bot.tools.function import BadTool, ToolFunction, tool_of
from bot.tools.search import web_search
from bot.tools.uses import ToolUse
from bot.tools.voices import search_voice
from bot.tools.weather import weather

# The place for every tool that ships, `search_knowledge` among them.
SHIPPED: dict[str, ToolFunction] = {
    function.name: function for function in (date_time, weather, web_search, search_voice, hang_up, transfer)
}


def find(use: ToolUse, folder: Path) -> ToolFunction:
    """The function an agent's file names; its own files are seen from ``folder``. Raises ``BadTool``."""
    if use.file:
        return _from_file(use.name, folder / use.file)
    if use.name not in SHIPPED:
        raise BadTool(
            f"there is no tool {use.name!r} (there are {', '.join(SHIPPED)}; your own need 'from: FILE')"
        )
    return SHIPPED[use.name]


def check(uses: Iterable[ToolUse], folder: Path) -> list[tuple[int, str]]:
    """What is wrong with an agent's tools: which of them, and why."""
    found: list[tuple[int, str]] = []
    seen: set[str] = set()
    for number, use in enumerate(uses):
        try:
            if use.name in seen:
                raise BadTool(f"{use.name} is there twice")
            seen.add(use.name)
            find(use, folder).bind(_not_now, use.options, use.terms)
        except BadTool as error:
            found.append((number, str(error)))
    return found


def _not_now() -> Any:
    raise AssertionError("a tool that is only looked at is not run")


def _from_file(name: str, path: Path) -> ToolFunction:
    """A function of a Python file, which is executed: it is the operator's own."""
    if not path.is_file():
        raise BadTool(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(f"parley_tools_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise BadTool(f"{path}: is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BadTool as error:
        raise BadTool(f"{path}: {error}") from None
    except Exception as error:  # whatever stands in it
        raise BadTool(f"{path}: cannot be loaded: {error!r}") from None
    found = getattr(module, name, None)
    if isinstance(found, ToolFunction):
        return found
    if not callable(found):
        raise BadTool(f"{path}: there is no function {name!r} in it")
    return tool_of(found)
