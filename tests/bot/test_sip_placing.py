"""Having calls placed: what is refused and how, what is told, what a repeated request does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bot.calls import Calls, Refused
from bot.ingress.sip.destinations import NotCallable
from bot.ingress.sip.leg import LegError
from bot.ingress.sip.phone import WorkerLeg
from bot.ingress.sip.placing import KEPT_S, Asked, OtherRequest, Placing, TooMany
from bot.ingress.sip.settings import SipSettings
from bot.remembering import NOWHERE
from pipeline.memory import Memory
from tests.bot.scripted_leg import FarEnd, SilentCaller, eventually
from tests.pipeline.memory.redis_server import drop, running_redis

ALICE = Asked("sip:alice@pbx.example", "test")


class ScriptedPhone:
    """Dials nobody."""

    def __init__(self) -> None:
        self.fault = ""
        self.dialled: list[tuple[str, dict[str, str]]] = []
        self.far: list[FarEnd] = []

    def dial(self, uri: str, headers: Mapping[str, str], *, early: bool, call_id: str) -> WorkerLeg:
        if self.fault:
            raise LegError(self.fault)
        assert early
        self.dialled.append((uri, dict(headers)))
        self.far.append(FarEnd(call_id))
        return self.far[-1].leg


class Desk:
    """A ``Placing`` and all it works with; ``redis``: of the requests' memory, for whom there is one."""

    def __init__(self, redis: str = NOWHERE, **settings: Any) -> None:
        self.now = 0.0
        self.ready = True
        self.calls = Calls(3)
        self.phone = ScriptedPhone()
        self.agent = SilentCaller()
        self.memory = Memory(redis)
        allowed: dict[str, Any] = {
            "listen": "127.0.0.1:5060",
            "destinations": "*@pbx.example",
            "max_placed": 3,
        } | settings
        self.placing = Placing(
            SipSettings(**allowed),
            self.calls,
            self.phone,  # type: ignore[arg-type]  # all of a phone that placing uses
            self._caller,
            lambda: self.ready,
            self.memory.placed,
            lambda: self.now,
        )

    async def place(self, asked: Asked, key: str = "") -> str:
        told = await self.placing.place(asked, key)
        return str(told["id"])

    def _caller(self, name: str, values: Mapping[str, str]) -> SilentCaller:
        if name != "test":
            raise NotCallable("agent", "There is no such agent here.")
        return self.agent

    def told(self, call_id: str) -> dict[str, Any]:
        told = self.placing.told(call_id)
        assert told is not None
        return told

    async def over(self, call_id: str) -> None:
        await eventually(lambda: self.told(call_id)["state"] == "ended", "the end")
        await asyncio.sleep(0)


@asynccontextmanager
async def desk(redis: str = NOWHERE, **settings: Any) -> AsyncIterator[Desk]:
    made = Desk(redis, **settings)
    try:
        yield made
    finally:
        await made.calls.drain(5)
        await drop(made.memory)
        assert made.calls.taken == 0


async def test_a_call_is_told_of_from_its_ring_to_its_end() -> None:
    async with desk() as here:
        call_id = await here.place(Asked(ALICE.to, "test", {"X-Order": "7"}))
        assert here.phone.dialled == [("sip:alice@pbx.example", {"X-Order": "7"})]
        assert (here.told(call_id)["state"], here.calls.taken) == ("dialing", 1)
        far = here.phone.far[0]
        far.rings()
        await eventually(lambda: here.told(call_id)["state"] == "ringing", "the ring")
        far.answers()
        await eventually(lambda: here.told(call_id)["state"] == "answered", "the answer")
        far.refuses("Connection reset by peer")
        await here.over(call_id)
        told = here.told(call_id)
        assert (told["reason"], told["answered_by"], told["agent"]) == ("hung-up", None, "test")
        assert told["placed_at"] <= told["answered_at"] <= told["ended_at"]
        assert here.calls.taken == 0


@pytest.mark.parametrize(
    ("asked", "settings", "code"),
    [
        (Asked("alice", "test"), {}, "bad_address"),
        (Asked(ALICE.to, "test", {"Via": "evil"}), {}, "bad_header"),
        (Asked(ALICE.to, "nobody"), {}, "agent"),
        (ALICE, {"destinations": ""}, "destination"),
        (Asked("sip:alice@elsewhere.example", "test"), {}, "destination"),
        (
            Asked("sip:alice@203.0.113.1", "test"),
            {"listen": "192.0.2.1:5060", "trusted": "192.0.2.0/24", "destinations": "*@*"},
            "not_trusted",
        ),
    ],
)
async def test_what_nothing_allows_is_refused_and_costs_nothing(
    asked: Asked, settings: dict[str, str], code: str
) -> None:
    async with desk(**settings) as here:
        with pytest.raises(NotCallable) as refused:
            await here.place(asked)
        assert (refused.value.code, here.calls.taken, here.phone.dialled) == (code, 0, [])


async def test_an_agent_calls_only_those_of_its_own_list() -> None:
    async with desk() as here:
        here.agent.may_call = ()
        with pytest.raises(NotCallable, match="may_call of the agent test") as refused:
            await here.place(ALICE)
        assert refused.value.code == "destination"


