"""The pipecat processor of a call: carries frames between the pipeline and the call's dialogue.

It swallows the caller's audio, pushes the answers on as pipecat's speech frames, and keeps the session with
the engine. What is said and when is the dialogue's affair.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import fields
from typing import Any

from loguru import logger
from pipecat.adapters.llm.services.open_ai_adapter import OpenAILLMAdapter
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InputDTMFFrame,
    InterruptionFrame,
    LLMServiceMetadataFrame,
    StartFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.processors.frame_processor import FrameDirection
from pipecat.processors.frameworks.rtvi.frames import RTVIClientMessageFrame, RTVIServerMessageFrame
from pipecat.services.llm_service import LLMService
from pipecat.services.settings import LLMSettings
from pipecat.utils.time import time_now_iso8601

from model_runtime.protocol import INPUT_RATE, Open
from pipeline import page_messages as page
from pipeline.agent import CallAgent, CallSettings
from pipeline.chosen_voice import Favourite, Timbres, no_timbre
from pipeline.dialogue import Dialogue
from pipeline.engine_session import SessionImpossible, keep_session
from pipeline.fader import Fader
from pipeline.record import CallRecord
from pipeline.tools.line import Transfer
from pipeline.tools.tool import CannotTransfer

HangUp = Callable[[str], Awaitable[None]]
"""Ends the call for the reason given (one word for the log)."""


class SpeechStage(LLMService[OpenAILLMAdapter]):
    """One call's speech-to-speech service, as pipecat sees it.

    Args:
        engine_url: ``ws://...`` or ``unix:PATH``.
        call_id: names the call to the engine.
        agent: whom the caller talks to.
        settings: thresholds and timeouts.
        record: what was said, before and in this call.
        fader: the output's filter.
        hang_up: called when the call cannot go on, after the page was told why.
        transfer: the ingress's; without it no caller can be put through.
        on_event: gets every message the page gets, for logs and metrics.
        timbres: where voices come from that the engine does not have.
        favourite: what is remembered of the caller, if it is to be.
        clock: seconds, monotonic.
    """

    # Named here so that pipecat does not import it (0.2 s) on the event loop, in the first call.
    adapter_class = OpenAILLMAdapter

    def __init__(
        self,
        *,
        engine_url: str,
        call_id: str,
        agent: CallAgent,
        settings: CallSettings,
        record: CallRecord,
        fader: Fader,
        hang_up: HangUp,
        transfer: Transfer | None = None,
        on_event: Callable[[page.PageMessage], None] | None = None,
        timbres: Timbres = no_timbre,
        favourite: Favourite | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """See the class."""
        super().__init__(name="speech-stage", settings=_no_llm_settings())
        self.fader = fader
        self.dialogue = Dialogue(agent, settings, record, self, clock, timbres, favourite)
        self.said_last_words = False
        self._engine_url = engine_url
        self._call_id = call_id
        self._agent = agent
        self._call_settings = settings
        self._hang_up = hang_up
        self._transfer = transfer
        self._on_event = on_event
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()

    def service_metadata_frame(self) -> LLMServiceMetadataFrame:
        """A speech-to-speech service whose turns are its own."""
        return LLMServiceMetadataFrame(service_name=self.name, is_realtime_service=True)

    # --- pipecat's side ------------------------------------------------------------------------------------

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Take the caller's audio; let everything else through."""
        if isinstance(frame, InputAudioRawFrame):  # before pipecat looks at it, which it has no use for
            if frame.sample_rate != INPUT_RATE or frame.num_channels != 1:
                raise ValueError(
                    f"caller audio is {frame.sample_rate} Hz x {frame.num_channels}, not 16 kHz mono"
                )
            await self.dialogue.caller_audio(frame.audio)
            return
        await super().process_frame(frame, direction)
        if isinstance(frame, InputDTMFFrame):
            await self.dialogue.key_pressed(frame.button.value)
        if isinstance(frame, RTVIClientMessageFrame) and frame.type == "set-voice":
            wish = frame.data.get("voice") if isinstance(frame.data, dict) else None
            self.beside(self.dialogue.voice_wished(str(wish)))  # may have to be looked up: audio goes on
        if isinstance(
            frame, InterruptionFrame
        ):  # not ours: those are broadcast from here and do not come back
            await self.dialogue.interrupted()
        await self.push_frame(frame, direction)

    async def start(self, frame: StartFrame) -> None:
        """Open the engine session, beside the transport's own connecting."""
        await super().start(frame)
        self.beside(self._serve())

    async def stop(self, frame: EndFrame) -> None:
        """Free the session."""
        await super().stop(frame)
        await self._free()

    async def cancel(self, frame: CancelFrame) -> None:
        """Free the session."""
        await super().cancel(frame)
        await self._free()

    async def cleanup(self) -> None:
        """Free the session, if neither end nor cancel came by."""
        await super().cleanup()  # type: ignore[no-untyped-call] # pipecat's
        await self._free()

    async def _free(self) -> None:
        for task in list(self._tasks):  # each takes itself out of the set
            await self.cancel_task(task, timeout=5.0)  # leaves time for the engine's closing handshake

    async def _serve(self) -> None:
        agent = self._agent
        tools = [tool.schema for tool in agent.tools.values()]
        message = Open(self._call_id, agent.instructions, tools, agent.voice, agent.sampling)
        try:
            await self.dialogue.chosen_voice.recall()
            await keep_session(self._engine_url, message, self._call_settings, self.dialogue, self._clock)
        except SessionImpossible as end:
            await self.say_notice("error", end.text, ended=True)
            await self._hang_up(end.reason)
        except Exception:
            logger.exception(f"call {self._call_id}: the dialogue failed")
            await self.say_notice("error", "Something went wrong on our side. Please call again.", ended=True)
            await self._hang_up("failed")

    # --- the dialogue's Output -----------------------------------------------------------------------------

    async def push(self, frames: Iterable[Frame]) -> None:
        """``Output``: down the pipeline."""
        for frame in frames:
            await self.push_frame(frame)

    async def interrupt(self) -> None:
        """``Output``: by pipecat's own mechanism, which empties every queue on the way."""
        await self.broadcast_interruption()  # type: ignore[no-untyped-call] # pipecat's

    async def tell(self, message: page.PageMessage) -> None:
        """``Output``: as an RTVI server message."""
        await self.push_frame(RTVIServerMessageFrame(data=page.to_data(message)))
        if self._on_event:
            self._on_event(message)

    async def transcribed(self, text: str) -> None:
        """``Output``: upstream, where pipecat looks for it."""
        frame = TranscriptionFrame(text, "", time_now_iso8601(), finalized=True)
        await self.push_frame(frame, FrameDirection.UPSTREAM)

    async def caller_speaks(self, begun: bool) -> None:
        """``Output``: for observers and the page's own RTVI client."""
        await self.broadcast_frame(UserStartedSpeakingFrame if begun else UserStoppedSpeakingFrame)

    def beside(self, work: Coroutine[Any, Any, None]) -> None:
        """``Output``: as a task of this stage."""
        task: asyncio.Task[None] = self.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self, reason: str, text: str) -> None:
        """``Output``: soon."""
        await self.say_notice("info", text, ended=True)
        await self._hang_up(reason)

    async def transfer(self, target: str, briefing: str | None) -> None:
        """``Output``: by the ingress."""
        if self._transfer is None:
            raise CannotTransfer("this line cannot put callers through.")
        await self._transfer(target, briefing)

    async def say_notice(
        self, level: page.Level, text: str, ended: bool = False, again: bool = False
    ) -> None:
        """Show the caller a sentence; ``ended``: the last one, ``again``: of this call only."""
        self.said_last_words |= ended
        await self.tell(page.Notice(level, text, ended, again))


def _no_llm_settings() -> LLMSettings:
    """pipecat asks that every setting be given; the engine keeps its own, so all are None."""
    names = {field.name for field in fields(LLMSettings)} - {"extra", "use_provider_thinking_default"}
    none: dict[str, Any] = dict.fromkeys(names)
    return LLMSettings(**none, use_provider_thinking_default=False)
