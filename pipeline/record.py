"""What a call leaves behind: its conversation, the engine's history of it, and where both are kept."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec
from loguru import logger

from model_runtime.protocol import HistoryEntry
from pipeline.conversation import Conversation, Exchange
from pipeline.memory import CallMemory, Remembered
from pipeline.tools.ledger import ToolLedger

F_TOOLS = "tools"  # the fact that holds the ledger
F_VOICE = "voice"  # ... and the voice that was chosen in the call


class CallRecord:
    """One call's. Everything entered goes to ``memory`` at once, if there is one.

    Args:
        remembered: what was said before the connection broke: the call goes on from there.
        memory: what outlives this process.
    """

    def __init__(self, remembered: Remembered | None = None, memory: CallMemory | None = None) -> None:
        """See the class."""
        self.conversation = remembered.conversation if remembered else Conversation()
        self.history = list(remembered.history) if remembered else []  # a new session goes on from here
        earlier = remembered.facts if remembered else {}
        self.tools = _tools(remembered) if remembered else ToolLedger()
        self.voice = earlier.get(F_VOICE, "")  # empty: nobody chose one
        self._began = earlier.get("began") or _now()
        self._memory = memory
        self._sources: list[str] = []  # of what was looked up for an answer yet to come
        if memory:
            memory.note(**self.facts)
        if memory and remembered:  # what it forgets in this call's time can be told anew
            for entry in self.history:
                memory.entry(entry)
            memory.converse(self.conversation)

    @property
    def greeted(self) -> bool:
        """Whether anything the bot said was heard to its end."""
        return any(not exchange.interrupted for exchange in self.conversation.exchanges)

    def add(self, exchange: Exchange, aside: bool = False) -> None:
        """A settled turn; the first that has words since something was looked up is an answer from that.

        ``aside``: it answers nothing.
        """
        if exchange.bot and self._sources and not aside:
            exchange.sources, self._sources = self._sources, []
        self.conversation.add(exchange)
        self._keep()

    def found(self, sources: Iterable[str]) -> None:
        """A tool has looked something up, there."""
        self._sources += [source for source in sources if source not in self._sources]

    def transcribe(self, turn: int, text: str) -> bool:
        """A transcript that came after its turn was settled. False if there is no such turn."""
        found = self.conversation.transcribe(turn, text)
        if found:
            self._keep()
        return found

    def enter(self, entry: HistoryEntry) -> None:
        """The engine's account of a settled turn; what it had told from that place on is void."""
        self.history = [*self.history[: entry.place], entry]
        if entry.result:
            self.tools.told(entry.result)
            self.keep_tools()
        if self._memory:
            self._memory.entry(entry)

    @property
    def next_turn(self) -> int:
        """The number of the next turn: an engine that was given the history takes no lower one.

        Words said in passing are on record alone.
        """
        turns = [entry.turn for entry in self.history]
        return 1 + max([*turns, *(exchange.turn for exchange in self.conversation.exchanges)], default=-1)

    @property
    def facts(self) -> dict[str, str]:
        """What ``Remembered.facts`` must hold to go on from here."""
        return {"began": self._began, F_TOOLS: self.tools.dump(), F_VOICE: self.voice}

    def speak_as(self, voice: str) -> None:
        """The voice of the rest of the call; empty: the agent's."""
        self.voice = voice
        if self._memory:
            self._memory.note(**{F_VOICE: voice})

    def keep_tools(self) -> None:
        """The ledger has changed."""
        if self._memory:
            self._memory.note(**self.facts)

    def close(self, reason: str) -> None:
        """The call is over; ``reason`` as in ``pipeline.call.CallEnd``."""
        if self._memory:
            self._memory.close(ended=_now(), end=reason)

    def _keep(self) -> None:
        if self._memory:
            self._memory.converse(self.conversation)


def _tools(remembered: Remembered) -> ToolLedger:
    """What was under way when the connection broke."""
    account = remembered.facts.get(F_TOOLS, "")
    known = {entry.result for entry in remembered.history}
    try:
        return ToolLedger.load(account, known) if account else ToolLedger()
    except msgspec.MsgspecError as error:
        logger.error(f"what is remembered of a call's tools cannot be read: {error}")
        return ToolLedger()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
