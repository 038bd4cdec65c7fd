"""What an operator may ask of the memory of calls: which there are, what was said in one, to forget it.

Nothing here needs a Parley that runs, and nothing disturbs one. Redis is looked through in small portions
(SCAN), since other keys may be there by the million, and memory is freed behind its back (UNLINK). A call is
erased by one script: all of it or nothing, never while it is on the line. So whatever is broken off may be
begun again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, cast

from redis import ResponseError

from pipeline.conversation import Conversation
from pipeline.memory.callers import CallerStore
from pipeline.memory.client import READ_ALL_S, asking, connect
from pipeline.memory.keys import F_CONVERSATION, F_COUNT, F_FACTS, F_SCHEMA, SCHEMA, Keys
from pipeline.memory.masters import let_go
from pipeline.memory.stored import unpack_conversation, unpack_facts
from pipeline.memory.voices import VoiceStore

PORTION = 1000  # keys that Redis looks at in one go: 1.8 ms on two busy cores, among a million (99 of 100)
LOOK_AT = 100  # calls read in one go: some 10 kB of words each
FORGOTTEN_S = 300.0  # longer than any process goes on knowing a call that is over, or tries to write one
REWRITE_S = 60.0  # a full gigabyte takes seconds; what is not done by then Redis does on its own

# KEYS: lease, forgotten, then what is kept. ARGV: ms. The number of keys erased; -1: it is on the line. They
# are erased before anything is set, so a Redis that is full does it, too.
FORGET = """
if redis.call('exists', KEYS[1]) == 1 then return -1 end
local erased = redis.call('unlink', unpack(KEYS, 3))
redis.pcall('set', KEYS[2], '1', 'px', ARGV[1])
return erased
"""


class OnTheLine(Exception):  # noqa: N818 - reads as what it is
    """A call goes on, so it cannot be erased yet."""


@dataclass(frozen=True)
class Kept:
    """What is kept of a call.

    ``live``: it goes on now, or its process has died within the last seconds. ``fault``: why a part of it
    cannot be read; what can is there all the same.
    """

    call_id: str
    facts: dict[str, str] = field(default_factory=dict)
    conversation: Conversation = field(default_factory=Conversation)
    entries: int = 0  # of the engine's history
    live: bool = False
    expires_s: float | None = None  # None: never
    set_aside: bool = False  # something under its name could not be read once, and is kept apart
    fault: str = ""


class Archive:
    """The calls of one tenant. To be used as a context, which closes the connection.

    Everything raises ``MemoryUnavailable`` where Redis does not do as asked.
    """

    def __init__(self, url: str, tenant: str) -> None:
        """Nothing is connected yet. Raises ``ValueError`` as ``connect`` and ``Keys`` do."""
        self._keys = Keys(tenant)
        self._redis = connect(url, self._keys)
        self.voices = VoiceStore(self._redis, self._keys)
        self.callers = CallerStore(self._redis, self._keys, 0.0)

    async def __aenter__(self) -> Self:
        """As it is."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        await let_go(self._redis)

    async def calls(self) -> list[Kept]:
        """All of them, in no order. One that begins or ends meanwhile is there or is not."""
        found: dict[str, None] = {}
        cursor = 0
        while True:
            async with asking(READ_ALL_S):
                cursor, keys = await self._redis.scan(cursor, match=self._keys.everything, count=PORTION)
            here = map(self._keys.call_of, cast("list[bytes]", keys))
            found |= {call_id: None for call_id in here if call_id is not None}
            if not cursor:
                break
        ids = list(found)
        kept: list[Kept] = []
        for start in range(0, len(ids), LOOK_AT):
            kept += await self._look(ids[start : start + LOOK_AT])
        return kept

    async def call(self, call_id: str) -> Kept | None:
        """One of them; ``None`` if nothing is kept of it."""
        return next(iter(await self._look([call_id])), None)

    async def forget(self, call_id: str) -> bool:
        """Erase everything about a call; who still knows of it writes no more. False: nothing was kept.

        Raises ``OnTheLine``.
        """
        lease, forgotten = self._keys.lease(call_id), self._keys.forgotten(call_id)
        kept = self._keys.kept(call_id)
        async with asking(READ_ALL_S):
            erased = await self._redis.eval(
                FORGET, 2 + len(kept), lease, forgotten, *kept, round(FORGOTTEN_S * 1000)
            )
        if erased < 0:
            raise OnTheLine(call_id)
        return bool(erased)

    async def tidy_disk(self) -> bool:
        """Have Redis write its append-only file anew, in which what was erased still stands until then.

        False: it has not come to an end within ``REWRITE_S``. Only for a Redis of our own.
        """
        deadline = time.monotonic() + REWRITE_S
        begun = False
        while time.monotonic() < deadline:
            async with asking(READ_ALL_S):
                if not begun:
                    with suppress(ResponseError):  # one is under way, which may have begun before the erasure
                        await self._redis.bgrewriteaof()
                        begun = True
                state = await self._redis.info("persistence")
            if begun and not state["aof_rewrite_in_progress"] and not state["aof_rewrite_scheduled"]:
                return bool(state["aof_last_bgrewrite_status"] == "ok")
            await asyncio.sleep(0.05)
        return False

    async def _look(self, ids: Sequence[str]) -> list[Kept]:
        """What is kept of each that there is."""
        found = []
        async with asking(READ_ALL_S), self._redis.pipeline(transaction=False) as pipe:
            for call_id in ids:
                pipe.exists(self._keys.lease(call_id))
                for key in self._keys.kept(call_id):
                    pipe.pttl(key)  # -2: there is none
                    pipe.hmget(key, HEAD)
            answers = iter(await pipe.execute(raise_on_error=False))
            for call_id in ids:
                live = next(answers)
                call, aside = ((next(answers), next(answers)) for _ in range(2))
                for answer in (live, *call, *aside):
                    if isinstance(answer, Exception) and "WRONGTYPE" not in str(answer):
                        raise answer
                if (call[0], aside[0]) != (-2, -2):
                    left, head = call if call[0] != -2 else aside
                    expires_s = None if left == -1 else left / 1000
                    found.append(_kept(call_id, head, bool(live), expires_s, aside[0] != -2))
        return found


HEAD = [F_SCHEMA, F_FACTS, F_CONVERSATION, F_COUNT]


def _kept(
    call_id: str, head: list[bytes | None] | Exception, live: bool, expires_s: float | None, aside: bool
) -> Kept:
    """One call as far as it can be read."""
    if isinstance(head, Exception):
        return Kept(call_id, {}, Conversation(), 0, live, expires_s, aside, "is nothing that Parley writes")
    schema, facts, conversation, count = head
    faults = []
    if schema != b"%d" % SCHEMA:
        number = (schema or b"none").decode(errors="replace")
        faults.append(f"is of version {number}, this Parley's is {SCHEMA}")
    known, said, entries = {}, Conversation(), 0
    try:
        known = unpack_facts(facts) if facts else {}
    except (ValueError, RecursionError):
        faults.append("has facts that cannot be read")
    try:
        said = unpack_conversation(conversation) if conversation else Conversation()
    except (ValueError, RecursionError):
        faults.append("has a conversation that cannot be read")
    with suppress(ValueError):
        entries = int(count or b"0")
    return Kept(call_id, known, said, entries, live, expires_s, aside, "; ".join(faults))
