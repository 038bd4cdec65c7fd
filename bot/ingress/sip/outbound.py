"""Calls that we place: ``parley call``. One call, its own worker, and nobody who is not on the list."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from bot.beside import beside
from bot.engine_process import Engine
from bot.ingress.sip import messages as m
from bot.ingress.sip.ingress import LiveCall, MakePhoneCall, configuration, hang_up, talk
from bot.ingress.sip.leg import LegError, SipLeg
from bot.ingress.sip.phone import Phone
from bot.ingress.sip.settings import SipSettings
from bot.settings import Settings, variable
from pipeline.call import CallEnd

RING_S = 60.0  # somebody who has not answered by then is not there
START_S = 15.0  # for the phone's worker

# Strict where RFC 3261 is generous: what is checked against the list must be what the stack will read.
_URI = re.compile(
    r"(?:sip:)?(?P<user>[A-Za-z0-9+*#._-]{1,64})@(?P<host>[A-Za-z0-9.-]{1,253})(?P<port>:\d{1,5})?"
    r"(?P<tcp>;transport=(?:udp|tcp))?"
)


class CannotCall(Exception):  # noqa: N818 - read by a person
    """The call was not placed, or nobody answered. The message says why and what to do."""


def checked(uri: str, destinations: Sequence[str]) -> str:
    """``uri`` as it may be called. Raises ``CannotCall`` for one that is none, or is not on the list."""
    found = _URI.fullmatch(uri.strip())
    if found is None:
        raise CannotCall(f"{uri!r} is not an address to call; one looks like sip:1000@pbx.example.org")
    address = f"{found['user']}@{found['host'].lower()}{found['port'] or ''}"
    for pattern in destinations:
        user, _, host = pattern.removeprefix("sip:").rpartition("@")
        wanted = re.escape(f"{user}@{host.lower()}").replace(r"\*", ".*")
        if re.fullmatch(wanted, address):
            return f"sip:{address}{found['tcp'] or ''}"
    raise CannotCall(
        f"{address} is not among those that may be called. Add it to {variable('sip', 'destinations')}, "
        "where * stands for any characters."
    )


async def place_call(
    uri: str, settings: Settings, engine: Engine, make_call: MakePhoneCall, tell: Callable[[str], None]
) -> CallEnd:
    """Call ``uri`` (checked already) and be on the line until it is over. Raises ``CannotCall``.

    ``tell`` hears how far it has come.
    """
    phone = Phone(_towards(uri, settings.sip), lambda leg: leg.reject(), settings.log_level)
    async with beside(engine.run(), "engine"), beside(phone.run(), "phone"):
        tell("loading the speech model")
        await _ready(engine)
        try:
            await asyncio.wait_for(phone.ready.wait(), START_S)
            leg = phone.dial(uri)
        except (LegError, TimeoutError):
            raise CannotCall(phone.reason) from None
        tell(f"calling {uri}")
        return await _be_on(leg, leg.established(), make_call, tell)


async def _ready(engine: Engine) -> None:
    news = asyncio.Event()
    engine.on_change = lambda _: news.set()
    while not engine.status.ready:
        if engine.status.state in ("failed", "down"):
            raise CannotCall(engine.status.reason)
        await news.wait()
        news.clear()


async def _be_on(
    leg: SipLeg, answered: Coroutine[Any, Any, bool], make_call: MakePhoneCall, tell: Callable[[str], None]
) -> CallEnd:
    try:
        try:
            if not await asyncio.wait_for(answered, RING_S):
                end = await leg.ended()
                raise CannotCall(f"{leg.called} was not reached: {end.detail or 'no answer'}.")
        except TimeoutError:
            raise CannotCall(f"{leg.called} did not answer within {RING_S:.0f} s.") from None
        tell("answered")
        call: LiveCall = make_call(leg)
        return await talk(leg, call)
    finally:
        await hang_up(leg)


def _towards(uri: str, settings: SipSettings) -> m.Configure:
    """A worker that can reach ``uri``: from the address the system would send from, on a free port.

    Packets are let in from everywhere, since answers may come from elsewhere; calls that come are refused.
    """
    found = _URI.fullmatch(uri)
    assert found is not None  # it was checked
    host = found["host"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 5060))
        except OSError as error:
            raise CannotCall(f"There is no way to {host}: {error.strerror or error}.") from None
        ours = probe.getsockname()[0]
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as free:
        free.bind((ours, 0))
        port = free.getsockname()[1]
    return configuration(settings, f"{ours}:{port}", ["0.0.0.0/0"])
