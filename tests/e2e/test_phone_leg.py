"""The phone's own leg as a caller of Parley: what is heard through a hold, keys, transfers, our own calls."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bot.ingress.sip import messages as m
from bot.ingress.sip.ingress import configuration, hang_up
from bot.ingress.sip.leg import LegError
from bot.ingress.sip.phone import Phone, WorkerLeg
from bot.ingress.sip.settings import SipSettings
from bot.waveform import Pcm
from model_runtime.protocol import INPUT_RATE
from model_runtime.training.judge import nearest, recognise
from tests.e2e.measure import utterances
from tests.e2e.phone_line import (
    ANSWER_S,
    GREETING_S,
    PhoneLine,
    line_of,
    phone_line,
    tone_engine,
    tones,
    voice,
)
from tests.e2e.shop import ANSWERS, GREETING, QUESTIONS
from tests.e2e.sipp import sipp
from tests.e2e.softphone import softphone
from tests.e2e.speakers import VOICES, say
from tests.ports import free_port

pytestmark = pytest.mark.e2e

LONG_S = 60.0  # only a test that fails waits so long
TIMES = 6  # that the answer which is held is said in one go: it lasts while a busy machine gets to the hold


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhoneLine]:
    with phone_line(tmp_path_factory.mktemp("leg")) as running:
        yield running


class Caller:
    """One call of ours, and all that was heard in it."""

    def __init__(self, leg: WorkerLeg) -> None:
        self.leg = leg
        self.heard = b""
        self.events: list[object] = []

    async def listen(self) -> None:
        async for event in self.leg.events():
            if isinstance(event, m.Heard):
                self.heard += event.pcm
            else:
                self.events.append(event)

    def pcm(self) -> Pcm:
        return np.frombuffer(self.heard, "<i2").astype(np.float32) / np.float32(32768)

    def tones(self) -> list[float]:
        return tones(self.pcm(), INPUT_RATE)

    async def hear_out(self, seconds: float = 60.0, quiet_s: float = 1.2) -> Pcm:
        """What is said from now on, until it has been quiet for so long."""
        start = len(self.pcm())

        def over() -> bool:
            said = utterances(self.pcm()[start:], INPUT_RATE, quiet_s)
            return bool(said) and len(self.pcm()) - start - said[-1][1] > quiet_s * INPUT_RATE

        await self.until(over, "the end of what was said", seconds)
        return self.pcm()[start:]

    async def quiet(self) -> float:
        """Seconds of tones, once there have been no more of them for half a second."""
        for _ in range(20):
            before = sum(self.tones())
            await asyncio.sleep(0.5)
            if sum(self.tones()) == before:
                return before
        raise AssertionError("it was never quiet")

    async def say(self, pcm: Pcm) -> None:
        """Speak, at the pace of the line; 24 kHz."""
        samples = (pcm * 32767).astype("<i2").tobytes()
        for start in range(0, len(samples), m.SPOKEN_BYTES):
            assert await self.leg.speak(samples[start : start + m.SPOKEN_BYTES])

    async def until(self, fact: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
        for _ in range(round(seconds * 20)):
            if fact():
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"never came: {what}; {self.events}, {self.tones()}")


@asynccontextmanager
async def own_phone(
    incoming: Callable[[WorkerLeg], None] = lambda leg: leg.reject(), port: int = 0, **settings: Any
) -> AsyncIterator[Phone]:
    sip = SipSettings(listen=f"127.0.0.1:{port or free_port()}", **settings)
    phone = Phone(configuration(sip), incoming)
    running = asyncio.create_task(phone.run())
    try:
        await asyncio.wait_for(phone.ready.wait(), LONG_S)
        yield phone
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def calling(phone: Phone, uri: str) -> AsyncIterator[Caller]:
    caller = Caller(phone.dial(uri))
    listening = asyncio.create_task(caller.listen())
    try:
        assert await asyncio.wait_for(caller.leg.established(), LONG_S)
        yield caller
    finally:
        await hang_up(caller.leg)
        await asyncio.wait_for(listening, LONG_S)


async def test_an_answer_held_by_the_caller_goes_on_where_it_was(tmp_path: Path) -> None:
    whole_s = GREETING_S + TIMES * ANSWER_S
    with tone_engine("--times", str(TIMES)) as url, line_of(tmp_path, PARLEY_ENGINE__URL=url) as line:
        async with own_phone() as phone, calling(phone, line.uri) as caller:
            await caller.hear_out()  # the greeting
            await caller.say(voice(1.2, 24_000))
            await caller.until(lambda: sum(caller.tones()) > GREETING_S + 0.15, "the answer")
            await caller.leg.hold(True)
            before = await caller.quiet()
            await asyncio.sleep(1.0)
            assert sum(caller.tones()) == before  # silence meanwhile
            assert before < whole_s - 1.0
            await caller.leg.hold(False)
            await caller.until(lambda: sum(caller.tones()) > whole_s - 0.3, "the rest of the answer")
            assert await caller.quiet() == pytest.approx(whole_s, abs=0.3)


@pytest.mark.slow
async def test_nano_greets_and_answers_by_phone(tmp_path: Path) -> None:
    """Three questions in one call; this nano mishears some, and a line makes it no easier."""
    with line_of(tmp_path) as line:
        async with own_phone() as phone, calling(phone, line.uri) as caller:
            heard = [await caller.hear_out()]
            asked = list(QUESTIONS)[:3]
            for question in asked:
                await caller.say(say(question, VOICES[0], 24_000))
                heard.append(await caller.hear_out())
    greeting, *answers = [nearest(recognise(pcm, INPUT_RATE), ANSWERS) for pcm in heard]
    assert greeting == GREETING
    assert any(QUESTIONS[question] == said for question, said in zip(asked, answers, strict=True)), answers


async def test_keys_reach_the_call_and_a_transfer_asked_of_the_bot_is_refused(line: PhoneLine) -> None:
    async with own_phone() as phone, calling(phone, line.uri) as caller:
        await caller.until(lambda: bool(caller.tones()), "the greeting")
        await caller.leg.press("42#")
        await caller.until(lambda: sum(caller.tones()) > 1.4, "an answer to the keys")
        assert line.log().count("a key was pressed") == 3
        with pytest.raises(LegError):
            await caller.leg.transfer(line.uri)


@pytest.mark.slow
async def test_a_call_that_the_far_end_ends_is_over_here(line: PhoneLine, tmp_path: Path) -> None:
    async with own_phone() as phone:
        with softphone(tmp_path / "far", answers=True) as far:
            async with calling(phone, f"sip:alice@127.0.0.1:{far.port}") as caller:
                far.hang_up()
                end = await asyncio.wait_for(caller.leg.ended(), 10)
                assert end.reason == "hung-up"
                assert not await caller.leg.speak(bytes(m.SPOKEN_BYTES))
                with pytest.raises(LegError):
                    await caller.leg.press("1")
        nobody = phone.dial(f"sip:nobody@127.0.0.1:{free_port()}")
        assert not await asyncio.wait_for(nobody.established(), 40)
        assert (await nobody.ended()).reason in ("failed", "refused:408")


@pytest.mark.slow
async def test_a_worker_that_stands_still_is_started_anew(
    line: PhoneLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with own_phone() as phone:
        async with calling(phone, line.uri) as caller:
            monkeypatch.setattr("bot.ingress.sip.phone.MUTE_S", 5.0)
            first = phone.pid
            assert first is not None
            os.kill(first, signal.SIGSTOP)
            assert (await asyncio.wait_for(caller.leg.ended(), 40)).reason == "worker-died"
            monkeypatch.undo()
            await asyncio.wait_for(phone.ready.wait(), 40)
            assert phone.pid != first
        async with calling(phone, line.uri) as caller:
            await caller.until(lambda: bool(caller.tones()), "the greeting")


async def test_the_far_end_is_transferred(line: PhoneLine, tmp_path: Path) -> None:
    with softphone(tmp_path / "far", answers=True) as far:
        async with own_phone() as phone, calling(phone, f"sip:alice@127.0.0.1:{far.port}") as caller:
            await caller.leg.transfer(line.uri)
            assert (await caller.leg.ended()).reason == "transferred"
            assert "phone: sip:alice" in line.log()


async def test_a_connection_refused_is_told_however_soon_it_is_refused() -> None:
    """The stack tells it before it has given the call a name, every time or now and then."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        uri = f"sip:nobody@127.0.0.1:{taken.getsockname()[1]};transport=tcp"
        async with own_phone() as phone:
            for _ in range(20):
                leg = phone.dial(uri)
                assert not await asyncio.wait_for(leg.established(), 20)
                end = await leg.ended()
                assert (end.reason, end.detail) == ("failed", "Connection refused [111]")


async def test_ringing_that_is_to_be_acknowledged_is(tmp_path: Path) -> None:
    async with own_phone() as phone:
        port = free_port()
        far = asyncio.create_task(asyncio.to_thread(sipp, "reliable", tmp_path, "-p", str(port), "-m", "1"))
        leg = phone.dial(f"sip:alice@127.0.0.1:{port}")
        done = await far
        assert done.returncode == 0, done.stdout[-2000:]
        await hang_up(leg)


async def test_a_call_given_up_at_once_is_ended_and_never_forgotten() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        async with own_phone() as phone:
            leg = phone.dial(f"sip:nobody@127.0.0.1:{mute.getsockname()[1]}")
            leg.hang_up()
            assert (await asyncio.wait_for(leg.ended(), 20)).reason == "failed"
