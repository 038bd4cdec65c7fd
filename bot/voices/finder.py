"""Finding a voice in the middle of a call: in the library as it was a moment ago, without waiting for it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from loguru import logger

from bot.beside import beside
from bot.voices.library import LibraryError, known
from bot.voices.ranking import ATTRIBUTES, Ranking, understand
from bot.voices.shared import SharedVoices, stamps_of
from model_runtime.library.entry import Entry

LOOK_EVERY_S = 5.0  # at the folder, for voices that came or went
_RELATIVE = re.compile(r"\b(this|that|your|yours|same|like)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Found:
    """A voice that fits, and what is said of it."""

    name: str
    description: str


class VoiceFinder:
    """Made by ``voice_finder``, which keeps it up to date."""

    def __init__(self) -> None:
        """Nothing known."""
        self._ready = asyncio.Event()
        self._entries: dict[str, Entry] = {}
        self._ranking = Ranking([])

    def know(self, entries: list[Entry]) -> None:
        """These are the voices there are."""
        self._entries = {entry.name: entry for entry in entries if not entry.fault}
        self._ranking = Ranking([known(entry) for entry in self._entries.values()])
        self._ready.set()

    async def find(self, text: str, present: str = "") -> Found | None:
        """The voice that fits ``text`` best and is not the ``present`` one; ``None`` if none fits at all.

        "Deeper", "like this but slower" and the like are meant against the present voice; "another voice" is
        the one least like it. Waits only for the library to have been read once.
        """
        await self._ready.wait()
        query = understand(text)
        if query.anything and (query.other or not is_relative(text)):
            return self._another(present)
        like = present if present in self._entries and is_relative(text) else ""
        for hit in self._ranking.search(text, like, limit=2):
            if hit.name != present and hit.score > 0:
                return Found(hit.name, self._entries[hit.name].description)
        return None

    def _another(self, present: str) -> Found | None:
        ranked = self._ranking.search("", present if present in self._entries else "", len(self._entries))
        others = [hit.name for hit in ranked if hit.name != present]
        return Found(others[-1], self._entries[others[-1]].description) if others else None


def is_relative(text: str) -> bool:
    """Whether a description is meant against the voice that is heard now."""
    words = re.findall(r"[a-z]+", text.lower())
    return any(word in ATTRIBUTES and word.endswith("er") for word in words) or bool(_RELATIVE.search(text))


@asynccontextmanager
async def voice_finder(
    read: Callable[[], list[Entry]], folder: Path, shared: SharedVoices | None = None
) -> AsyncIterator[VoiceFinder]:
    """A finder over what ``read`` lists, now and when ``folder`` has changed, and over what is ``shared``.

    ``read`` may take seconds and raise ``LibraryError``; it runs on a thread of its own. Of two voices of one
    name its own is found.
    """
    finder = VoiceFinder()
    async with beside(_keep_up(finder, read, folder, shared), "voice-finder"):
        yield finder


async def _keep_up(
    finder: VoiceFinder, read: Callable[[], list[Entry]], folder: Path, shared: SharedVoices | None
) -> None:
    here: list[Entry] = []
    read_at: object = None
    known: object = None
    while True:
        stamps = await asyncio.to_thread(stamps_of, folder)
        if stamps != read_at:
            try:
                here = await asyncio.to_thread(read)
                read_at = stamps
            except LibraryError as error:
                logger.error(f"voices cannot be searched: {error}")
        others = shared.entries if shared else {}
        state = (read_at, shared.changes if shared else 0)
        if state != known and (read_at is not None or others):
            own = {entry.name for entry in here if not entry.fault}
            finder.know([*here, *(entry for name, entry in others.items() if name not in own)])
            known = state
        await asyncio.sleep(LOOK_EVERY_S)
