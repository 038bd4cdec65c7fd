"""The account of a call's tool calls: which have begun, what came of them, which results the model has. Pure.

A call is entered when its turn is committed, and never for anything less. From then on it goes one way:

    asked -> begun -> done -> told

*begun* is entered before the tool's first step, so whatever dies afterwards (the engine, the caller's
connection, this process), nobody begins it again. *told* is entered when the engine has the result in its
history; until then each new session is given it. The account travels with what is remembered of a call
(``dump``, ``load``).
"""

from __future__ import annotations

import uuid
from collections.abc import Container, Iterable
from typing import Literal

import msgspec

from model_runtime.protocol import ToolCall, ToolResult

UNKNOWN = (
    "Error: the line broke while {name} ran, and it is not known whether it was done. "
    "Say so, and do not run it again unless the caller asks for it."
)
KEPT = 4  # results told of late that are still known, should the history that is left lack them
NOT_BEGUN = "Error: the line broke before {name} was begun, so it was not done."
RUNNING_ALREADY = "Error: {name} was asked for with this once already and is running; its result will come."
DONE_ALREADY = "Error: {name} was run with this once already. It is not run again: its result stands above."


class Errand(msgspec.Struct):
    """One tool call of a committed turn, and how far it has come."""

    id: str
    call: ToolCall
    state: Literal["asked", "begun", "done", "told"] = "asked"
    content: str = ""
    lost: bool = (
        False  # its turn died with the engine: the question will be asked, and may be answered so, again
    )

    @property
    def result(self) -> ToolResult:
        """What the engine is to be told."""
        return ToolResult(self.call.name, self.content, self.id)


class _Account(msgspec.Struct):
    """A ledger as it is stored."""

    errands: list[Errand]
    outside: bool


class ToolLedger:
    """One conversation's, over all its calls."""

    def __init__(self) -> None:
        """Nothing asked."""
        self.outside = False  # words of strangers stand in the history
        self._errands: list[Errand] = []

    @property
    def running(self) -> bool:
        """Whether something asked for is not done yet."""
        return any(errand.state in ("asked", "begun") for errand in self._errands)

    @property
    def at_work(self) -> bool:
        """Whether something is being done this moment."""
        return any(errand.state == "begun" for errand in self._errands)

    @property
    def undelivered(self) -> list[ToolResult]:
        """Results that no engine is known to have in its history, in the order they were asked for."""
        return [errand.result for errand in self._errands if errand.state == "done"]

    def enter(self, calls: Iterable[ToolCall], again: bool = False) -> list[Errand]:
        """The calls of a turn just committed.

        ``again``: the turn answers a question whose first answer was committed and died with the engine. What
        that one asked for is not run a second time.
        """
        entered = [Errand(uuid.uuid4().hex, call) for call in calls]
        for errand in entered if again else ():
            if (first := self._same(errand.call)) is not None:
                words = DONE_ALREADY if first.state in ("done", "told") else RUNNING_ALREADY
                self.finish(errand, words.format(name=errand.call.name))
        told = [errand for errand in self._errands if errand.state == "told" and not errand.lost]
        for errand in told[:-KEPT]:
            self._errands.remove(errand)
        self._errands += entered
        return entered

    def _same(self, call: ToolCall) -> Errand | None:
        for errand in self._errands:
            if errand.lost and (errand.call.name, errand.call.arguments) == (call.name, call.arguments):
                return errand
        return None

    def begin(self, errand: Errand) -> None:
        """It is about to be run."""
        errand.state = "begun"

    def finish(self, errand: Errand, content: str, outside: bool = False) -> None:
        """It is over; ``outside``: what came of it holds words of strangers."""
        errand.state, errand.content = "done", content
        self.outside |= outside

    def told(self, id: str) -> None:
        """The engine has the result of that id in its history."""
        for errand in self._errands:
            if errand.id == id:
                errand.state = "told"

    def lose(self, turn: int) -> bool:
        """The engine died before it knew of ``turn``. Whether the turn had asked for anything."""
        of_turn = [errand for errand in self._errands if errand.call.turn == turn]
        for errand in of_turn:
            errand.lost = True
        return bool(of_turn)

    def dump(self) -> str:
        """The account as text, for ``load``."""
        return msgspec.json.encode(_Account(self._errands, self.outside)).decode()

    @classmethod
    def load(cls, text: str, known: Container[str] = ()) -> ToolLedger:
        """The account of a conversation that broke off: what was under way is not taken up again.

        ``known``: ids of the results in the history that is left, which was not stored at the same moment.

        Raises ``msgspec.DecodeError`` for what no ``dump`` has written.
        """
        account = msgspec.json.decode(text, type=_Account)
        ledger = cls()
        ledger.outside, ledger._errands = account.outside, account.errands
        for errand in account.errands:
            if errand.state in ("asked", "begun"):
                words = UNKNOWN if errand.state == "begun" else NOT_BEGUN
                ledger.finish(errand, words.format(name=errand.call.name))
            errand.state = "told" if errand.id in known else "done"
        return ledger
