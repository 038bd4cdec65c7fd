"""A leg of ours whose far end does as a test says, and calls on it that do nothing by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bot.ingress.sip import messages as m
from bot.ingress.sip.leg import SipLeg
from bot.ingress.sip.phone import WorkerLeg
from bot.ingress.sip.placed import MachinePolicy
from pipeline.call import CallEnd
from pipeline.conversation import Conversation, Exchange

URI = "sip:alice@pbx.example"


def _nobody(uri: str) -> WorkerLeg:
    raise AssertionError(f"{uri} is not to be called")


class FarEnd:
    """Who is called: the real leg, and what was asked of its worker."""

    def __init__(self, call_id: str = "id") -> None:
        self.orders: list[m.ToWorker] = []
        self.leg = WorkerLeg(call_id, self._order, None, _nobody)
        self.leg.peer = self.leg.called = URI

    def _order(self, order: m.ToWorker) -> None:
        self.orders.append(order)
        if isinstance(order, m.HangUp):
            self.leg.happened(m.Closed(order.call, "Rejected by user"))

    def does(self, *news: m.CallNews) -> None:
        for one in news:
            self.leg.happened(one)

    def rings(self) -> None:
        self.does(m.Ringing(self.leg.call_id))

    def answers(self) -> None:
        self.does(m.Established(self.leg.call_id))

    def says(self, pcm: bytes) -> None:
        size = m.HEARD_BYTES
        self.does(*(m.Heard(self.leg.call_id, pcm[at : at + size], 0) for at in range(0, len(pcm), size)))

    def refuses(self, said: str) -> None:
        self.does(m.Closed(self.leg.call_id, said))


class SilentCall:
    """A call that lasts until it is ended, and then has heard ``pcm`` and said ``words``."""

    def __init__(self, leg: SipLeg, words: str = "") -> None:
        self._leg = leg
        self._words = words
        self._ended = asyncio.Event()
        self._reason = ""
        self.heard = b""

    async def run(self) -> CallEnd:
        listening = asyncio.create_task(self._listen())
        await self._ended.wait()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        said = [Exchange(0, None, self._words, spoken=False)] if self._words else []
        return CallEnd("id", self._reason, 1.0, Conversation(said))

    async def end(self, reason: str = "ended") -> None:
        self._reason = self._reason or reason
        self._ended.set()

    async def _listen(self) -> None:
        async for event in self._leg.events():
            if isinstance(event, m.Heard):
                self.heard += event.pcm


class SilentCaller:
    """An agent whose calls are silent."""

    def __init__(self, machine: MachinePolicy = MachinePolicy(), may_call: Sequence[str] = ("*@*",)) -> None:  # noqa: B008 - frozen
        self.machine = machine
        self.may_call = tuple(may_call)
        self.where = "may_call of the agent test"
        self.calls: list[SilentCall] = []
        self.messages: list[str] = []

    def call(self, leg: SipLeg) -> SilentCall:
        self.calls.append(SilentCall(leg))
        return self.calls[-1]

    def message(self, leg: SipLeg, words: str) -> SilentCall:
        self.messages.append(words)
        self.calls.append(SilentCall(leg, words))
        return self.calls[-1]


async def eventually(fact: object, what: str) -> None:
    """Until ``fact()`` holds."""
    assert callable(fact)
    for _ in range(500):
        if fact():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"never came: {what}")
