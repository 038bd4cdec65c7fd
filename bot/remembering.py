"""What Parley remembers of calls over its own end: in which Redis, and who may go on with it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from loguru import logger

from bot.agents import Agent
from bot.beside import beside
from bot.calls import Refused
from bot.engine_process import Engine
from bot.settings import BadSettings, Settings, variable
from pipeline.memory import (
    CallMemory,
    Memory,
    MemoryUnavailable,
    OwnRedis,
    RedisImpossible,
    Remembered,
    VectorStore,
)
from pipeline.memory.callers import CallerStore, is_somebody

F_AGENT = "agent_file"  # the fact that says whose conversation it is: ``Agent.base``
NOWHERE = "unix:///nowhere"  # no call waits for a Redis, so one that is not there is only slower to say so


def shared_vectors(settings: Settings, memory: Memory) -> VectorStore | None:
    """Where a Redis of the operator's may keep the vectors of knowledge; one of our own has none to spare."""
    asked = settings.redis.url.get_secret_value() and settings.knowledge.vectors_in_redis
    return memory.vectors if asked and settings.knowledge.encoder else None


@asynccontextmanager
async def remembering(settings: Settings) -> AsyncIterator[Memory]:
    """The memory of all calls, in the Redis the settings name or in one of our own.

    Without any, calls go on as ever; only what they leave behind ends with this process. Raises
    ``BadSettings`` for a URL that is none.
    """
    chosen = settings.redis
    async with AsyncExitStack() as stack:
        url = chosen.url.get_secret_value()
        if not url:
            url = await _own(settings, stack)
        try:
            memory = Memory(url, tenant=chosen.tenant, keep_s=chosen.keep_s)
        except ValueError as error:
            raise BadSettings(f"{variable('redis', 'url')}: {error}") from None
        await stack.enter_async_context(beside(memory.run(), "memory"))
        yield memory


async def _own(settings: Settings, stack: AsyncExitStack) -> str:
    own = OwnRedis(settings.redis.data_dir)
    try:
        url = await own.start()
    except RedisImpossible as error:
        logger.warning("nothing will be remembered of calls after Parley's end: {}", error)
        return NOWHERE
    stack.push_async_callback(own.stop)
    await stack.enter_async_context(beside(own.run(), "redis"))
    return url


def open_memory(
    memory: Memory,
    name: str,
    agent: Agent,
    engine: Engine,
    *,
    ingress: str = "webrtc",
    caller: str = "browser",
) -> CallMemory:
    """Where a call in the conversation of that name keeps what is said.

    ``caller``: who calls, as the ingress knows them; what ``parley calls forget --caller`` goes by.
    """
    kept = memory.call(name)
    who = {"agent": agent.name, F_AGENT: agent.base, "checkpoint": _checkpoint(engine)}
    kept.note(**who, ingress=ingress, caller=caller)
    return kept


async def recalled(memory: Memory, name: str, engine: Engine) -> Remembered | None:
    """What was said in a conversation, if this checkpoint can go on with it.

    Raises ``Refused`` while another process holds it.
    """
    if not await memory.own(name):  # first: what another process still writes would be missing
        raise Refused("busy", "The earlier call is still ending. Please try again.", retry_s=2)
    try:
        remembered = await memory.recall(name)
    except MemoryUnavailable as error:
        logger.warning("a caller came back, and what was said cannot be looked up: {}", error)
        return None
    if remembered is None:
        return None
    if remembered.facts.get("checkpoint") != _checkpoint(engine):
        logger.info("a caller came back to another model: the conversation begins anew")
        return None
    return remembered


@dataclass(frozen=True)
class CallersVoice:
    """``Favourite`` of one caller with one agent, in Redis."""

    callers: CallerStore
    caller: str
    agent: str

    async def recall(self) -> str:
        """As in their last call."""
        try:
            return await self.callers.voice(self.caller, self.agent)
        except MemoryUnavailable as error:
            logger.warning("the voice that the caller chose before cannot be looked up: {}", error)
            return ""

    async def keep(self, voice: str) -> None:
        """For their next."""
        try:
            await self.callers.keep_voice(self.caller, self.agent, voice)
        except MemoryUnavailable as error:
            logger.warning("the voice that the caller chose is not remembered: {}", error)


def callers_voice(memory: Memory, agent: Agent, caller: str) -> CallersVoice | None:
    """``None`` if the agent does not remember it, or the caller could be anybody."""
    if not (agent.remember_voice and is_somebody(caller)):
        return None
    return CallersVoice(memory.callers, caller, agent.name)


def _checkpoint(engine: Engine) -> str:
    return engine.status.about.checkpoint if engine.status.about else ""
