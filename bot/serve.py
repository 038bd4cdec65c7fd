"""``parley serve``: engine, application and web server, put together and run until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import uvicorn
import uvloop
from pipecat.transports.base_transport import BaseTransport
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection
from rich.console import Console

from bot.agents import Agent, load_agent
from bot.app import create_app
from bot.calls import Calls
from bot.engine_process import Engine, EngineStatus, OwnEngine
from bot.ingress.sip.ingress import SipIngress
from bot.ingress.sip.leg import SipLeg
from bot.ingress.sip.outbound import checked, place_call
from bot.ingress.sip.transport import SipTransport
from bot.remembering import open_memory, recalled, remembering
from bot.settings import Settings, variable
from bot.tools.toolbox import Toolbox, open_toolbox
from bot.tools.voices import voices_for
from pipeline.agent import CallAgent, CallSettings, SilencePolicy
from pipeline.call import Call, CallEnd, Fader, transport_params
from pipeline.memory import Memory, Remembered
from pipeline.record import CallRecord
from pipeline.segmenter import SegmenterSettings
from pipeline.turns import TurnSettings
from pipeline.webrtc import webrtc_transport

RECONNECT_S = 20.0  # a caller whose engine died waits this long for the next: nano is back in 2 to 10 s


class CannotServe(Exception):  # noqa: N818 - read by a person
    """Parley cannot be started, or could not go on. The message says why and what to do."""


def serve(settings: Settings) -> None:
    """Run Parley until SIGINT or SIGTERM. Raises ``AgentError``, ``CannotServe``."""
    agent = load_agent(settings.agents_dir, settings.agent)
    with _listen(settings) as listening, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, agent, listening))


async def _serve(settings: Settings, agent: Agent, listening: socket.socket) -> None:
    on_phone = load_agent(settings.agents_dir, settings.sip.agent) if settings.sip.agent else agent
    async with (
        remembering(settings) as memory,
        voices_for(settings, agent, on_phone) as voices,
        open_toolbox(settings.tools, agent, voices) as toolbox,
        open_toolbox(settings.tools, on_phone, voices) as phone_toolbox,
    ):
        engine = make_engine(settings)

        def call(leg: SipLeg) -> Call:
            return make_phone_call(leg, settings, on_phone, engine, memory, phone_toolbox)

        phone = telephone(settings, engine, call) if settings.sip.listen else None
        await _serve_with(settings, agent, listening, engine, memory, toolbox, phone)


async def _serve_with(
    settings: Settings,
    agent: Agent,
    listening: socket.socket,
    engine: Engine,
    memory: Memory,
    toolbox: Toolbox,
    phone: Callable[[Calls], SipIngress] | None,
) -> None:
    def call(
        connection: SmallWebRTCConnection, call_id: str, name: str, remembered: Remembered | None
    ) -> Call:
        record = CallRecord(remembered, open_memory(memory, name, agent, engine))
        fader = Fader()
        transport = webrtc_transport(connection, fader)
        return make_call(transport, fader, call_id, settings, agent, engine, record, toolbox)

    async def recall(name: str) -> Remembered | None:
        return await recalled(memory, name, agent, engine)

    app = create_app(settings, agent, engine, call, recall, phone)
    server = _Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=2))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, server.stop)
    host, port = listening.getsockname()[:2]
    async with _announced(
        engine, f"http://{'[' + host + ']' if ':' in host else host}:{port}", agent.voice, server
    ):
        await server.serve(sockets=[listening])
    if engine.status.state == "failed":
        raise CannotServe(engine.status.reason)


class _Server(uvicorn.Server):
    """uvicorn, without its habit of dying from the signal that stopped it: a wanted end is status 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop(self) -> None:
        self.should_exit = True


@contextlib.asynccontextmanager
async def _announced(engine: Engine, url: str, voice: str, server: _Server) -> AsyncIterator[None]:
    """Tell the person at the terminal how far the start has come, and end if it can come no further."""
    console = Console(stderr=True)
    waiting = console.status("Loading the speech model …", spinner="dots")

    def changed(status: EngineStatus) -> None:
        waiting.stop()
        if status.state == "ready":
            if not engine.has_voice(voice):
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


def make_engine(settings: Settings) -> Engine:
    """The engine the settings name, or one of our own."""
    if settings.engine.url:
        return Engine(settings.engine.url)
    return OwnEngine(
        settings.engine, settings.checkpoint, settings.voices_dir, settings.max_calls, settings.log_level
    )


def telephone(
    settings: Settings, engine: Engine, call: Callable[[SipLeg], Call]
) -> Callable[[Calls], SipIngress]:
    """The phone of the settings, for whoever counts the calls."""
    return lambda calls: SipIngress(
        settings.sip, calls, call, lambda: engine.status.ready, settings.log_level
    )


def make_phone_call(
    leg: SipLeg, settings: Settings, agent: Agent, engine: Engine, memory: Memory, toolbox: Toolbox
) -> Call:
    """A call on ``leg``, not yet running. What is said is kept under the call's id."""
    fader = Fader()
    transport = SipTransport(leg, transport_params(fader))
    record = CallRecord(None, open_memory(memory, leg.call_id, agent, engine))
    return make_call(transport, fader, leg.call_id, settings, agent, engine, record, toolbox)


def place(settings: Settings, uri: str, tell: Callable[[str], None]) -> CallEnd:
    """Call ``uri`` as the settings' agent. Raises ``AgentError``, ``CannotCall``."""
    agent = load_agent(settings.agents_dir, settings.agent)
    allowed = checked(uri, settings.sip.destinations)

    async def call() -> CallEnd:
        engine = make_engine(settings)
        async with (
            remembering(settings) as memory,
            voices_for(settings, agent) as voices,
            open_toolbox(settings.tools, agent, voices) as toolbox,
        ):
            return await place_call(
                allowed,
                settings,
                engine,
                lambda leg: make_phone_call(leg, settings, agent, engine, memory, toolbox),
                tell,
            )

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(call())


def make_call(
    transport: BaseTransport,
    fader: Fader,
    call_id: str,
    settings: Settings,
    agent: Agent,
    engine: Engine,
    record: CallRecord,
    toolbox: Toolbox,
) -> Call:
    """A call on ``transport``, made with ``fader``; not yet running."""
    turns, quiet = settings.turns, agent.silence
    voice = agent.voice if engine.has_voice(agent.voice) else ""
    return Call(
        transport,
        fader,
        engine.url,
        CallAgent(
            name=agent.name,
            instructions=agent.instructions,
            greeting=agent.greeting,
            voice=voice,
            tools=toolbox.tools(),
            agreeing=agent.agreeing_words,
            silence=SilencePolicy(quiet.say, quiet.times, quiet.hang_up) if quiet else None,
            voice_choice=agent.voice_choice,
        ),
        CallSettings(
            segmenter=SegmenterSettings(aggressiveness=turns.aggressiveness, stop_ms=turns.pause_ms),
            turns=TurnSettings(
                end_ms=turns.end_ms,
                hold_ms=turns.hold_ms,
                barge_in_ms=turns.barge_in_ms,
                min_speech_ms=turns.min_speech_ms,
                max_turn_ms=turns.max_turn_ms,
                silence_ms=round(1000 * quiet.after_s) if quiet else 0,
            ),
            max_call_s=settings.max_call_s,
            reconnect_s=RECONNECT_S,
            connect_timeout_s=settings.connect_timeout_s,
        ),
        call_id=call_id,
        record=record,
    )


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
