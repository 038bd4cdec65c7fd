"""Which voice a call speaks in, once somebody has chosen one: the model by a tool, or the caller on the page.

The engine changes over at the next chunk of sound. The choice belongs to this call alone; it survives an
engine that dies and a caller who comes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from model_runtime.protocol import SetVoice
from pipeline import page_messages as page
from pipeline.record import CallRecord

Timbres = Callable[[str], Awaitable[bytes]]
"""The file of a voice for an engine that does not have it, within a second; empty if there is none."""


class Favourite(Protocol):
    """The voice a caller chose in an earlier call. Neither method raises, or takes longer than a second."""

    async def recall(self) -> str:
        """Empty: none, or it cannot be looked up."""

    async def keep(self, voice: str) -> None:
        """For the next call; empty: none."""


async def no_timbre(_voice: str) -> bytes:
    """``Timbres`` where there are none."""
    return b""


class ChosenVoice:
    """One call's.

    Args:
        agents: the agent's voice; empty: the checkpoint's default.
        record: where the choice is kept.
        send: to the engine, if there is one.
        tell: to the page.
        timbres: where voices come from that the engine does not have.
        favourite: what is remembered of the caller, if it is to be.
    """

    def __init__(
        self,
        agents: str,
        record: CallRecord,
        send: Callable[[SetVoice], None],
        tell: Callable[[page.PageMessage], Awaitable[None]],
        timbres: Timbres = no_timbre,
        favourite: Favourite | None = None,
    ) -> None:
        """See the class."""
        self._favourite = favourite
        self._recalled = ""
        self.engines: frozenset[str] = frozenset()  # the voices that the engine has
        self.timbre = timbres
        self._agents = agents
        self._record = record
        self._send = send
        self._tell = tell
        self.spoken = agents  # as the engine names it
        self._choosing = asyncio.Lock()  # one after the other, as they were made
        self._before: str | None = None  # while the engine may still say that there is no such voice

    @property
    def name(self) -> str:
        """What a session is to be opened with."""
        return self._record.voice or self._agents

    async def recall(self) -> None:
        """Before the first session: as in the caller's last call, unless this one goes on from another."""
        if self._favourite is not None and not self._record.voice:
            self._recalled = await self._favourite.recall()
            if self._recalled:
                self._record.speak_as(self._recalled)

    async def keep(self) -> None:
        """After the last: for the caller's next call."""
        if self._favourite is not None and (self._record.voice or self._recalled):
            await self._favourite.keep(self._record.voice)

    async def choose(self, name: str) -> None:
        """Speak as ``name`` from the next chunk on."""
        async with self._choosing:
            timbre = b"" if name in self.engines else await self.timbre(name)
            self._before = self._record.voice
            self._record.speak_as(name)
            self.spoken = name
            self._send(SetVoice(name, timbre))
            await self._tell(page.Voice(name))

    async def refused(self, reason: str) -> None:
        """The engine does not have the voice that was chosen last: the one before goes on."""
        before, self._before = self._before or "", None
        self._record.speak_as(before)
        self.spoken = self.name
        await self._tell(page.Notice("warning", reason))
        await self._tell(page.Voice(self.name))
