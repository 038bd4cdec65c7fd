"""The phone's worker process: ``python -m bot.ingress.sip.worker FD LOG_LEVEL``, FD its end of a socket pair.

The SIP stack is C; a fault in it ends this process and the calls in it, and nothing else. Started and watched
by ``bot.ingress.sip.phone``. Ends with status 2 if it cannot listen, having said why.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys

import uvloop
from loguru import logger

from bot import log
from bot.ingress.sip import messages as m
from bot.ingress.sip.gathering import Gathering
from bot.ingress.sip.stack import Stack, StackError

CANNOT_START = 2
MAX_UNREAD = 1 << 20  # bytes; a media process that far behind gets no more audio until it has read


class _Channel:
    """The worker's end of the socket pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._gathering = Gathering(writer)
        self._deframer = m.Deframer()

    def send(self, message: m.FromWorker) -> None:
        """Never waits."""
        if isinstance(message, m.Heard) and self._gathering.unread > MAX_UNREAD:
            message = m.Heard(message.call, b"", message.taken)
        self._gathering.say(message)

    async def receive(self) -> list[m.ToWorker]:
        """The next orders; none: the media process is gone."""
        while data := await self._reader.read(1 << 16):
            if orders := [m.to_worker.decode(body) for body in self._deframer.feed(data)]:
                return orders
        return []

    async def flush(self) -> None:
        """Wait until all that was said is out."""
        await self._gathering.flush()


async def _work(channel: _Channel) -> int:
    orders = await channel.receive()
    if not orders:
        return 0
    configure, *orders = orders
    if not isinstance(configure, m.Configure):
        return CANNOT_START
    stack = Stack(channel.send)
    try:
        channel.send(await stack.start(configure))
    except StackError as error:
        channel.send(m.Failed(str(error)))
        await channel.flush()
        return CANNOT_START
    work = (
        *(stack.run(), stack.beat(), stack.stay_registered()),
        *(_serve(channel, stack, orders), stack.died.wait(), _told_to_stop()),
    )
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        if not stack.died.is_set():
            await stack.close()
        await asyncio.sleep(0)  # for the last words to be written
    faults = [one for one in outcomes if isinstance(one, Exception)]
    for fault in faults:
        logger.opt(exception=fault).error("the phone's worker ends by a fault")
    return 1 if faults or stack.died.is_set() else 0


async def _serve(channel: _Channel, stack: Stack, orders: list[m.ToWorker]) -> None:
    while True:
        for order in orders:
            stack.handle(order)
        orders = await channel.receive()
        if not orders:
            return


async def _told_to_stop() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


async def _main(descriptor: int) -> int:
    ours = socket.socket(fileno=descriptor)
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    try:
        return await _work(_Channel(reader, writer))
    finally:
        writer.close()


if __name__ == "__main__":
    log.set_up(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the media process, which stops us in order
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        sys.exit(runner.run(_main(int(sys.argv[1]))))
