"""What a call owes: questions and prompts not yet answered, and results of tools not yet delivered.

An engine may die at any moment, and takes with it whatever it had not said that it knows. What it has not
accounted for is owed again, to the caller or to the next engine.
"""

from __future__ import annotations

from model_runtime.protocol import ToolResult
from pipeline.answer import Answer
from pipeline.tools.ledger import ToolLedger
from pipeline.turns import Speculate


class Owed:
    """One call's debts.

    Attributes:
        prompt: waits for the floor to be free; "" has the history answered as it stands.
        question: what the caller said and no engine lived to answer.
        again: a turn that had asked for tools died with its engine: what it answered is answered again.
    """

    def __init__(self, tools: ToolLedger) -> None:
        """Nothing, but the results in ``tools``."""
        self.prompt: str | None = None
        self.question: Speculate | None = None
        self.again = False
        self._tools = tools
        self._sent: set[str] = set()  # results that this session of the engine was given
        self._unaccounted: dict[int, Speculate] = {}  # asked for tools; no engine has said it knows the turn

    def lost(self, answer: Answer) -> None:
        """The engine of ``answer`` is gone, and will never know that it was given."""
        self.again |= answer.again
        if answer.to_voice:
            self.question = answer.asked
        else:
            self.prompt = answer.prompt

    def paid(self, answer: Answer) -> None:
        """``answer`` is being spoken."""
        self.again = False
        if answer.to_voice:
            if answer.sees_prompt:
                self.prompt = None
            self.question = None

    def asked_for_tools(self, answer: Answer) -> None:
        """Its engine has been told that it was given, and has not said yet that it knows."""
        self._unaccounted[answer.turn] = answer.asked

    def accounted(self, turn: int) -> None:
        """The engine has told the history of ``turn``: the next one can be given it."""
        self._unaccounted.pop(turn, None)

    def new_session(self) -> None:
        """Another engine knows what the record says, and no result of a tool.

        Turns that have asked for tools and are not in that record are to be answered again.
        """
        self._sent.clear()
        for turn, asked in self._unaccounted.items():
            self.again |= self._tools.lose(turn)
            if asked.spans:
                self.question = self.question.after(asked) if self.question else asked
        self._unaccounted.clear()

    def results(self) -> list[ToolResult]:
        """Those the engine may not have; it is to be given them now."""
        new = [result for result in self._tools.undelivered if result.id not in self._sent]
        self._sent.update(result.id for result in new)
        return new