async def test_by_tcp_and_by_name_answers_come_in_wherever_they_are_from() -> None:
    networks = {"listen": "192.0.2.1:5060", "trusted": "192.0.2.0/24", "destinations": "*@*"}
    async with desk(**networks) as here:
        for to in ("a@203.0.113.1;transport=tcp", "a@pbx.example", "a@192.0.2.7"):
            await here.place(Asked(to, "test"))


async def test_the_registrar_is_heard_without_being_trusted() -> None:
    with_pbx = {
        "listen": "192.0.2.1:5060",
        "registrar": "203.0.113.1",
        "username": "2000",
        "destinations": "*@*",
    }
    async with desk(**with_pbx) as here:
        await here.place(Asked("1000@203.0.113.1", "test"))
        with pytest.raises(NotCallable):
            await here.place(Asked("1000@203.0.113.2", "test"))


async def test_there_is_an_end_to_how_many_are_placed_at_once_in_a_minute_and_to_one() -> None:
    async with desk(max_placed=1, calls_a_minute=3, calls_a_destination=2) as here:

        async def call(to: str) -> None:
            call_id = await here.place(Asked(f"{to}@pbx.example", "test"))
            here.phone.far[-1].refuses("486 Busy Here")
            await here.over(call_id)
            assert here.told(call_id)["reason"] == "refused:486"

        going_on = await here.place(Asked("bob@pbx.example", "test"))
        with pytest.raises(TooMany) as refused:
            await here.place(ALICE)
        assert refused.value.code == "too_many_placed"
        assert await here.placing.hang_up(going_on)
        await here.over(going_on)
        assert here.told(going_on)["reason"] == "hung-up-by-api"
        await call("alice")
        await call("alice")
        with pytest.raises(TooMany, match="in the last minute") as refused:
            await here.place(Asked("carol@pbx.example", "test"))
        assert (refused.value.code, refused.value.retry_s) == ("rate", 60)
        here.now = 61.0
        with pytest.raises(TooMany, match="was called 2 times") as refused:
            await here.place(ALICE)
        assert (refused.value.code, refused.value.retry_s) == ("destination_rate", 3539)
        await call("carol")


async def test_others_calls_count_too_and_a_phone_or_engine_that_is_not_there_is_named() -> None:
    async with desk() as here:
        here.ready = False
        with pytest.raises(Refused, match="speech model"):
            await here.place(ALICE)
        here.ready = True
        here.phone.fault = "The phone is being started."
        with pytest.raises(Refused, match="The phone is being started") as refused:
            await here.place(ALICE)
        assert (refused.value.code, here.calls.taken) == ("phone_not_ready", 0)
        here.phone.fault = ""
        callers = [here.calls.admit() for _ in range(3)]
        with pytest.raises(Refused) as refused:
            await here.place(ALICE)
        assert refused.value.code == "full"
        for place in callers:
            place.release()


async def test_a_request_sent_again_rings_nobody_twice() -> None:
    async with desk(calls_a_minute=1) as here:
        call_id = await here.place(ALICE, "key")
        assert await here.place(Asked("sip:alice@pbx.example", "test"), "key") == call_id
        with pytest.raises(OtherRequest):
            await here.place(Asked("sip:bob@pbx.example", "test"), "key")
        with pytest.raises(TooMany):
            await here.place(ALICE, "another key")
        assert len(here.phone.dialled) == 1


async def test_a_parley_that_was_started_again_rings_nobody_twice() -> None:
    """Nor does another that shares the Redis; both tell of the call that was placed."""
    async with running_redis() as redis:
        async with desk(redis.url) as before:
            first = await before.placing.place(ALICE, "key")
        async with desk(redis.url) as after:
            told = await after.placing.place(Asked(ALICE.to, "test", {}), "key")
            same = {name: told[name] for name in ("id", "to", "agent", "state")}
            assert same == {"id": first["id"], "to": ALICE.to, "agent": "test", "state": "unknown"}
            assert told["placed_at"] <= first["placed_at"]
            with pytest.raises(OtherRequest):
                await after.place(Asked(ALICE.to, "test", {"X-Order": "7"}), "key")
            assert not after.phone.dialled
            assert await after.place(ALICE, "another key") != first["id"]
            assert len(after.phone.dialled) == 1
        assert not any("alice" in key or "another" in key for key in await redis.keys())


async def test_a_request_that_was_refused_may_be_sent_again() -> None:
    async with running_redis() as redis, desk(redis.url) as here:
        here.phone.fault = "The phone is being started."
        with pytest.raises(Refused):
            await here.place(ALICE, "key")
        here.phone.fault = ""
        first, second = await asyncio.gather(here.place(ALICE, "key"), here.place(ALICE, "key"))
        assert first == second == here.phone.far[0].leg.call_id
        assert len(here.phone.dialled) == 1


async def test_what_is_over_for_long_is_forgotten_and_its_key_with_it() -> None:
    async with desk() as here:
        first, second = await here.place(ALICE, "key"), await here.place(ALICE)
        here.phone.far[0].refuses("603 Decline")
        await here.over(first)
        here.now = KEPT_S + 1
        assert here.placing.told(first) is None
        assert not await here.placing.hang_up(first)
        assert here.told(second)["state"] == "dialing"  # goes on, however old
        assert await here.place(ALICE, "key") not in (first, second)


async def test_when_parley_stops_calls_that_still_ring_are_given_up() -> None:
    async with desk() as here:
        call_id = await here.place(ALICE)
        await asyncio.sleep(0)
        await here.calls.drain(5)
        assert here.told(call_id)["reason"] == "stopping"
