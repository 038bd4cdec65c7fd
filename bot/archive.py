"""What is kept in Redis, as a command reaches it: in yours or in our own, whether Parley runs or not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from bot.settings import BadSettings, Settings, variable
from pipeline.memory import Archive, visiting


@asynccontextmanager
async def archive(settings: Settings) -> AsyncIterator[Archive | None]:
    """The calls that are kept, whether Parley runs or not; ``None``: there is nothing where they would be.

    Raises ``BadSettings``, ``RedisImpossible``.
    """
    chosen = settings.redis
    async with AsyncExitStack() as stack:
        url: str | None = chosen.url.get_secret_value()
        if not url:
            url = await stack.enter_async_context(visiting(chosen.data_dir))
        if url is None:
            yield None
            return
        try:
            opened = Archive(url, chosen.tenant)
        except ValueError as error:
            raise BadSettings(f"{variable('redis', 'url')}: {error}") from None
        yield await stack.enter_async_context(opened)
