"""Saying no to a message, in the protocol's own words."""

from __future__ import annotations

from typing import Literal

from model_runtime.protocol import Error

Code = Literal["capacity", "version", "voice", "bad_request", "context", "internal"]


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """What was asked cannot be done; ``error`` is the frame that says so. ``fatal`` ends the session."""

    def __init__(self, code: Code, message: str, *, turn: int = -1, fatal: bool = False) -> None:
        """``message``: one sentence, for a person to read."""
        super().__init__(message)
        self.error = Error(code=code, message=message, turn=turn, fatal=fatal)
