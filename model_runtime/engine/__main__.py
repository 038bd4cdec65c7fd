"""``python -m model_runtime.engine --checkpoint PATH``: one engine process.

Prints ``ready ws://HOST:PORT`` on stdout once calls can be taken; everything else goes to stderr. Ends with
status 0 after SIGTERM or SIGINT, 2 when the checkpoint or an option is no good (trying again will not help),
1 on any other fault.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from typing import Any

from model_runtime.engine.settings import Settings, parse

CANNOT_START = 2
FAULT = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until told to stop. Returns the exit status."""
    settings = parse(None if arguments is None else list(arguments))
    logging.basicConfig(
        level=settings.log_level,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    logging.getLogger("websockets").setLevel(logging.WARNING)  # a line for every connection; ours say more
    return asyncio.run(_run(settings))


async def _run(settings: Settings) -> int:
    # Torch takes a second to import: a wrong option is told before.
    from model_runtime.checkpoint import CheckpointError
    from model_runtime.engine.kit import load
    from model_runtime.engine.server import EngineServer
    from model_runtime.engine.worker import Worker

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    stopping: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
    worker = Worker(lambda: load(settings))
    worker.start()
    ready: asyncio.Future[Any] = asyncio.wrap_future(worker.ready)
    ended: asyncio.Future[Any] = asyncio.wrap_future(worker.ended)
    try:
        await asyncio.wait({ready, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            return 0
        try:
            ready.result()
        except CheckpointError as error:
            print(f"The checkpoint cannot be used: {error}", file=sys.stderr)
            return CANNOT_START
        try:
            async with EngineServer(settings, worker).listening() as url:
                print(f"ready {url}", flush=True)
                await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
        except OSError as error:
            print(f"Cannot listen: {error}", file=sys.stderr)
            return CANNOT_START
        if ended.done():
            logging.getLogger(__name__).critical("the model's thread ended", exc_info=ended.exception())
            return FAULT
        worker.stop()
        await ended
        return 0
    finally:
        stopping.cancel()


if __name__ == "__main__":
    sys.exit(main())
