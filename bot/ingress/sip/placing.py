"""Calls placed by the running Parley for whoever may ask: which are placed, and what has become of them."""

from __future__ import annotations

import asyncio
import json
import math
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from loguru import logger

from bot.calls import Calls, Refused
from bot.ingress.sip.destinations import (
    Destination,
    check_headers,
    check_heard,
    check_listed,
    parsed,
)
from bot.ingress.sip.leg import LegError
from bot.ingress.sip.phone import Phone
from bot.ingress.sip.placed import PhoneCaller, PlacedCall, State
from bot.ingress.sip.rates import Rate
from bot.ingress.sip.settings import SipSettings
from bot.settings import variable
from pipeline.call import STOPPING
from pipeline.memory import MemoryUnavailable
from pipeline.memory.placed import Claim, PlacedStore, hashed

KEPT_S = 24 * 3600.0  # for which a call that is over is still told of, and a repeated request is one
KEPT = 10_000  # ... and how many at most, about 1 kB each


class Caller(PhoneCaller, Protocol):
    """An agent who calls, and whom it may call."""

    @property
    def may_call(self) -> tuple[str, ...]:
        """Patterns of addresses."""

    @property
    def where(self) -> str:
        """Where those stand, for a person."""


CallerOf = Callable[[str, Mapping[str, str]], Caller]
"""The caller of an agent's name, its variables filled in. Raises ``NotCallable``."""


