"""Asking an engine who it is: one short session, opened and closed, by the protocol every call uses."""

from __future__ import annotations

from model_runtime.protocol import Open, Opened
from pipeline.engine_client import EngineClient, EngineGone, EngineRefused

ANSWER_S = 5.0  # an engine that computes for others may take a moment; longer is as good as none


class EngineUnavailable(Exception):  # noqa: N818 - a state of the world, not a fault of ours
    """The engine cannot take a call now. The message is a sentence that says why."""


class EngineFull(EngineUnavailable):
    """The engine is there, and every place is taken."""


async def ask_engine(url: str) -> Opened:
    """What the engine at ``url`` (``ws://host:port`` or ``unix:/path``) says of itself.

    Raises ``EngineUnavailable``; ``EngineFull`` if it is that.
    """
    try:
        async with await EngineClient.open(url, Open(call_id="probe"), ANSWER_S) as session:
            return session.opened
    except EngineRefused as refusal:
        kind = EngineFull if refusal.code == "capacity" else EngineUnavailable
        raise kind(f"The engine takes no calls: {refusal.message}") from None
    except EngineGone:
        raise EngineUnavailable("The engine does not answer.") from None
