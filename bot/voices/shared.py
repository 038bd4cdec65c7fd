"""The library's voices as Parleys share them: their folders come to Redis, and what is there is known here.

So an engine on another machine can speak in a voice whose folder it does not have: the call brings it along.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
from loguru import logger
from msgspec.structs import replace

from bot.beside import beside
from model_runtime.library import packed
from model_runtime.library.entry import NAME, SUFFIX, Entry
from model_runtime.protocol import MAX_FRAME_BYTES
from pipeline.memory import MemoryUnavailable, VoiceStore

LOOK_EVERY_S = 5.0  # at the folder and at Redis, for voices that came or went
MOST_BYTES = MAX_FRAME_BYTES // 2  # the frame that brings one holds more; 15 s of speech are 240 kB


class SharedVoices:
    """Those in Redis, as of a moment ago. ``run`` keeps that true.

    ``entries`` are the voices by name; ``changes`` grows whenever they are others.
    """

    def __init__(self, store: VoiceStore, folder: Path) -> None:
        """Nothing known. What is in ``folder`` and not in Redis will be put there."""
        self.entries: Mapping[str, Entry] = {}
        self.changes = 0
        self._store = store
        self._folder = folder
        self._stamps: Mapping[str, object] = {}  # of the folder's voices, when Redis last was brought them
        self._digests: Mapping[str, bytes] = {}
        self._number = -1  # see ``VoiceStore.digests``
        self._said: set[str] = set()

    async def timbre(self, name: str) -> bytes:
        """A voice's file, for an engine that does not have it: Redis's, or else the folder's; empty: none."""
        try:
            file = await self._store.file(name)
        except MemoryUnavailable as error:
            logger.warning("the voice {} cannot be looked up in Redis: {}", name, error)
            file = None
        if file is None and self._digests.get(name) != b"" and NAME.fullmatch(name):
            file = await asyncio.to_thread(_read, self._folder / f"{name}{SUFFIX}")
        return file or b""

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        trouble = ""
        while True:
            try:
                await self.look()
                trouble = ""
            except MemoryUnavailable as error:
                if str(error) != trouble:  # once, and not every few seconds
                    logger.warning("voices are not shared over Redis for now: {}", error)
                trouble = str(error)
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Learn which voices are in Redis, and bring those it lacks. Raises ``MemoryUnavailable``."""
        stamps = await asyncio.to_thread(stamps_of, self._folder)
        news = await self._learn()
        if not news and stamps == self._stamps:
            return
        for name in stamps:
            await self._bring(name)
        self._stamps = stamps
        await self._learn()

    async def _learn(self) -> bool:
        """Whether there was anything new."""
        news = await self._store.digests(self._number)
        if news is None:
            return False
        number, digests = news
        there = {name for name, digest in digests.items() if digest}
        changed = {name for name in there if self._digests.get(name) != digests[name]}
        entries = {name: entry for name, entry in self.entries.items() if name in there - changed}
        for name, content in (await self._store.entries(changed)).items():
            try:
                entries[name] = msgspec.json.decode(content, type=Entry)
            except ValueError as error:
                self._say(f"voice {name}: what Redis tells of it cannot be read: {error}")
        self.entries = dict(sorted(entries.items()))
        self._digests, self._number = digests, number
        self.changes += 1
        return True

    async def _bring(self, name: str) -> None:
        """Have Redis take a voice of the folder, if it has none of that name."""
        digest = self._digests.get(name)
        path = self._folder / f"{name}{SUFFIX}"
        if digest == b"":
            self._say(f"voice {name}: was removed, and is not shared; {path} is still there")
        if digest is not None:
            return
        file = await asyncio.to_thread(_read, path)
        try:
            if await put(self._store, name, file, replace=False):
                logger.info("voice {}: is shared over Redis now", name)
        except packed.Unusable as error:
            self._say(f"voice {name}: is not shared: {error}")

    def _say(self, what: str) -> None:
        """Once, however often it is met with."""
        if what not in self._said:
            self._said.add(what)
            logger.warning(what)


@asynccontextmanager
async def sharing(store: VoiceStore, folder: Path) -> AsyncIterator[SharedVoices]:
    """The shared voices, kept up to date."""
    shared = SharedVoices(store, folder)
    async with beside(shared.run(), "shared-voices"):
        yield shared


async def put(store: VoiceStore, name: str, file: bytes, *, replace: bool) -> bool:
    """Write a library's file to Redis; whether it was. Raises ``MemoryUnavailable``, ``packed.Unusable``."""
    if len(file) > MOST_BYTES:
        raise packed.Unusable(f"its file has {len(file)} bytes, and at most {MOST_BYTES} can be shared")
    entry = msgspec.json.encode(packed.entry(name, file))
    return await store.put(name, entry, file, replace=replace)


async def entries(store: VoiceStore) -> list[Entry]:
    """All voices in Redis that can be told of, by name. Raises ``MemoryUnavailable``."""
    _, digests = await store.digests() or (0, {})
    told = await store.entries(sorted(name for name, digest in digests.items() if digest))
    found = []
    for content in told.values():
        with suppress(ValueError):  # a Parley that runs says so in its log
            found.append(replace(msgspec.json.decode(content, type=Entry), origin="shared"))
    return found


def stamps_of(folder: Path) -> Mapping[str, object]:
    """The voices of a folder, each with something that changes when its file does."""
    stamps: dict[str, object] = {}
    try:
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            if NAME.fullmatch(path.stem):
                about = path.stat()
                stamps[path.stem] = (about.st_mtime_ns, about.st_size, about.st_ino)
    except OSError:
        pass  # there is none, or it changes just now
    return stamps


def _read(path: Path) -> bytes:
    """Empty if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError:
        return b""
