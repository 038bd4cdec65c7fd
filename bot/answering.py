"""An agent who answers: everything its calls are made of, whatever they come in by."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from loguru import logger
from pipecat.audio.filters.base_audio_filter import BaseAudioFilter
from pipecat.transports.base_transport import BaseTransport
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection

from bot.agents import Agent
from bot.engine_process import Engine, OwnEngine
from bot.ingress.sip.destinations import NotCallable, check_heard, parsed
from bot.ingress.sip.ingress import LiveCall
from bot.ingress.sip.leg import LegError, SipLeg
from bot.ingress.sip.settings import SipSettings
from bot.ingress.sip.transport import SipTransport
from bot.ingress.sip.warm import Admit, OnEvent, PhoneCall, WarmTransfer
from bot.knowledge.knowledge import Knowledge
from bot.opinions import Opinions, opinions
from bot.remembering import callers_voice, open_memory, shared_vectors
from bot.settings import Settings
from bot.tools.call_control import TransferOptions
from bot.tools.call_control import transfer as transfer_tool
from bot.tools.toolbox import Toolbox, open_toolbox
from bot.tools.voices import voices_for
from bot.voices.shared import SharedVoices
from pipeline.agent import CallAgent, CallSettings, SilencePolicy
from pipeline.call import Call, Fader, transport_params
from pipeline.chosen_voice import Favourite
from pipeline.memory import Memory, Remembered
from pipeline.record import CallRecord
from pipeline.segmenter import SegmenterSettings
from pipeline.tools.line import Transfer
from pipeline.tools.tool import CannotTransfer
from pipeline.tools.waiting import WaitingPolicy
from pipeline.turns import TurnSettings
from pipeline.webrtc import webrtc_transport

CONSULTING = (
    "You speak on the phone with a colleague, and ask them to take a caller who waits. All you know is this: "
    "{briefing} Say it again if they ask. If they agree, thank them; the caller is put through by itself."
)
RECONNECT_S = 20.0  # a caller whose engine died waits this long for the next: nano is back in 2 to 10 s


@dataclass(frozen=True)
class Answering:
    """One agent's. Its calls are returned before they run."""

    settings: Settings
    agent: Agent
    engine: Engine
    memory: Memory
    voices: SharedVoices
    toolbox: Toolbox
    attend: Callable[[LiveCall], LiveCall] = lambda call: call  # keeps the agent open while a call lasts
    opinions: Opinions = Opinions()  # noqa: RUF009  it is frozen, too

    def browser_call(
        self, connection: SmallWebRTCConnection, call_id: str, name: str, remembered: Remembered | None
    ) -> LiveCall:
        """A call from a page, in the conversation of that name."""
        record = CallRecord(remembered, open_memory(self.memory, name, self.agent, self.engine))
        fader, guard = _ears(self.settings)
        transport = webrtc_transport(connection, transport_params(fader, guard))
        return self.attend(self.call(transport, fader, call_id, record, page=True))

    def phone_call(self, leg: SipLeg, admit: Admit, *, ours: bool = False, deaf: bool = False) -> LiveCall:
        """A call on the phone; ``ours``: that we placed, ``deaf``: in which only we speak.

        ``admit`` gives a place to whoever it is put through to.

        What is said is kept under the call's id.
        """
        ingress = "sip-outbound" if ours else "sip"
        kept = open_memory(
            self.memory, leg.call_id, self.agent, self.engine, ingress=ingress, caller=leg.peer
        )
        record = CallRecord(None, kept)
        fader, guard = _ears(None if deaf else self.settings.sip)
        transport = SipTransport(leg, transport_params(fader, guard), deaf=deaf)
        warm = WarmTransfer(leg, transport, self.agent.agreeing_words, self.consultation, admit)
        favourite = callers_voice(self.memory, self.agent, leg.peer)
        call = self.call(transport, fader, leg.call_id, record, _putting_through(leg, warm), favourite)
        return self.attend(PhoneCall(call, leg, warm, self.settings.max_call_s))

    def consultation(
        self, leg: SipLeg, briefing: str, on_event: OnEvent, on_key: Callable[[str], None]
    ) -> Call:
        """A call with somebody who is asked to take a caller. Nothing of it is kept."""
        fader, guard = _ears(self.settings.sip)
        transport = SipTransport(leg, transport_params(fader, guard), on_key)
        agent = CallAgent(
            name=self.agent.name,
            instructions=CONSULTING.format(briefing=briefing),
            greeting=briefing,
            voice=self._voice,
        )
        return Call(
            transport,
            fader,
            self.engine.url,
            agent,
            self._call_settings,
            on_event,
            leg.call_id,
            timbres=self.voices.timbre,
            page=False,
        )

    def has_voice(self, name: str) -> bool:
        """Whether calls can speak so: the engine has the voice, or can be given it."""
        return self.engine.has_voice(name) or name in self.voices.entries

    def call(
        self,
        transport: BaseTransport,
        fader: Fader,
        call_id: str,
        record: CallRecord,
        transfer: Transfer | None = None,
        favourite: Favourite | None = None,
        page: bool = False,
    ) -> Call:
        """A call on ``transport``, made with ``fader``; ``transfer`` where it can be put through."""
        agent = self.agent
        quiet = agent.silence
        return Call(
            transport,
            fader,
            self.engine.url,
            CallAgent(
                name=agent.name,
                instructions=agent.instructions,
                greeting=agent.greeting,
                voice=self._voice,
                tools=self.toolbox.tools(),
                agreeing=agent.agreeing_words,
                silence=SilencePolicy(quiet.say, quiet.times, quiet.hang_up) if quiet else None,
                waiting=self._waiting,
                voice_choice=agent.voice_choice,
                more_voices=tuple(self.voices.entries),
                turn_end=self.opinions.turn_end,
                kinds=self.opinions.kinds,
                examples=agent.examples,
            ),
            self._call_settings,
            call_id=call_id,
            record=record,
            transfer=transfer,
            timbres=self.voices.timbre,
            favourite=favourite,
            page=page,
        )

    @property
    def _voice(self) -> str:
        """The agent's, if there is such a voice, or else the checkpoint's own."""
        return self.agent.voice if self.has_voice(self.agent.voice) else ""

    @property
    def _waiting(self) -> WaitingPolicy | None:
        words, when = self.agent.waiting_words, self.agent.waiting
        if not words:
            return None
        return WaitingPolicy(words, round(1000 * when.after_s), round(1000 * when.again_s), when.times)

    @property
    def _call_settings(self) -> CallSettings:
        turns, quiet = self.settings.turns, self.agent.silence
        return CallSettings(
            segmenter=SegmenterSettings(aggressiveness=turns.aggressiveness, stop_ms=turns.pause_ms),
            turns=TurnSettings(
                end_ms=turns.end_ms,
                finished_ms=turns.finished_ms,
                unfinished_ms=turns.unfinished_ms,
                hold_ms=turns.hold_ms,
                barge_in_ms=turns.barge_in_ms,
                judge_ms=turns.judge_ms if self.opinions.kinds else 0,
                min_speech_ms=turns.min_speech_ms,
                max_turn_ms=turns.max_turn_ms,
                silence_ms=round(1000 * quiet.after_s) if quiet else 0,
            ),
            tell_decisions=turns.tell,
            max_call_s=self.settings.max_call_s,
            reconnect_s=RECONNECT_S,
            connect_timeout_s=self.settings.connect_timeout_s,
        )


