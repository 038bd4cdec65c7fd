"""How the leg itself refuses, edge or no edge: what is on the wire, and that no other call is touched."""

from __future__ import annotations

import asyncio

import pytest

from bot.calls import Calls
from bot.ingress.sip.ingress import LiveCall, SipIngress
from bot.ingress.sip.leg import SipLeg
from bot.ingress.sip.phone import WorkerLeg
from bot.ingress.sip.settings import SipSettings
from tests.e2e.raw_call import OFFER, raw_call
from tests.e2e.test_phone_leg import own_phone
from tests.ports import free_port
from tests.torture import CLIENT, RawLine

pytestmark = pytest.mark.e2e

HERE = "127.0.0.1"
BODY = OFFER.format(address=CLIENT, port=4000, types="0")


def invite(raw: RawLine, **headers: str) -> str:
    """The final answer to an INVITE."""
    raw.send(raw.request("INVITE", Content_Type="application/sdp", body=BODY, **headers))
    while (answer := raw.whole_answer(5.0)).startswith("SIP/2.0 1"):
        pass
    return answer


@pytest.mark.parametrize(
    ("status", "line"), [(503, "SIP/2.0 503 Service Unavailable"), (486, "SIP/2.0 486 Busy Here")]
)
async def test_who_is_refused_is_told_when_to_come_back(status: int, line: str) -> None:
    legs: list[WorkerLeg] = []

    def refuse(leg: WorkerLeg) -> None:
        legs.append(leg)
        leg.reject(503 if status == 503 else 486, 7)

    async with own_phone(refuse) as phone:
        assert phone.listening is not None
        with RawLine((HERE, phone.listening.port), CLIENT) as raw:
            for number in range(20):
                # Whether or not they are to acknowledge first that it rings (RFC 3262).
                supported = "100rel" if number % 2 else ""
                answer = await asyncio.to_thread(invite, raw, Supported=supported)
                first, *headers = answer.split("\r\n")
                assert first == line
                assert "Retry-After: 7" in headers
                assert "Content-Length: 0" in headers  # or a stream would not know where it ends (18.3)
        for leg in legs:
            await asyncio.wait_for(leg.ended(), 5)


async def test_a_refusal_is_for_no_other_call_of_the_same_call_id() -> None:
    """A Call-ID is the caller's word: who knows somebody's could have them hung up on."""
    legs: list[WorkerLeg] = []

    def answer_the_first(leg: WorkerLeg) -> None:
        legs.append(leg)
        if len(legs) == 1:
            leg.answer()
        else:
            leg.reject(503, 7)

    def two_calls(port: int) -> tuple[str, str]:
        with (
            RawLine((HERE, port), CLIENT) as first,
            raw_call(first) as call,
            RawLine((HERE, port), CLIENT) as second,
        ):
            refused = invite(second, Call_ID=call.call_id)
            return refused.split()[1], call.ask("OPTIONS")

    async with own_phone(answer_the_first) as phone:
        assert phone.listening is not None
        refused, still_there = await asyncio.to_thread(two_calls, phone.listening.port)
        assert refused in ("486", "503")
        assert still_there == "SIP/2.0 200 OK"
        assert len(legs) == 2


async def test_who_is_full_is_busy_and_who_is_not_ready_or_being_stopped_is_not_to_be_had() -> None:
    calls, ready = Calls(1), [False]

    def nobody(_: SipLeg) -> LiveCall:
        raise AssertionError("no call is taken")

    ingress = SipIngress(SipSettings(listen=f"{HERE}:{free_port()}"), calls, nobody, lambda: ready[0])
    running = asyncio.create_task(ingress.run())
    try:
        await asyncio.wait_for(ingress.phone.ready.wait(), 20)
        assert ingress.phone.listening is not None
        with RawLine((HERE, ingress.phone.listening.port), CLIENT) as raw:

            async def answered() -> tuple[str, str]:
                first, *headers = (await asyncio.to_thread(invite, raw)).split("\r\n")
                return first.split()[1], next(one for one in headers if one.startswith("Retry-After"))

            assert await answered() == ("503", "Retry-After: 2")
            ready[0] = True
            calls.admit()
            assert await answered() == ("486", "Retry-After: 10")
            await calls.drain(0)
            assert await answered() == ("503", "Retry-After: 10")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
