"""One call of ours in all its ways: who answers, who does not, and what a machine is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from bot.ingress.sip import placed
from bot.ingress.sip.placed import MachinePolicy, PlacedCall, State
from bot.waveform import Pcm
from pipeline.call import CallEnd
from tests.bot.scripted_leg import FarEnd, SilentCaller, eventually
from tests.e2e.phone_line import voice

RATE = 16_000
HANG_UP, MESSAGE = MachinePolicy(True), MachinePolicy(True, "Please call back.")


def pcm(*parts: Pcm) -> bytes:
    return (np.concatenate(parts) * 32767).astype("<i2").tobytes()


def silence(seconds: float) -> Pcm:
    return np.zeros(round(seconds * RATE), np.float32)


def words(seconds: float) -> Pcm:
    return voice(seconds, RATE)


def tone(hz: float, seconds: float) -> Pcm:
    at = np.arange(round(seconds * RATE)) / RATE
    wave: Pcm = (0.3 * np.sin(2 * np.pi * hz * at)).astype(np.float32)
    return wave


HELLO = pcm(silence(0.4), words(0.6), silence(1.2))
GREETING = pcm(silence(0.4), words(4.0), silence(0.5))
BEEP = pcm(tone(1000, 0.6), silence(1.0))


class Placed:
    """A running call, and who is called."""

    def __init__(self, machine: MachinePolicy) -> None:
        self.far = FarEnd()
        self.agent = SilentCaller(machine)
        self.states: list[State] = []
        self.call = PlacedCall(self.far.leg, self.agent, self.states.append)
        self.running = asyncio.create_task(self.call.run())

    async def over(self) -> CallEnd | None:
        return await asyncio.wait_for(asyncio.shield(self.running), 10)

    async def talks(self) -> None:
        await eventually(lambda: self.agent.calls, "the call")


@asynccontextmanager
async def calling(machine: MachinePolicy = MachinePolicy()) -> AsyncIterator[Placed]:  # noqa: B008 - frozen
    made = Placed(machine)
    try:
        yield made
    finally:
        await made.call.end("test-over")
        await asyncio.wait_for(made.running, 5)
        assert made.states[-1] == made.call.state == "ended"


async def test_who_answers_is_talked_to_until_they_hang_up() -> None:
    async with calling() as here:
        here.far.rings()
        here.far.answers()
        await here.talks()
        here.far.says(HELLO)
        await eventually(lambda: here.agent.calls[0].heard == HELLO, "what they said")
        here.far.refuses("Connection reset by peer")
        end = await here.over()
    assert end is not None
    assert (here.call.reason, here.call.answered_by) == ("hung-up", None)
    assert here.states == ["ringing", "answered", "ended"]


@pytest.mark.parametrize(
    ("said", "reason"), [("486 Busy Here", "refused:486"), ("Connection refused [111]", "failed")]
)
async def test_who_does_not_is_told_of_in_the_stacks_words(said: str, reason: str) -> None:
    async with calling() as here:
        here.far.refuses(said)
        assert await here.over() is None
    assert (here.call.reason, here.call.detail, here.states) == (reason, said, ["ended"])


async def test_sound_before_the_answer_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placed, "RING_S", 0.3)
    async with calling() as here:
        here.far.rings()
        here.far.says(HELLO)
        assert await here.over() is None
    assert (here.call.reason, here.agent.calls, here.states) == ("no-answer", [], ["ringing", "ended"])


async def test_a_person_is_known_by_hello_and_no_word_of_theirs_is_lost() -> None:
    async with calling(HANG_UP) as here:
        here.far.answers()
        here.far.says(HELLO)
        await here.talks()
        await eventually(lambda: here.agent.calls[0].heard == HELLO, "what they said")
    assert (here.call.answered_by, here.call.reason) == ("person", "test-over")


async def test_a_machine_is_hung_up_on() -> None:
    async with calling(HANG_UP) as here:
        here.far.answers()
        here.far.says(GREETING)
        assert await here.over() is None
    assert (here.call.answered_by, here.call.reason, here.agent.calls) == ("machine", "answering-machine", [])


async def test_a_machine_is_left_a_message_after_its_beep_and_not_before() -> None:
    async with calling(MESSAGE) as here:
        here.far.answers()
        here.far.says(GREETING)
        await eventually(lambda: here.call.answered_by == "machine", "the verdict")
        await asyncio.sleep(0.05)
        assert not here.agent.calls
        here.far.says(BEEP)
        await here.talks()
        assert here.agent.messages == ["Please call back."]
        await here.agent.calls[0].end("silent-caller")  # as the silence after the message ends it
        assert await here.over() is not None
    assert here.call.reason == "message-left"


async def test_a_machine_that_does_not_beep_is_left_one_when_it_has_long_been_silent() -> None:
    async with calling(MESSAGE) as here:
        here.far.answers()
        here.far.says(GREETING + pcm(silence(5)))
        await here.talks()
        assert here.agent.messages


async def test_a_machine_that_hangs_up_before_its_beep_gets_no_message() -> None:
    async with calling(MESSAGE) as here:
        here.far.answers()
        here.far.says(GREETING)
        here.far.refuses("")
        assert await here.over() is None
    assert (here.call.reason, here.agent.messages) == ("hung-up", [])


async def test_a_machine_that_never_stops_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placed, "BEEP_S", 0.2)
    async with calling(MESSAGE) as here:
        here.far.answers()
        here.far.says(GREETING)
        assert await here.over() is None
    assert here.call.reason == "answering-machine"


async def test_the_networks_own_announcement_is_nobody_to_leave_a_message_with() -> None:
    async with calling(MESSAGE) as here:
        here.far.answers()
        here.far.says(pcm(tone(914, 0.38), tone(1371, 0.38), tone(1777, 0.38), silence(1)))
        assert await here.over() is None
    assert (here.call.answered_by, here.call.reason) == ("intercept", "intercept")


async def test_a_line_that_rings_on_after_its_answer_is_waited_for() -> None:
    """As gateways do that answer for somebody else; what rang is not among what the call hears."""
    async with calling(HANG_UP) as here:
        here.far.answers()
        here.far.says(pcm(tone(425, 1.0), silence(2)))
        here.far.says(HELLO)
        await here.talks()
        await eventually(lambda: len(here.agent.calls[0].heard) > len(HELLO), "what they said")
        assert len(here.agent.calls[0].heard) < len(HELLO) + 2 * 2 * RATE
    assert here.call.answered_by == "person"


async def test_giving_up_while_it_is_listened_who_answered_ends_it() -> None:
    async with calling(HANG_UP) as here:
        here.far.answers()
        await eventually(lambda: "answered" in here.states, "the answer")
        await here.call.end("hung-up-by-api")
        assert await here.over() is None
    assert (here.call.reason, here.agent.calls) == ("hung-up-by-api", [])