@asynccontextmanager
async def answering(
    settings: Settings, agent: Agent, engine: Engine, memory: Memory, shared: SharedVoices
) -> AsyncIterator[Answering]:
    """An agent ready to answer, its tools at hand. Raises ``BadTool``."""
    async with (
        voices_for(settings, agent, shared=shared) as voices,
        Knowledge(settings.knowledge, vectors=shared_vectors(settings, memory)) as knowledge,
        open_toolbox(settings.tools, agent, voices, knowledge) as toolbox,
    ):
        told = await opinions(settings, agent)
        yield Answering(settings, agent, engine, memory, shared, toolbox, opinions=told)


def _putting_through(leg: SipLeg, warm: WarmTransfer) -> Transfer:
    async def transfer(target: str, briefing: str | None) -> None:
        if briefing is not None:
            await warm.to(target, briefing)
            return
        try:
            await leg.transfer(target)
        except LegError as error:
            logger.info("the caller could not be put through to {}: {}", target, error)
            raise CannotTransfer("nobody answers there. The caller is still on the line.") from None

    return transfer


def out_of_reach(agent: Agent, sip: SipSettings) -> list[str]:
    """A sentence for each whom a caller cannot be put through to, since their answers would not be let in."""
    found = []
    for use in agent.tools:
        options = TransferOptions.model_validate(use.options) if use.name == transfer_tool.name else None
        for name, uri in options.targets.items() if sip.listen and options and options.warm else ():
            try:
                check_heard(parsed(uri), sip.networks, sip.registrar)
            except NotCallable as error:
                found.append(f"{name} cannot be asked to take a caller: {error}")
    return found


def make_engine(settings: Settings) -> Engine:
    """The engine the settings name, or one of our own."""
    if settings.engine.url:
        return Engine(settings.engine.url)
    return OwnEngine(
        settings.engine, settings.checkpoint, settings.voices_dir, settings.max_calls, settings.log_level
    )


def load_ears(settings: Settings) -> None:
    """Load what the settings' calls hear by: else the first caller would wait for it, and all others too."""
    if _processed(settings) or (settings.sip.listen and _processed(settings.sip)):
        from pipeline import echo_guard

        echo_guard.load()


def _processed(settings: Settings | SipSettings) -> bool:
    return settings.echo_guard or settings.noise_suppression


def _ears(settings: Settings | SipSettings | None) -> tuple[Fader, BaseAudioFilter | None]:
    """What the call's sound passes through, out and in; ``None``: what comes in is not listened to."""
    if settings is None or not _processed(settings):
        return Fader(), None
    from pipeline.echo_guard import EchoGuard  # 40 MB of native code that most have no use for

    guard = EchoGuard(echo_cancellation=settings.echo_guard, noise_suppression=settings.noise_suppression)
    return Fader(guard.played), guard
