"""Tools that may be run on speculation (``Tool.speculative``): begun as soon as the model asks for them.

What a caller asks about is looked up while the answer is still held back, or while its first words ("one
moment") are being heard. If the answer is settled, what was found is its tool's result; if it is dropped,
nobody will ever know. Everything else waits until the turn is settled, see ``desk``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from model_runtime.protocol import ToolCall
from pipeline.tools.tool import Found, Line, Tool

Look = asyncio.Task[str | Found]


class Speculation:
    """One call's looks; it owns their tasks."""

    def __init__(self, tools: Mapping[str, Tool], line: Line) -> None:
        """``line``: for the tools, which have no use for it."""
        self._tools = tools
        self._line = line
        self._looks: list[tuple[ToolCall, Look]] = []  # of the one answer that may be settled next
        self._tasks: set[Look] = set()

    def begin(self, call: ToolCall) -> None:
        """An answer asks for ``call``. What was begun for an answer before it is given up."""
        if self._looks and self._looks[0][0].turn != call.turn:
            self.give_up()
        tool = self._tools.get(call.name)
        if tool is None or not tool.speculative or tool.privileged or call.error:
            return
        look = asyncio.create_task(self._look(tool, call), name=f"{call.name}, on speculation")
        self._tasks.add(look)
        look.add_done_callback(self._ended)
        self._looks.append((call, look))

    async def _look(self, tool: Tool, call: ToolCall) -> str | Found:
        """Here and not in ``begin``, so that whatever is wrong with ``call`` waits for who wants it."""
        return await tool.run(tool.check(call.arguments), self._line)

    def taken(self, call: ToolCall) -> Look | None:
        """What was begun for ``call``, which is now somebody else's to await."""
        for begun, look in self._looks:
            if begun is call:
                self._looks.remove((begun, look))
                return look
        return None

    def give_up(self) -> None:
        """No answer will need what is left."""
        looks, self._looks = self._looks, []
        for _, look in looks:
            look.cancel()

    async def close(self) -> None:
        """The call is over."""
        self.give_up()
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, look: Look) -> None:
        self._tasks.discard(look)
        if not look.cancelled():
            look.exception()  # of one that nobody awaits it is nobody's business
