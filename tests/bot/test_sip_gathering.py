"""What two processes say to each other arrives whole and in order, however it is written."""

from __future__ import annotations

import asyncio
import socket

from bot.ingress.sip import messages as m
from bot.ingress.sip.gathering import Gathering


async def test_all_that_is_said_in_one_turn_arrives_in_order_and_at_once() -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=theirs)
    _, mine = await asyncio.open_unix_connection(sock=ours)
    try:
        gathering = Gathering(mine)
        said = [
            m.Heard(call, bytes([number]) * m.HEARD_BYTES, number) for number in range(3) for call in "ab"
        ]
        for message in said:
            gathering.say(message)
        deframer, heard = m.Deframer(), list[m.FromWorker]()
        data = await reader.read(1 << 16)  # once
        heard += [m.from_worker.decode(body) for body in deframer.feed(data)]
        assert heard == said
        gathering.say(m.Alive())
        await gathering.flush()
        assert [m.from_worker.decode(body) for body in deframer.feed(await reader.read(1 << 16))] == [
            m.Alive()
        ]
        assert gathering.unread == 0
    finally:
        for one in (mine, writer):
            one.close()


async def test_to_a_process_that_is_gone_nothing_is_said() -> None:
    ours, theirs = socket.socketpair()
    _, mine = await asyncio.open_unix_connection(sock=ours)
    theirs.close()
    gathering = Gathering(mine)
    for _ in range(5):
        gathering.say(m.Alive())
        await asyncio.sleep(0)
    mine.close()
