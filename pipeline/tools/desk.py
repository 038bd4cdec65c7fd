"""Where a call's tools are run: it owns their tasks, asks for permission and keeps the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from loguru import logger

from model_runtime.protocol import ToolCall
from pipeline import page_messages as page
from pipeline.agent import CallAgent, CallSettings
from pipeline.record import CallRecord
from pipeline.tools.consent import consented
from pipeline.tools.ledger import Errand
from pipeline.tools.permission import ASK_FIRST, NOBODY_KNOWS, needs_consent
from pipeline.tools.runner import Outcome, run_tool
from pipeline.tools.speculation import Look, Speculation
from pipeline.tools.tool import Line, Tool
from pipeline.tools.waiting import Waiting

MAX_ROUNDS = 4  # answers in a row, without a word of the caller, that may ask for tools: a model can go round
QUESTION_MARKS = ("?", "？", "؟")
TOO_MANY = "Error: {name} was not run: too many tools in a row. Answer the caller with what there is."

Tell = Callable[[page.PageMessage], Awaitable[None]]


class ToolDesk:
    """One call's.

    Args:
        agent: whose tools.
        settings: timeouts.
        record: the conversation, and the ledger.
        line: what tools may do to the call.
        tell: something for the page.
        news: called after each result; ``answer``: it was the last of its turn, so the model should speak.
    """

    def __init__(
        self,
        agent: CallAgent,
        settings: CallSettings,
        record: CallRecord,
        line: Line,
        tell: Tell,
        news: Callable[[bool], Awaitable[None]],
    ) -> None:
        """See the class."""
        self._agent = agent
        self._settings = settings
        self._record = record
        self._line = line
        self._tell = tell
        self._news = news
        self._tasks: set[asyncio.Task[None]] = set()
        self._speculation = Speculation(agent.tools, line)
        self._agreed: set[int] = set()  # turns whose yes has let a call through
        self._words = asyncio.Event()  # set for a moment when the caller's words have come
        self._rounds = 0
        self._waiting = Waiting(agent.waiting)
        self._asks = False  # the model was told to ask the caller, who has said nothing since
        self._foreign = any(tool.foreign for tool in agent.tools.values())

    @property
    def tools(self) -> Mapping[str, Tool]:
        """By name."""
        return self._agent.tools

    def speculate(self, call: ToolCall) -> None:
        """An answer that may never be heard asks for ``call``: begin what does no harm if it is not."""
        self._speculation.begin(call)

    def take(
        self, turn: int, calls: Sequence[ToolCall], *, to_voice: bool, again: bool, transcribes: bool
    ) -> None:
        """Run what a turn that was just committed asks for, in order.

        Args:
            turn: the turn.
            calls: what it asks for; may be nothing.
            to_voice: it answers the caller's own words.
            again: see ``ToolLedger.enter``.
            transcribes: the caller's words of this turn will be written down.
        """
        self._rounds = 0 if to_voice else self._rounds + 1
        looks = [self._speculation.taken(call) for call in calls]
        self._speculation.give_up()
        if to_voice:
            self._asks = False
        if not calls:
            return
        if to_voice and not again:
            self._waiting.asked()
        errands = self._record.tools.enter(calls, again)
        for errand in errands if self._rounds > MAX_ROUNDS else ():
            if errand.state == "asked":
                self._record.tools.finish(errand, TOO_MANY.format(name=errand.call.name))
        self._record.keep_tools()
        work = self._run(turn, list(zip(errands, looks, strict=True)), to_voice, transcribes)
        task = asyncio.create_task(work, name=f"tools of turn {turn}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def words_for_waiting(self, now: int, free: bool) -> str:
        """What a caller is told now who waits for a tool; mostly nothing. To be asked all the time.

        Args:
            now: how far their audio has come, in samples at 16 kHz.
            free: nobody has the floor, and nothing else is to be said.
        """
        return self._waiting.tick(now, free and self._record.tools.at_work and not self._question_stands)

    @property
    def _question_stands(self) -> bool:
        """Whether it is the caller who is waited for. Words after a question would make their yes void."""
        exchanges = self._record.conversation.exchanges
        heard = exchanges[-1].bot.rstrip() if exchanges else ""
        return self._asks or heard.endswith(QUESTION_MARKS)

    def transcribed(self) -> None:
        """The record has got more of the caller's words."""
        self._words.set()
        self._words.clear()

    async def close(self) -> None:
        """The call is over: tools under way may finish for ``tool_end_s``, then they are broken off."""
        if tasks := set(self._tasks):
            _, late = await asyncio.wait(tasks, timeout=self._settings.tool_end_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await self._speculation.close()

    async def _run(
        self, turn: int, errands: Sequence[tuple[Errand, Look | None]], to_voice: bool, transcribes: bool
    ) -> None:
        for errand, look in errands:
            try:
                if errand.state == "asked":
                    await self._run_one(turn, errand, look, to_voice, transcribes)
                last = errand is errands[-1][0]
                await self._news(last and self._rounds <= MAX_ROUNDS + 1)
            except Exception:  # else the other tools of the turn would never run
                logger.exception(f"tool {errand.call.name}: its result could not be passed on")

    async def _run_one(
        self, turn: int, errand: Errand, look: Look | None, to_voice: bool, transcribes: bool
    ) -> None:
        ledger, call = self._record.tools, errand.call

        async def objection(tool: Tool, arguments: dict[str, Any]) -> str:
            if not needs_consent(tool, to_voice, ledger.outside or self._foreign):
                return ""
            if to_voice and not transcribes:
                return NOBODY_KNOWS.format(name=call.name)
            question = tool.question(arguments)
            if to_voice and turn not in self._agreed:
                await self._heard(turn)
                exchanges = self._record.conversation.exchanges
                if consented(exchanges, turn, question, self._agent.agreeing):
                    self._agreed.add(turn)
                    return ""
            self._asks = True
            return ASK_FIRST.format(question=question)

        def begin() -> None:
            ledger.begin(errand)
            self._record.keep_tools()

        await self._tell(page.ToolUsed(turn, call.name, "running"))
        outcome = Outcome("", ok=False)
        try:
            outcome = await run_tool(
                self.tools, call, self._settings.tool_timeout_s, self._line, objection, begin, look
            )
            ledger.finish(errand, outcome.content, outcome.outside)
            self._record.found(outcome.sources)
        finally:
            self._record.keep_tools()
        await self._tell(page.ToolUsed(turn, call.name, "done" if outcome.ok else "failed"))

    async def _heard(self, turn: int) -> None:
        """Wait for the caller's words of ``turn``, which may come after the answer to them."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.transcript_s):
                while self._record.conversation.unheard(turn):
                    await self._words.wait()
