"""``parley serve``: engine, application and web server, put together and run until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from functools import partial

import uvicorn
import uvloop
from rich.console import Console

from bot.agents import Agent, load_agent
from bot.answering import Answering, answering, make_engine
from bot.app import create_app
from bot.calling import caller, placing_for
from bot.calls import Calls
from bot.engine_process import EngineStatus
from bot.ingress.sip.destinations import check_headers, check_listed, parsed
from bot.ingress.sip.ingress import SipIngress
from bot.ingress.sip.outbound import place_call
from bot.ingress.sip.phone import Phone
from bot.ingress.sip.placing import Placing
from bot.remembering import remembering
from bot.settings import Settings, variable
from bot.voices.shared import sharing
from pipeline.call import CallEnd


class CannotServe(Exception):  # noqa: N818 - read by a person
    """Parley cannot be started, or could not go on. The message says why and what to do."""


def serve(settings: Settings) -> None:
    """Run Parley until SIGINT or SIGTERM. Raises ``AgentError``, ``CannotServe``."""
    agent = load_agent(settings.agents_dir, settings.agent)
    with _listen(settings) as listening, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, agent, listening))


async def _serve(settings: Settings, agent: Agent, listening: socket.socket) -> None:
    async with (
        remembering(settings) as memory,
        sharing(memory.voices, settings.voices_dir) as voices,
        AsyncExitStack() as stack,
    ):
        engine = make_engine(settings)
        here = await stack.enter_async_context(answering(settings, agent, engine, memory, voices))
        phone = placing = None
        if settings.sip.listen:
            on_phone = here
            if settings.sip.agent:
                other = load_agent(settings.agents_dir, settings.sip.agent)
                on_phone = await stack.enter_async_context(answering(settings, other, engine, memory, voices))
            phone = telephone(on_phone)
            named = {settings.agent: here, settings.sip.agent or settings.agent: on_phone}
            placing = partial(placing_for, settings, engine, named.get)
        await _serve_with(settings, here, phone, placing, listening)


async def _serve_with(
    settings: Settings,
    here: Answering,
    phone: Callable[[Calls], SipIngress] | None,
    placing: Callable[[Calls, Phone], Placing] | None,
    listening: socket.socket,
) -> None:
    agent, engine = here.agent, here.engine
    app = create_app(settings, agent, engine, here.browser_call, here.recall, phone, placing)
    server = _Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=2))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.stop)
    host, port = listening.getsockname()[:2]
    async with _announced(here, f"http://{'[' + host + ']' if ':' in host else host}:{port}", server):
        await server.serve(sockets=[listening])
    if engine.status.state == "failed":
        raise CannotServe(engine.status.reason)


def telephone(on_phone: Answering) -> Callable[[Calls], SipIngress]:
    """The phone of the settings, for whoever counts the calls."""
    settings, engine = on_phone.settings, on_phone.engine
    return lambda calls: SipIngress(
        settings.sip, calls, on_phone.phone_call, lambda: engine.status.ready, settings.log_level
    )


class _Server(uvicorn.Server):
    """uvicorn, without its habit of dying from the signal that stopped it: a wanted end is status 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop(self) -> None:
        self.should_exit = True


@contextlib.asynccontextmanager
async def _announced(here: Answering, url: str, server: _Server) -> AsyncIterator[None]:
    """Tell the person at the terminal how far the start has come, and end if it can come no further."""
    console, engine, voice = Console(stderr=True), here.engine, here.agent.voice
    waiting = console.status("Loading the speech model …", spinner="dots")

    def changed(status: EngineStatus) -> None:
        waiting.stop()
        if status.state == "ready":
            if not here.has_voice(voice):
                console.print(f"There is no voice {voice!r}; the checkpoint's own is used.", highlight=False)
            who = status.about.checkpoint if status.about else "the engine"
            console.print(f"[bold]Parley is ready:[/] {url}  [dim]({who}; Ctrl+C stops it)[/]")
        elif status.state == "failed":
            server.stop()
        elif console.is_terminal and not server.should_exit:
            waiting.start()

    engine.on_change = changed
    if console.is_terminal:
        waiting.start()
    try:
        yield
    finally:
        waiting.stop()


def place(
    settings: Settings,
    uri: str,
    tell: Callable[[str], None],
    headers: Mapping[str, str],
    variables: Mapping[str, str],
) -> CallEnd | None:
    """Call ``uri`` as the settings' agent, with ``headers``, its words' ``variables`` filled in.

    Raises ``AgentError``, ``NotCallable``, ``CannotCall``.
    None: a machine answered, which was hung up on.
    """
    agent = load_agent(settings.agents_dir, settings.agent)
    to = parsed(uri)
    check_headers(headers)
    check_listed(to, settings.sip.destinations, variable("sip", "destinations"))
    check_listed(to, agent.may_call, f"may_call of the agent {agent.base}")

    async def call() -> CallEnd | None:
        engine = make_engine(settings)
        async with (
            remembering(settings) as memory,
            sharing(memory.voices, settings.voices_dir) as voices,
            answering(settings, agent, engine, memory, voices) as here,
        ):
            return await place_call(to, settings, engine, caller(here, variables), tell, headers)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(call())


@contextlib.contextmanager
def _listen(settings: Settings) -> Iterator[socket.socket]:
    """Take the port before anything is loaded. Raises ``CannotServe``."""
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror:
        raise CannotServe(
            f"{variable('host')}: {settings.host!r} is not an address of this machine."
        ) from None
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
        except OSError as error:
            where = f"Port {settings.port} on {settings.host}"
            raise CannotServe(
                f"{where} cannot be used: {(error.strerror or str(error)).lower()}. "
                f"Choose another: parley serve --port {settings.port + 1}"
            ) from None
        yield listening
