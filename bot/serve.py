"""``parley serve``: engine, application and web server, put together and run until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial

import uvicorn
import uvloop
from rich.console import Console

from bot.agent_folder import AgentFolder, open_folder
from bot.agents import load_agent
from bot.answering import answering, load_ears, make_engine
from bot.app import create_app
from bot.beside import beside
from bot.calling import caller, placing_for
from bot.calls import Calls
from bot.engine_process import Engine, EngineStatus
from bot.ingress.sip.destinations import check_headers, check_listed, parsed
from bot.ingress.sip.ingress import SipIngress
from bot.ingress.sip.outbound import place_call
from bot.reception import Reception
from bot.remembering import remembering
from bot.settings import Settings, variable
from bot.voices.shared import sharing
from pipeline.call import CallEnd
from pipeline.memory.placed import PlacedStore


class CannotServe(Exception):  # noqa: N818 - read by a person
    """Parley cannot be started, or could not go on. The message says why and what to do."""


def serve(settings: Settings) -> None:
    """Run Parley until SIGINT or SIGTERM. Raises ``AgentError``, ``CannotServe``."""
    folder = open_folder(settings)
    with _listen(settings) as listening, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, folder, listening))


async def _serve(settings: Settings, folder: AgentFolder, listening: socket.socket) -> None:
    engine = make_engine(settings)
    async with (
        remembering(settings) as memory,
        sharing(memory.voices, settings.voices_dir) as voices,
        Reception(settings, folder, engine, memory, voices) as reception,
        beside(reception.watch(), "agents"),
    ):
        await _serve_with(settings, reception, engine, memory.placed, listening)


async def _serve_with(
    settings: Settings, reception: Reception, engine: Engine, placed: PlacedStore, listening: socket.socket
) -> None:
    phone = placing = None
    if settings.sip.listen:
        phone = telephone(settings, reception, engine)
        placing = partial(placing_for, settings, engine, placed, reception.find)
    app = create_app(settings, reception, engine, phone, placing)
    server = _Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=2))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.stop)
    host, port = listening.getsockname()[:2]
    url = f"http://{'[' + host + ']' if ':' in host else host}:{port}"
    load_ears(settings)
    # What has been loaded is there for good. Garbage collection would look through it all now and then, and
    # no call would move for 0.1 s.
    gc.collect()
    gc.freeze()
    async with _announced(engine, url, reception, server):
        await server.serve(sockets=[listening])
    if engine.status.state == "failed":
        raise CannotServe(engine.status.reason)


def telephone(settings: Settings, reception: Reception, engine: Engine) -> Callable[[Calls], SipIngress]:
    """The phone of the settings, for whoever counts the calls."""
    return lambda calls: SipIngress(
        settings.sip,
        calls,
        partial(reception.phone_call, admit=calls.admit),
        lambda: engine.status.ready,
        settings.log_level,
    )


class _Server(uvicorn.Server):
    """uvicorn, without its habit of dying from the signal that stopped it: a wanted end is status 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop(self) -> None:
        self.should_exit = True


@contextlib.asynccontextmanager
async def _announced(engine: Engine, url: str, reception: Reception, server: _Server) -> AsyncIterator[None]:
    """Tell the person at the terminal how far the start has come, and end if it can come no further."""
    console = Console(stderr=True)
    waiting = console.status("Loading the speech model …", spinner="dots")

    def changed(status: EngineStatus) -> None:
        waiting.stop()
        if status.state == "ready":
            for said in reception.voiceless():
                console.print(said, highlight=False)
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
            who = caller(here, variables, Calls(settings.max_calls).admit)
            return await place_call(to, settings, engine, who, tell, headers)

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
