"""Calls that we place: ``parley call``. One call, its own worker, and nobody who is not on the list."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable, Mapping

from bot.beside import beside
from bot.engine_process import Engine
from bot.ingress.sip import messages as m
from bot.ingress.sip.destinations import Destination
from bot.ingress.sip.ingress import configuration
from bot.ingress.sip.leg import LegError
from bot.ingress.sip.phone import START_S, Phone
from bot.ingress.sip.placed import RING_S, PhoneCaller, PlacedCall
from bot.ingress.sip.settings import SipSettings
from bot.settings import Settings
from pipeline.call import CallEnd

_PORTS = range(20_000, 32_000)  # above it begins ip_local_port_range, of which clients get theirs


class CannotCall(Exception):  # noqa: N818 - read by a person
    """The call was not placed, or nobody answered. The message says why and what to do."""


async def place_call(
    to: Destination,
    settings: Settings,
    engine: Engine,
    caller: PhoneCaller,
    tell: Callable[[str], None],
    headers: Mapping[str, str],
) -> CallEnd | None:
    """Call ``to`` and be on the line until it is over. Raises ``CannotCall``.

    ``to`` and ``headers`` were checked already. ``tell`` hears how far it has come. None: a machine answered,
    which was hung up on.
    """
    phone = Phone(_towards(to, settings.sip), lambda leg: leg.reject(), settings.log_level)
    async with beside(engine.run(), "engine"), beside(phone.run(), "phone"):
        tell("loading the speech model")
        await _ready(engine)
        try:
            await asyncio.wait_for(phone.ready.wait(), START_S)
            leg = phone.dial(to.uri, headers, early=True)
        except (LegError, TimeoutError):
            raise CannotCall(phone.reason) from None
        tell(f"calling {to.uri}")
        placed = PlacedCall(leg, caller, tell)
        end = await placed.run()
        if end is None and placed.reason not in ("answering-machine", "intercept"):
            raise CannotCall(_why(to, placed))
        return end


def _why(to: Destination, placed: PlacedCall) -> str:
    if placed.reason == "no-answer":
        return f"{to.uri} did not answer within {RING_S:.0f} s."
    return f"{to.uri} was not reached: {placed.detail or 'no answer'}."


async def _ready(engine: Engine) -> None:
    news = asyncio.Event()
    engine.on_change = lambda _: news.set()
    while not engine.status.ready:
        if engine.status.state in ("failed", "down"):
            raise CannotCall(engine.status.reason)
        await news.wait()
        news.clear()


def _towards(to: Destination, settings: SipSettings) -> m.Configure:
    """A worker that can reach ``to``: from the address the system would send from, on a free port.

    Packets are let in from everywhere, since answers may come from elsewhere; calls that come are refused.
    """
    host = to.host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, 5060))
        except OSError as error:
            raise CannotCall(f"There is no way to {host}: {error.strerror or error}.") from None
        ours = probe.getsockname()[0]
    return configuration(settings, f"{ours}:{_free_port(ours)}", ["0.0.0.0/0"])


def _free_port(host: str) -> int:
    """A port that is free over UDP and TCP, and none that Linux may give to a client before we have it."""
    for port in random.sample(_PORTS, 100):
        try:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                with socket.socket(socket.AF_INET, kind) as probe:
                    probe.bind((host, port))
        except OSError:
            continue
        return port
    raise CannotCall(f"No port of {host} is free between {_PORTS[0]} and {_PORTS[-1]}.")
