"""Two people joined, and what leads there, on legs that are only queues: who hears what, who is let go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress

import numpy as np
import pytest

from bot.calls import Calls
from bot.ingress.sip import messages as m
from bot.ingress.sip.bridge import BEHIND, bridge, ringing
from bot.ingress.sip.leg import LegEnd, LegError, LegEvent, SipLeg
from bot.ingress.sip.transport import SipTransport
from bot.ingress.sip.warm import OnEvent, PhoneCall, WarmTransfer
from pipeline.call import CallEnd, Fader, transport_params
from pipeline.conversation import Conversation
from pipeline.tools.consent import ENGLISH
from pipeline.tools.tool import CannotTransfer
from tests.pipeline.scripted_engine import eventually

LONGEST_S = 1800.0
END = LegEnd("hung-up", "", m.Quality())
HEARD = b"\x10\x00" * (m.HEARD_BYTES // 2)


class Leg:
    """``SipLeg``: what happens on it the test says; it takes what it is spoken unless ``room`` is cleared."""

    peer = called = sip_call_id = ""

    def __init__(self, call_id: str = "caller") -> None:
        self.call_id = call_id
        self.headers: Mapping[str, str] = {}
        self.spoken: list[bytes] = []
        self.pressed = ""
        self.room = asyncio.Event()
        self.room.set()
        self.answered = asyncio.Event()
        self.others: list[Leg] = []
        self.dialled: list[str] = []
        self.hung_up = False
        self._events: asyncio.Queue[LegEvent] = asyncio.Queue()
        self._over = asyncio.Event()

    def happens(self, *events: LegEvent) -> None:
        for event in events:
            self._events.put_nowait(event)

    def hear(self, frames: int = 1) -> None:
        self.happens(*[m.Heard(self.call_id, HEARD, 0)] * frames)

    async def events(self) -> AsyncGenerator[LegEvent, None]:
        while not isinstance(event := await self._events.get(), m.Closed):
            yield event

    async def ended(self) -> LegEnd:
        await self._over.wait()
        return END

    async def established(self) -> bool:
        answered = asyncio.create_task(self.answered.wait())
        over = asyncio.create_task(self._over.wait())
        await asyncio.wait({answered, over}, return_when=asyncio.FIRST_COMPLETED)
        answered.cancel()
        over.cancel()
        return self.answered.is_set()

    def dial(self, uri: str) -> Leg:
        self.dialled.append(uri)
        if not self.others:
            raise LegError("no worker")
        return self.others.pop(0)

    def answer(self) -> None: ...

    def reject(self, status: int = 486, retry_after_s: int = 10) -> None: ...

    def hang_up(self) -> None:
        self.hung_up = True
        self._over.set()

    async def speak(self, pcm: bytes) -> bool:
        await self.room.wait()
        if self._over.is_set():
            return False
        self.spoken.append(pcm)
        await asyncio.sleep(0.001)
        return True

    async def hold(self, on: bool) -> None: ...

    async def press(self, digits: str) -> None:
        if digits == "*":
            raise LegError("no such key")
        self.pressed += digits

    async def transfer(self, uri: str) -> None: ...


async def test_joined_they_hear_each_other_and_each_others_keys_until_one_hangs_up() -> None:
    one, other = Leg("one"), Leg("other")
    joined = asyncio.create_task(bridge(one, other))
    one.hear(3)
    other.hear(2)
    await eventually(lambda: len(other.spoken) >= 2 and len(one.spoken) >= 1)
    assert {len(pcm) for pcm in one.spoken + other.spoken} == {m.SPOKEN_BYTES}
    one.happens(m.Digit("one", "*"), m.Digit("one", "5"))
    await eventually(lambda: other.pressed == "5")  # the one that could not be pressed ends nothing
    assert one.pressed == ""
    other.hang_up()
    await asyncio.wait_for(joined, 5)
    assert not one.hung_up  # whoever joined them does that


async def test_who_holds_does_not_hear_later_what_was_said_meanwhile() -> None:
    one, other = Leg("one"), Leg("other")
    other.room.clear()
    joined = asyncio.create_task(bridge(one, other))
    one.hear(500)
    await eventually(lambda: one._events.empty())
    other.room.set()
    await eventually(lambda: bool(other.spoken))
    await asyncio.sleep(0.1)
    assert len(other.spoken) <= BEHIND + 2
    one.hang_up()
    await asyncio.wait_for(joined, 5)


async def test_a_ring_tone_is_a_second_of_tone_and_then_silence() -> None:
    leg = Leg()
    async with ringing(leg):
        await eventually(lambda: len(leg.spoken) > 60)
    heard = len(leg.spoken)
    loud = [bool(np.abs(np.frombuffer(pcm, "<i2")).max() > 1000) for pcm in leg.spoken[:60]]
    assert loud == [True] * 50 + [False] * 10
    await asyncio.sleep(0.02)
    assert len(leg.spoken) == heard


class Consultation:
    """The bot's call with the human; ends when it is told to."""

    def __init__(self, briefing: str) -> None:
        self.briefing = briefing
        self.conversation = Conversation()
        self.over = asyncio.Event()

    async def run(self) -> CallEnd:
        await self.over.wait()
        return CallEnd("x", "ended", 1.0, self.conversation)

    async def end(self, reason: str = "ended") -> None:
        self.over.set()


