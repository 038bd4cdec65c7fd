"""Who answers: every agent of the folder, open, and which of them a call is for.

An agent that is read anew or removed while it has calls on the line is dismissed: no new call comes to it,
and the last of its calls closes it, and with it its tools.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from loguru import logger
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection

from bot.agent_folder import AgentFolder, Stamp, read_agents, stamp
from bot.agent_keys import opens
from bot.agents import Agent, AgentError
from bot.answering import Answering, out_of_reach
from bot.calls import Refused
from bot.engine_process import Engine
from bot.ingress.sip.leg import SipLeg
from bot.ingress.sip.warm import Admit
from bot.ingress.webrtc import LiveCall
from bot.knowledge.knowledge import Knowledge
from bot.opinions import Opinions, opinions
from bot.remembering import recalled, shared_vectors
from bot.routing import called, choose
from bot.settings import Settings
from bot.tools import http
from bot.tools.toolbox import Toolbox, open_toolbox
from bot.tools.voices import searches_voices, voices_for
from bot.voices.finder import VoiceFinder
from bot.voices.shared import SharedVoices
from pipeline.call import CallEnd
from pipeline.memory import Memory, Remembered

LOOK_EVERY_S = 2.0  # at the folder, for what was changed in it


class UnknownAgent(Exception):  # noqa: N818 - the caller's fault
    """There is no such agent here. The message is for the caller."""


class NeedsKey(Exception):  # noqa: N818 - the caller's fault
    """The agent answers only those with a key of its own. The message is for the caller."""


class Reception:
    """The one owner of the open agents. Enter it before use; leaving it closes them all.

    Args:
        folder: the agents as ``open_folder`` found them.
        engine, memory, voices: what all of them share.
    """

    def __init__(
        self, settings: Settings, folder: AgentFolder, engine: Engine, memory: Memory, voices: SharedVoices
    ) -> None:
        """See the class."""
        self._settings = settings
        self._folder = folder
        self._engine = engine
        self._memory = memory
        self._shared_voices = voices
        self._desks: dict[str, _Desk] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # one for each open agent, dismissed ones included
        self._reading = asyncio.Lock()
        self._shared = AsyncExitStack()
        self._finder: VoiceFinder | None = None

    async def __aenter__(self) -> Self:
        """Open all agents."""
        try:
            self._http = await self._shared.enter_async_context(http.client())
            vectors = shared_vectors(self._settings, self._memory)
            knowledge = Knowledge(self._settings.knowledge, vectors=vectors)
            self._knowledge = await self._shared.enter_async_context(knowledge)
            for name, fault in self._folder.faults.items():
                logger.error("agents: {} does not answer: {}", name, fault)
            await self._take(self._folder)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close them. By now their calls are over."""
        await self._close()

    # --- who there is --------------------------------------------------------------------------------------

    @property
    def agents(self) -> dict[str, Agent]:
        """Those who answer, by their names."""
        return {name: desk.here.agent for name, desk in self._desks.items()}

    def answering(self, name: str) -> Answering:
        """An agent, as new calls get it now. Raises ``UnknownAgent``, ``Refused`` for one with a fault."""
        here = self.find(name)
        if here is not None:
            return here
        if name in self._folder.faults:
            said = "This agent cannot answer at the moment: there is a fault in its file."
            raise Refused("agent_fault", said, retry_s=30)
        raise UnknownAgent("There is no such agent here.")

    def find(self, name: str) -> Answering | None:
        """An agent, as new calls get it now; none: there is no such one, or it has a fault."""
        desk = self._desks.get(name)
        return desk.here if desk else None

    def voiceless(self) -> list[str]:
        """A sentence for each agent whose voice the engine does not have."""
        return [
            f"{name}: there is no voice {desk.here.agent.voice!r}; the checkpoint's own is used."
            for name, desk in self._desks.items()
            if not desk.here.has_voice(desk.here.agent.voice)
        ]

    def meant(self, asked: str, key: str) -> str:
        """The name of the agent that is ``asked`` for over HTTP, or, if none is, that the ``key`` opens.

        Raises ``NeedsKey`` for a key that opens none.
        """
        return asked or self._whose(key) or self._settings.agent

    def choose(self, asked: str, key: str, began_with: str = "") -> str:
        """The name of the agent who answers a call over HTTP: who is ``meant``, if the ``key`` is right.

        ``began_with``: whose conversation it is that goes on, if any; it stays theirs as long as there is
        such an agent. Raises as ``answering`` does, and ``NeedsKey``.
        """
        name = began_with if began_with in self._desks else self.meant(asked, key)
        agent = self.answering(name).agent
        if agent.keys and not opens(key, agent.keys):
            raise NeedsKey("This agent answers only callers who have a key for it.")
        return name

    def _whose(self, key: str) -> str:
        """The agent that a key opens; empty where there is no key, or no agent wants one."""
        locked = {name: agent.keys for name, agent in self.agents.items() if agent.keys}
        if not key or not locked:
            return ""
        opened = [name for name, digests in locked.items() if opens(key, digests)]
        if not opened:
            raise NeedsKey("This key opens no agent here.")
        return opened[0]

    # --- calls ---------------------------------------------------------------------------------------------

    def browser_call(
        self,
        agent: str,
        connection: SmallWebRTCConnection,
        call_id: str,
        name: str,
        remembered: Remembered | None,
    ) -> LiveCall:
        """A call from a page to ``agent``, in the conversation of that name. Raises as ``answering`` does."""
        return self.answering(agent).browser_call(connection, call_id, name, remembered)

    def phone_call(self, leg: SipLeg, admit: Admit) -> LiveCall:
        """A call on the phone, for whomever the agents' files say, or else for the settings' agent.

        ``admit`` gives a place to whoever it is put through to.
        """
        routes = {name: agent.answers for name, agent in self.agents.items() if agent.answers}
        default = self._settings.sip.agent or self._settings.agent
        name = choose(routes, called(leg.called, leg.peer, leg.headers)) or default
        logger.info("{} answers", name)
        return self._desks[name].here.phone_call(leg, admit)

    async def recall(self, name: str) -> Remembered | None:
        """What was said in a conversation; see ``bot.remembering.recalled``."""
        return await recalled(self._memory, name, self._engine)

    # --- changes -------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """Look at the folder again and again, and take what has changed, until cancelled."""
        seen = last = await asyncio.to_thread(self._look)
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now = await asyncio.to_thread(self._look)
            # Only what has stayed so since the last look: a file may be half written, others to follow.
            if now == last and now != seen:
                try:
                    await self.reload()
                except Exception:
                    logger.exception("agents: the folder could not be read again; all stay as they were")
                seen = now
            last = now

    async def reload(self) -> None:
        """Read the folder again. New calls get what is there now, those on the line stay with what they have.

        An agent whose file has a fault stays as it was, and the log says why.
        """
        async with self._reading:
            before = self._folder
            try:
                now = await asyncio.to_thread(read_agents, self._settings, before)
            except AgentError as error:
                logger.error("agents: {} All stay as they were.", error)
                return
            for name, fault in now.faults.items():
                if fault != before.faults.get(name):
                    what = "stays as it was" if name in now.agents else "does not answer"
                    logger.error("agents: {} {}: {}", name, what, fault)
            await self._take(now)

    def _look(self) -> Stamp:
        """What changes when something in the folder does, or a tool's file elsewhere."""
        folder = self._settings.agents_dir
        try:
            here = [path for path in folder.iterdir() if path.suffix in (".yaml", ".py")]
        except OSError:
            here = []
        tools = [path for agent in self._folder.agents.values() for path in agent.files[1:]]
        return stamp(sorted({*here, *tools}, key=Path.as_posix))

    async def _take(self, folder: AgentFolder) -> None:
        """Have the agents of ``folder``, and no others, answer from now on."""
        present = {
            name: desk for name, desk in self._desks.items() if desk.here.agent is folder.agents.get(name)
        }
        opened: dict[str, _Desk] = {}
        try:
            for name, agent in folder.agents.items():
                if name not in present:
                    opened[name] = await self._open(agent)
        except BaseException:
            for desk in opened.values():
                desk.dismiss()
            raise
        before, self._desks, self._folder = self._desks, present | opened, folder
        for name, desk in before.items():
            if name not in present:
                logger.info("agents: {} is {}", name, "read anew" if name in opened else "gone")
                desk.dismiss()
        for name in opened.keys() - before.keys():
            logger.info("agents: {} answers", name)

    async def _open(self, agent: Agent) -> _Desk:
        """Open an agent, in a task of its own that closes it again. Raises ``BadTool``."""
        if self._finder is None and searches_voices(agent):
            finder = voices_for(self._settings, agent, shared=self._shared_voices)
            self._finder = await self._shared.enter_async_context(finder)
        opened: asyncio.Future[_Desk] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._keep(agent, opened), name=f"agent {agent.base}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await opened

    async def _keep(self, agent: Agent, opened: asyncio.Future[_Desk]) -> None:
        try:
            async with open_toolbox(
                self._settings.tools, agent, self._finder, self._knowledge, self._http
            ) as toolbox:
                told = await opinions(self._settings, agent)
                desk = _Desk(lambda attend: self._answering(agent, toolbox, attend, told))
                opened.set_result(desk)
                await desk.over.wait()
        except Exception as error:
            if opened.done():
                logger.exception("agents: {} could not be closed", agent.base)
            else:
                opened.set_exception(error)

    def _answering(
        self,
        agent: Agent,
        toolbox: Toolbox,
        attend: Callable[[LiveCall], LiveCall],
        told: Opinions,
    ) -> Answering:
        settings, engine, memory = self._settings, self._engine, self._memory
        for fault in out_of_reach(agent, settings.sip):
            logger.warning("agents: {}: {}", agent.base, fault)
        return Answering(settings, agent, engine, memory, self._shared_voices, toolbox, attend, told)

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._shared.aclose()


class _Desk:
    """An open agent: wanted for new calls, or for those that it still has."""

    def __init__(self, make: Callable[[Callable[[LiveCall], LiveCall]], Answering]) -> None:
        """``make``: the agent, given what keeps it open while a call lasts."""
        self.here = make(lambda call: _Attended(call, self))
        self.over = asyncio.Event()  # nobody wants it any more
        self._calls = 0
        self._dismissed = False

    def dismiss(self) -> None:
        """No new call comes to it."""
        self._dismissed = True
        self._end_if_idle()

    def begin(self) -> None:
        """One call more."""
        self._calls += 1

    def end(self) -> None:
        """One call less."""
        self._calls -= 1
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._dismissed and not self._calls:
            self.over.set()


class _Attended:
    """A call, which keeps its agent open until it is over."""

    def __init__(self, call: LiveCall, desk: _Desk) -> None:
        """The call is not running yet, and is sure to be run."""
        self._call = call
        self._desk = desk
        desk.begin()

    async def run(self) -> CallEnd:
        """``LiveCall``."""
        try:
            return await self._call.run()
        finally:
            self._desk.end()

    async def end(self, reason: str = "ended") -> None:
        """``LiveCall``."""
        await self._call.end(reason)
