"""A leg by the worker's words alone: why it ended, who may still speak, who still waits for an answer."""

from __future__ import annotations

import asyncio

import pytest

from bot.ingress.sip import messages as m
from bot.ingress.sip import phone as phone_module
from bot.ingress.sip.ingress import configuration
from bot.ingress.sip.leg import LegError
from bot.ingress.sip.phone import Phone, WorkerLeg
from bot.ingress.sip.settings import SipSettings
from tests.pipeline.memory.redis_server import log

CALLED_US = m.Incoming("id", "sip:a@b", "sip:c@d", "x")


class Line:
    """A leg and what it told the worker."""

    def __init__(self, incoming: m.Incoming | None = CALLED_US) -> None:
        self.told: list[m.ToWorker] = []
        self.others: list[str] = []
        self.leg = WorkerLeg("id", self.told.append, incoming, self.dialled)

    def dialled(self, uri: str) -> WorkerLeg:
        self.others.append(uri)
        return Line(None).leg


@pytest.mark.parametrize(
    ("incoming", "established", "said", "reason"),
    [
        (True, True, "Connection reset by peer [104]", "hung-up"),
        (True, False, "Connection reset by peer [104]", "hung-up"),
        (True, True, "rtp stream error", "rtp-timeout"),
        (True, True, "Call transfered", "transferred"),
        (False, True, "Connection reset by peer [104]", "hung-up"),
        (False, False, "486 Busy Here", "refused:486"),
        (False, False, "Connection refused [111]", "failed"),
        (False, False, "", "failed"),
    ],
)
async def test_why_a_call_is_over(incoming: bool, established: bool, said: str, reason: str) -> None:
    line = Line(CALLED_US if incoming else None)
    if established:
        line.leg.happened(m.Established("id"))
    line.leg.happened(m.Closed("id", said))
    assert (await line.leg.ended()).reason == reason
    assert await line.leg.established() is established
    assert [type(event).__name__ async for event in line.leg.events()][-1] == "Closed"


async def test_only_so_much_is_on_its_way_to_the_line() -> None:
    line = Line()
    for _ in range(m.WINDOW):
        assert await line.leg.speak(b"x")
    late = asyncio.create_task(line.leg.speak(b"late"))
    await asyncio.sleep(0)
    assert not late.done()
    line.leg.happened(m.Heard("id", b"", 1))
    assert await late
    assert line.told == [*[m.Speak("id", b"x")] * m.WINDOW, m.Speak("id", b"late")]


async def test_when_the_worker_dies_nobody_waits_for_it() -> None:
    line = Line()
    for _ in range(m.WINDOW):
        await line.leg.speak(b"x")
    speaking = asyncio.create_task(line.leg.speak(b"late"))
    pressing = asyncio.create_task(line.leg.press("1"))
    await asyncio.sleep(0)
    line.leg.lost()
    assert not await speaking
    with pytest.raises(LegError, match="worker died"):
        await pressing
    assert (await line.leg.ended()).reason == "worker-died"
    assert not await line.leg.speak(b"later")
    line.leg.hang_up()
    line.leg.lost()  # harmless
    with pytest.raises(LegError, match="is over"):
        await line.leg.hold(True)


async def test_a_request_that_fails_says_why_and_one_that_is_done_returns() -> None:
    line = Line()
    transfer = asyncio.create_task(line.leg.transfer("sip:e@f"))
    hold = asyncio.create_task(line.leg.hold(True))
    await asyncio.sleep(0)
    line.leg.happened(m.Outcome("id", 2))
    line.leg.happened(m.Outcome("id", 1, "603 Decline"))
    line.leg.happened(m.Outcome("id", 9))  # nobody asked
    await hold
    with pytest.raises(LegError, match="603 Decline"):
        await transfer


@pytest.mark.parametrize(
    ("said", "reason"),
    [("Connection reset by peer [104]", "transferred"), ("rtp stream error", "rtp-timeout")],
)
async def test_who_hangs_up_while_they_are_sent_on_has_gone_there(said: str, reason: str) -> None:
    line = Line()
    line.leg.happened(m.Established("id"))
    transfer = asyncio.create_task(line.leg.transfer("sip:e@f"))
    await asyncio.sleep(0)
    line.leg.happened(m.Closed("id", said))
    assert (await line.leg.ended()).reason == reason
    if reason == "transferred":
        await transfer
    else:
        with pytest.raises(LegError, match="is over"):
            await transfer


async def test_who_hangs_up_after_a_transfer_that_failed_has_hung_up() -> None:
    line = Line()
    transfer = asyncio.create_task(line.leg.transfer("sip:e@f"))
    await asyncio.sleep(0)
    line.leg.happened(m.Outcome("id", 1, "486 Busy Here"))
    with pytest.raises(LegError):
        await transfer
    line.leg.happened(m.Closed("id", "Connection reset by peer [104]"))
    assert (await line.leg.ended()).reason == "hung-up"


async def test_a_worker_has_more_time_to_start_than_it_may_be_mute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phone_module, "MUTE_S", 0.05)
    phone = Phone(configuration(SipSettings(listen="127.0.0.1:5060")), lambda leg: leg.reject())
    worker = asyncio.StreamReader()
    listening = asyncio.create_task(phone._listen(worker))
    await asyncio.sleep(0.2)
    assert not listening.done()
    with log("ERROR") as lines:
        worker.feed_data(m.encode(m.Alive()))
        await listening
    assert lines == ["the phone's worker has not been heard of for 0.05 s"]
