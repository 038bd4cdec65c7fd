"""The engine is killed in the middle of a call: the caller's question is answered all the same."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from bot.talk import PlacedCall, place_call
from tests.e2e.server import Server, parley_server
from tests.e2e.shop import QUESTIONS
from tests.e2e.speakers import VOICES, say

pytestmark = pytest.mark.e2e

BACK_S = 60.0  # the engine loads in seconds; a busy CI machine gets room


def engine_of(server: Server) -> int:
    """The process id of the server's engine."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    for child in children:
        if "model_runtime.engine" in Path(f"/proc/{child}/cmdline").read_text():
            return int(child)
    raise AssertionError("the server has no engine")


@pytest.mark.slow
def test_a_question_asked_while_the_engine_dies_is_answered_by_the_next_one(tmp_path: Path) -> None:
    with parley_server(tmp_path / "serve.log") as server:

        def on_turn(what: str) -> None:
            if what == "asking question 2":
                os.kill(engine_of(server), signal.SIGKILL)

        async def call() -> PlacedCall:
            questions = [say(question, VOICES[0]) for question in list(QUESTIONS)[:2]]
            return await place_call(server.url, questions, answer_s=BACK_S, on_turn=on_turn)

        record = asyncio.run(call())
    notices = [message.data["text"] for message in record.messages if message.data.get("type") == "notice"]
    assert any("being started again" in text for text in notices)
    assert any("is back" in text for text in notices)
    assert len(record.turns) == 2
    assert all(len(turn.answer.split()) > 2 for turn in record.turns)  # the second was made by the new engine
