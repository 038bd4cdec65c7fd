"""An extension of a PBX: being registered there (RFC 3261, section 10), and staying so. For the worker.

The stack refreshes a registration by itself, at nine tenths of what the registrar granted. What is here
begins anew when that fails, has the registrar's addresses and nobody else's let in, and un-registers.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from ipaddress import IPv4Network

from baresip.errors import BaresipError
from baresip.events import Event, StackEvent
from baresip.ua import UserAgent
from loguru import logger

from bot.ingress.sip import messages as m
from bot.ingress.sip.registrar import Registrar

EXPIRES_S = 120  # what is asked for: a PBX that was started anew has forgotten us for no longer than that
FIRST_PAUSE_S = 1.0  # before it is tried again; doubled each time
LONGEST_PAUSE_S = 30.0
ANSWER_S = 10.0
GOODBYE_S = 2.0  # the worker is given 5 s to end


class Registration:
    """One, from the first REGISTER to the last. ``run`` keeps it, ``leave`` ends it."""

    def __init__(
        self,
        agent: UserAgent,
        registrar: Registrar,
        trust: Callable[[list[IPv4Network]], object],
        tell: Callable[[m.Registered], None],
    ) -> None:
        """``trust``: has the registrar's addresses let in; ``tell``: hears each change."""
        self._agent = agent
        self._registrar = registrar
        self._trust = trust
        self._tell = tell
        self._told: m.Registered | None = None
        self._lost = asyncio.Event()
        agent.on(self._happened)

    async def run(self) -> None:
        """Register, and again whenever it is lost, until cancelled."""
        pause = FIRST_PAUSE_S
        while True:
            self._lost.clear()
            fault = await self._attempt()
            self._is(fault)
            if fault:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
            else:
                pause = FIRST_PAUSE_S
                await self._lost.wait()

    async def leave(self) -> None:
        """Un-register, if the registrar listens."""
        try:
            await self._agent.unregister(timeout=GOODBYE_S)
        except BaresipError as error:
            logger.warning("the registration at {} is left to expire: {}", self._registrar.domain, error)

    async def _attempt(self) -> str:
        """What went wrong; empty: registered."""
        registrar = self._registrar
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                registrar.host, None, family=socket.AF_INET, type=socket.SOCK_DGRAM
            )
        except OSError as error:
            return f"{registrar.host} cannot be found: {error.strerror or error}"
        self._trust([IPv4Network(address[0]) for *_, address in found])
        try:
            await self._agent.register(timeout=ANSWER_S)
        except BaresipError as error:
            return str(error)
        return ""

    def _happened(self, event: StackEvent) -> None:
        if event.event is Event.REGISTER_FAIL:
            self._lost.set()

    def _is(self, fault: str) -> None:
        news = m.Registered(self._registrar.domain, fault)
        if news != self._told:
            self._told = news
            self._tell(news)