class Scene:
    """A caller who is being put through to ``human``."""

    def __init__(self, lines: int = 1) -> None:
        self.leg, self.human = Leg(), Leg("human")
        self.leg.others.append(self.human)
        self.transport = SipTransport(self.leg, transport_params(Fader()))
        self.lines = Calls(lines)
        self.warm = WarmTransfer(self.leg, self.transport, ENGLISH, self.consult, self.lines.admit)
        self.calls: list[Consultation] = []
        self.press: Callable[[str], None] | None = None
        self.going = asyncio.create_task(self.warm.to("sip:sales@x", "It is about a tent. Do you?"))

    def consult(
        self, leg: SipLeg, briefing: str, on_event: OnEvent, on_key: Callable[[str], None]
    ) -> Consultation:
        assert leg is self.human
        self.press = on_key
        self.calls.append(Consultation(briefing))
        return self.calls[-1]

    async def asked(self) -> Callable[[str], None]:
        self.human.answered.set()
        await eventually(lambda: self.press is not None)
        assert self.press is not None
        assert not self.transport.together.is_set()  # the caller's call stands still
        return self.press


async def test_who_takes_the_caller_is_kept_and_the_consultation_is_over() -> None:
    scene = Scene()
    (await scene.asked())("1")
    await scene.going
    assert scene.warm.other is scene.human
    assert scene.lines.taken == 1
    assert not scene.human.hung_up
    assert scene.calls[0].over.is_set()
    assert scene.calls[0].briefing == "It is about a tent. Do you?"
    assert scene.leg.spoken  # the ring tone
    assert scene.transport.together.is_set()


@pytest.mark.parametrize("how", ["key", "hangs up", "no answer", "no worker"])
async def test_who_does_not_take_the_caller_is_let_go_and_the_caller_is_back(how: str) -> None:
    scene = Scene()
    if how == "no worker":
        scene.leg.others.clear()
    elif how == "no answer":
        scene.human.hang_up()
    else:
        press = await scene.asked()
        press("2") if how == "key" else scene.calls[0].over.set()
    with pytest.raises(CannotTransfer, match="still on the line"):
        await scene.going
    assert scene.warm.other is None
    assert scene.human.hung_up or how == "no worker"
    assert scene.lines.taken == 0
    assert scene.transport.together.is_set()


async def test_without_a_free_line_nobody_is_called() -> None:
    scene = Scene(lines=0)
    with pytest.raises(CannotTransfer, match=r"no free line.*still on the line"):
        await scene.going
    assert scene.leg.dialled == []


async def test_two_who_are_joined_are_parted_when_the_call_has_lasted_too_long() -> None:
    scene = Scene()
    (await scene.asked())("1")
    await scene.going
    bots = Consultation("")
    bots.over.set()
    await asyncio.wait_for(PhoneCall(bots, scene.leg, scene.warm, longest_s=0.1).run(), 5)
    assert scene.human.hung_up
    assert scene.lines.taken == 0


@pytest.mark.parametrize("how", ["the caller hangs up", "the tool is broken off"])
async def test_when_nobody_waits_any_more_the_human_is_let_go(how: str) -> None:
    scene = Scene()
    await scene.asked()
    if how == "the caller hangs up":
        scene.leg.hang_up()
        with pytest.raises(CannotTransfer, match="hung up"):
            await scene.going
    else:
        scene.going.cancel()
        with suppress(asyncio.CancelledError):
            await scene.going
    assert scene.human.hung_up
    assert scene.calls[0].over.is_set()


async def test_who_has_just_taken_the_caller_is_let_go_when_the_call_ends_in_that_moment() -> None:
    scene = Scene()
    (await scene.asked())("1")
    asking = next(task for task in asyncio.all_tasks() if "_ask" in str(task.get_coro()))
    while not asking.done():  # noqa: ASYNC110 - turn by turn is the point
        await asyncio.sleep(0)
    assert not scene.going.done()
    scene.going.cancel()
    with suppress(asyncio.CancelledError):
        await scene.going
    bots = Consultation("")
    bots.over.set()
    call = PhoneCall(bots, scene.leg, scene.warm, LONGEST_S)
    await call.end("failed")
    await asyncio.wait_for(call.run(), 5)
    assert scene.human.hung_up


@pytest.mark.parametrize("ends", ["the caller", "an operator"])
async def test_after_the_bots_part_the_two_are_joined_and_both_are_ended(ends: str) -> None:
    scene = Scene()
    (await scene.asked())("1")
    await scene.going
    bots = Consultation("")
    call = PhoneCall(bots, scene.leg, scene.warm, LONGEST_S)
    running = asyncio.create_task(call.run())
    bots.over.set()
    scene.leg.hear(3)
    await eventually(lambda: bool(scene.human.spoken))
    await call.end("stopping")  # they may finish
    await asyncio.sleep(0.02)
    assert not running.done()
    if ends == "the caller":
        scene.leg.hang_up()
    else:
        await call.end("hung-up-by-api")
    assert (await asyncio.wait_for(running, 5)).reason == "ended"
    assert scene.human.hung_up