@dataclass(frozen=True)
class Asked:
    """A call that somebody asks for."""

    to: str
    agent: str
    headers: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The same for the same request, in whatever order its fields came."""
        return hashed(
            json.dumps([self.to, self.agent, dict(self.headers), dict(self.variables)], sort_keys=True)
        )


class TooMany(Refused):
    """More calls than the limits allow."""


class OtherRequest(Exception):  # noqa: N818 - the asker's fault
    """The idempotency key stands for another request."""


@dataclass
class _Entry:
    asked: Asked
    to: str
    call: PlacedCall
    at: float  # monotonic
    times: dict[str, str] = field(default_factory=dict)


class Placing:
    """One for the process. Everything is refused that nothing allows."""

    def __init__(
        self,
        settings: SipSettings,
        calls: Calls,
        phone: Phone,
        caller_of: CallerOf,
        ready: Callable[[], bool],
        placed: PlacedStore,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``calls`` counts these among all; ``ready``: whether the engine could take a call now.

        ``placed`` knows the requests that had an idempotency key, of this process and of others.
        """
        self._settings = settings
        self._calls = calls
        self._phone = phone
        self._caller_of = caller_of
        self._ready = ready
        self._placed = placed
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._claims: dict[str, Claim] = {}  # by idempotency key
        self._one_key_at_a_time = asyncio.Lock()
        self._a_minute = Rate(settings.calls_a_minute, 60.0)
        self._a_destination = Rate(settings.calls_a_destination, 3600.0)

    async def place(self, asked: Asked, key: str = "") -> dict[str, Any]:
        """Call, and return at once what is ``told`` of the call. With a ``key`` seen before, of that call.

        Raises ``NotCallable``, ``OtherRequest``, ``TooMany`` and ``Refused``.
        """
        self._forget()
        call_id = uuid.uuid4().hex
        if not key:
            self._dial(asked, call_id)
            return self._told(call_id)
        async with self._one_key_at_a_time:
            claim = self._claims.get(key) or await self._claim(key, Claim(asked.digest, call_id, _wall()))
            if claim.request != asked.digest:
                raise OtherRequest
            if claim.call_id == call_id:
                try:
                    self._dial(asked, call_id)
                except Exception:
                    await self._give_up(key, call_id)
                    raise
                self._claims[key] = claim
        return self.told(claim.call_id) or _elsewhere(asked, claim)

    async def _claim(self, key: str, wanted: Claim) -> Claim:
        try:
            return await self._placed.claim(key, wanted, KEPT_S)
        except MemoryUnavailable as error:
            logger.warning("{}: placed without asking whether it was before: {}", wanted.call_id, error)
            return wanted

    async def _give_up(self, key: str, call_id: str) -> None:
        try:
            await self._placed.give_up(key, call_id)
        except MemoryUnavailable as error:
            logger.warning("{}: was not placed, but its idempotency key is used up: {}", call_id, error)

    def _dial(self, asked: Asked, call_id: str) -> None:
        caller, to = self._allowed(asked)
        self._check_room(to)
        if not self._ready():
            raise Refused("engine_not_ready", "The speech model is not ready.", retry_s=2)
        place = self._calls.admit()
        try:
            leg = self._phone.dial(to.uri, asked.headers, early=True, call_id=call_id)
        except LegError as error:
            place.release()
            raise Refused("phone_not_ready", str(error), retry_s=2) from None
        now = self._clock()
        self._a_minute.count("", now)
        self._a_destination.count(to.address, now)

        def tell(state: State) -> None:
            entry.times[state] = _wall()
            logger.info("{}: {} {}", call_id, to.address, state)

        call = PlacedCall(leg, caller, tell)
        entry = self._entries[call_id] = _Entry(asked, to.uri, call, now, {"dialing": _wall()})

        async def run() -> None:
            await call.run()

        self._calls.start(place, call_id, run, lambda: call.end(STOPPING))

    def told(self, call_id: str) -> dict[str, Any] | None:
        """What has become of a call; None: there is none of that id."""
        self._forget()
        return self._told(call_id) if call_id in self._entries else None

    def _told(self, call_id: str) -> dict[str, Any]:
        entry = self._entries[call_id]
        call, times = entry.call, entry.times
        return {
            "id": call_id,
            "to": entry.to,
            "agent": entry.asked.agent,
            "state": call.state,
            "answered_by": call.answered_by,
            "reason": call.reason if call.state == "ended" else "",
            "detail": call.detail,
            "placed_at": times["dialing"],
            "answered_at": times.get("answered"),
            "ended_at": times.get("ended"),
        }

    async def hang_up(self, call_id: str) -> bool:
        """End a call, soon; harmless when it is over. False: there is none of that id."""
        entry = self._entries.get(call_id)
        if entry is None:
            return False
        if entry.call.state != "ended":
            await entry.call.end("hung-up-by-api")
        return True

    def _allowed(self, asked: Asked) -> tuple[Caller, Destination]:
        to = parsed(asked.to)
        check_headers(asked.headers)
        caller = self._caller_of(asked.agent, asked.variables)
        check_listed(to, self._settings.destinations, variable("sip", "destinations"))
        check_listed(to, caller.may_call, caller.where)
        check_heard(to, self._settings.networks, self._settings.registrar)
        return caller, to

    def _check_room(self, to: Destination) -> None:
        placed = sum(entry.call.state != "ended" for entry in self._entries.values())
        if placed >= self._settings.max_placed:
            raise TooMany(
                "too_many_placed", f"{placed} placed calls go on, which is the most there may be.", retry_s=10
            )
        now = self._clock()
        if wait := self._a_minute.wait_s("", now):
            raise TooMany(
                "rate",
                f"{self._settings.calls_a_minute} calls were placed in the last minute.",
                math.ceil(wait),
            )
        if wait := self._a_destination.wait_s(to.address, now):
            raise TooMany(
                "destination_rate",
                f"{to.address} was called {self._settings.calls_a_destination} times in the last hour.",
                math.ceil(wait),
            )

    def _forget(self) -> None:
        """Calls that have been over for long enough."""
        for call_id, entry in list(self._entries.items()):
            old = self._clock() - entry.at > KEPT_S or len(self._entries) > KEPT
            if not old:
                break
            if entry.call.state == "ended":
                del self._entries[call_id]
                self._claims = {key: one for key, one in self._claims.items() if one.call_id != call_id}


def _elsewhere(asked: Asked, claim: Claim) -> dict[str, Any]:
    """What is told of a call that another process placed, or this one before it was started again."""
    return {
        "id": claim.call_id,
        "to": asked.to,
        "agent": asked.agent,
        "state": "unknown",
        "answered_by": None,
        "reason": "",
        "detail": "Another Parley placed it, or this one before it was started again.",
        "placed_at": claim.at,
        "answered_at": None,
        "ended_at": None,
    }


def _wall() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
