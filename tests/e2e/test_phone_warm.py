"""A warm transfer over real SIP and RTP: who hears what, before, meanwhile and after."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import numpy as np
import pytest

from bot.ingress.sip.bridge import RING_HZ
from bot.ingress.sip.ingress import hang_up
from bot.ingress.sip.leg import LegError
from bot.ingress.sip.phone import WorkerLeg
from bot.waveform import Pcm
from model_runtime.protocol import INPUT_RATE
from tests.e2e.phone_line import GREETING_S, PhoneLine, line_of, tone_engine, voice, wait_until
from tests.e2e.test_phone_leg import Caller, calling, own_phone
from tests.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

HUMAN = free_port()
AGENT = """\
name: Receptionist
greeting: Hello.
tools:
  - name: transfer
    policy: allow
    options: {warm: true, targets: {sales: "sip:sales@127.0.0.1:%d"}}
"""


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhoneLine]:
    """A Parley whose agent puts everybody through to sales who says anything."""
    folder = tmp_path_factory.mktemp("warm")
    (folder / "receptionist.yaml").write_text(AGENT % HUMAN)
    asks = json.dumps({"to": "sales", "about": "They want a tent."})
    settings = {"PARLEY_AGENTS_DIR": str(folder), "PARLEY_AGENT": "receptionist"}
    with (
        tone_engine("--calls", "transfer", asks) as url,
        line_of(folder, **{"PARLEY_ENGINE__URL": url} | settings) as running,
    ):
        yield running
        wait_until(lambda: running.calls_now() == 0, "the end of all calls")


def seconds_of(hz: float, heard: Pcm) -> float:
    """For how long a tone was heard, and nearly nothing but it."""
    size = INPUT_RATE // 50
    blocks = heard[: len(heard) // size * size].reshape(-1, size)
    level = np.abs(blocks @ np.exp(-2j * np.pi * hz * np.arange(size) / INPUT_RATE)) * 2 / size
    return float(((level > 0.03) & (level > 0.6 * np.abs(blocks).max(axis=1))).sum() / 50)


def tone(hz: float, seconds: float) -> Pcm:
    pcm: Pcm = (0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * 24_000)) / 24_000)).astype(np.float32)
    return pcm


class Human:
    """The one who is called: a phone that rings until the test answers it."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[WorkerLeg] = asyncio.Queue()

    @asynccontextmanager
    async def answers(self) -> AsyncIterator[Caller]:
        leg = await asyncio.wait_for(self.calls.get(), 60)
        leg.answer()
        here = Caller(leg)
        listening = asyncio.create_task(here.listen())
        try:
            await here.until(lambda: sum(here.tones()) > GREETING_S - 0.1, "the briefing")
            yield here
        finally:
            await hang_up(leg)
            await asyncio.wait_for(listening, 10)


@asynccontextmanager
async def asked_for(line: PhoneLine) -> AsyncIterator[tuple[Caller, Human]]:
    """A caller who has asked to be put through, and the human, whose phone begins to ring."""
    human = Human()
    async with (
        own_phone(human.calls.put_nowait, HUMAN),
        own_phone() as phone,
        calling(phone, line.uri) as caller,
    ):
        await caller.until(lambda: bool(caller.tones()), "the greeting")
        await asyncio.sleep(1.5)
        await caller.say(voice(1.2, 24_000))
        yield caller, human


async def test_the_human_is_told_and_takes_the_caller_and_they_hear_each_other(line: PhoneLine) -> None:
    async with asked_for(line) as (caller, human):
        leg = await asyncio.wait_for(human.calls.get(), 60)
        await caller.until(lambda: seconds_of(RING_HZ, caller.pcm()) > 0.7, "the ring tone")
        human.calls.put_nowait(leg)
        async with human.answers() as there:
            assert (
                sum(caller.tones()) < 2.2
            )  # the greeting and one answer: the briefing is not for the caller
            await there.leg.press("1")
            for _ in range(5):  # what is said before they are joined is for nobody
                await caller.say(tone(600, 0.6))
            await there.until(lambda: seconds_of(600, there.pcm()) > 0.8, "the caller")
            await there.say(tone(800, 1.0))
            await caller.until(lambda: seconds_of(800, caller.pcm()) > 0.8, "the human")
            await caller.leg.press("5")
            await there.until(lambda: "5" in str(there.events), "the caller's key")
            await hang_up(there.leg)
            assert (await asyncio.wait_for(caller.leg.ended(), 10)).reason == "hung-up"


async def test_when_the_caller_hangs_up_so_do_we_on_the_human(line: PhoneLine) -> None:
    async with asked_for(line) as (caller, human), human.answers() as there:
        await there.leg.press("1")
        for _ in range(10):
            await caller.say(tone(600, 0.6))
            if seconds_of(600, there.pcm()) > 0.3:
                break
        await hang_up(caller.leg)
        assert (await asyncio.wait_for(there.leg.ended(), 10)).reason == "hung-up"


@pytest.mark.parametrize("refuses", ["by a key", "by hanging up", "by not answering"])
async def test_a_human_who_refuses_leaves_the_caller_with_the_bot(line: PhoneLine, refuses: str) -> None:
    async with asked_for(line) as (caller, human):
        if refuses == "by not answering":
            (await asyncio.wait_for(human.calls.get(), 60)).reject()
        else:
            async with human.answers() as there:
                if refuses == "by a key":
                    with suppress(LegError):  # the call may be over before the key is let go
                        await there.leg.press("2")
                    assert (await asyncio.wait_for(there.leg.ended(), 20)).reason == "hung-up"
        before = sum(caller.tones())
        # Told of it, the bot says something of its own accord, and the caller may speak again.
        await caller.until(lambda: sum(caller.tones()) > before + 0.5, "the bot's apology")
        assert not caller.leg._end.done()


async def test_a_caller_who_hangs_up_meanwhile_is_not_asked_for_any_more(line: PhoneLine) -> None:
    async with asked_for(line) as (caller, human):
        leg = await asyncio.wait_for(human.calls.get(), 60)
        await hang_up(caller.leg)
        await asyncio.wait_for(leg.ended(), 20)
