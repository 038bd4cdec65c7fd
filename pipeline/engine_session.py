"""Keeping a session with the engine for as long as a call lasts, over an engine's crashes and restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from loguru import logger
from msgspec.structs import replace

from model_runtime.protocol import EngineMessage, Error, HistoryEntry, Open
from pipeline.agent import CallSettings
from pipeline.engine_client import EngineClient, EngineGone, EngineRefused

MAX_CRASHES = 3  # an engine that dies this often, each time soon after it came back, will do so again


class SessionListener(Protocol):
    """Who holds the conversation."""

    @property
    def history(self) -> list[HistoryEntry]:
        """The conversation as the engine last told it: what the next session goes on with."""

    async def session_begun(self, client: EngineClient, again: bool) -> None:
        """A session is open; ``again``: it replaces one that was lost, and has its history."""

    async def session_said(self, event: EngineMessage) -> None:
        """The engine's next message."""

    @property
    def voice(self) -> str:
        """What the session is to speak in; empty: the checkpoint's own voice."""

    async def timbre(self, voice: str) -> bytes:
        """The file of a voice that the engine does not have; empty if there is none to be had."""

    async def voice_refused(self, reason: str) -> None:
        """There is no such voice (any more). If one was chosen in the call, ``voice`` is now the agent's."""

    async def session_lost(self) -> None:
        """The engine is gone; another session is being sought."""

    async def session_waits(self) -> None:
        """No engine answers yet. Called once, and only before the first session."""


class SessionImpossible(Exception):  # noqa: N818 - it reads as what happened
    """The call cannot go on. ``text`` tells the caller, ``reason`` the log."""

    def __init__(self, text: str, reason: str) -> None:
        """See the class."""
        super().__init__(text)
        self.text = text
        self.reason = reason


async def keep_session(
    url: str, message: Open, settings: CallSettings, listener: SessionListener, clock: Callable[[], float]
) -> None:
    """Hold session after session until cancelled.

    Raises:
        SessionImpossible: the engine refused the first session, or none was to be had within ``reconnect_s``,
            or one after the other broke.
    """
    give_up_at = clock() + settings.reconnect_s
    opened_before, crashes, waiting, logged = False, 0, False, ""
    while True:
        out_of_time = clock() >= give_up_at
        try:
            history = listener.history
            voice = listener.voice
            opening = replace(message, history=len(history), voice=voice)
            client = await _open(url, opening, settings, listener, history)
        except EngineRefused as refusal:
            if refusal.code == "voice" and voice != message.voice:
                await listener.voice_refused(str(refusal))
                continue
            logger.warning(f"call {message.call_id}: the engine refused the session: {refusal}")
            # After a crash every call wants its place back at once: a refusal may be for the moment only.
            if out_of_time or not opened_before:
                raise SessionImpossible(_in_words(refusal), f"refused:{refusal.code}") from refusal
        except EngineGone as gone:
            if logged != str(gone):  # once, and not at every attempt
                logged = str(gone)
                logger.warning(f"call {message.call_id}: {gone}")
            if out_of_time:
                text = "The speech engine cannot be reached, so this call must end. Please call again later."
                raise SessionImpossible(text, "engine-gone") from gone
            if not opened_before and not waiting:
                waiting = True
                await listener.session_waits()
        else:
            began, logged = clock(), ""
            await _hold(client, listener, again=opened_before, call_id=message.call_id)
            crashes = crashes + 1 if clock() - began < settings.reconnect_s else 1
            if crashes > MAX_CRASHES:
                text = "The speech engine keeps failing, so this call must end. Please call again later."
                raise SessionImpossible(text, "engine-gone")
            await listener.session_lost()
            opened_before, give_up_at = True, clock() + settings.reconnect_s
            continue
        await asyncio.sleep(settings.reconnect_every_s)


async def _open(
    url: str, opening: Open, settings: CallSettings, listener: SessionListener, history: list[HistoryEntry]
) -> EngineClient:
    """A session. A voice that the engine does not have is brought along, if it is to be had."""
    try:
        return await EngineClient.open(url, opening, settings.open_timeout_s, history)
    except EngineRefused as refusal:
        timbre = await listener.timbre(opening.voice) if refusal.code == "voice" else b""
        if not timbre:
            raise
    return await EngineClient.open(url, replace(opening, timbre=timbre), settings.open_timeout_s, history)


async def _hold(client: EngineClient, listener: SessionListener, again: bool, call_id: str) -> None:
    """One session, until the engine is gone."""
    try:
        async with client:
            await listener.session_begun(client, again)
            async for event in client.events():
                if isinstance(event, Error) and event.fatal:
                    raise EngineGone(event.message)
                await listener.session_said(event)
    except EngineGone as gone:
        logger.warning(f"call {call_id}: {gone}")


def _in_words(refusal: EngineRefused) -> str:
    if refusal.code == "capacity":
        return "All lines are busy. Please call again in a moment."
    if refusal.code == "voice":
        return f"The agent's voice is not available: {refusal.message}"
    return f"The speech engine refused the call: {refusal.message}"
