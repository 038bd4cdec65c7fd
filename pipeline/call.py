"""One call, from the moment its transport exists until everything it used is free again."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from loguru import logger
from pipecat.audio.filters.base_audio_filter import BaseAudioFilter
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.transports.base_transport import BaseTransport, TransportParams
from pipecat.workers.runner import WorkerRunner

from model_runtime.protocol import INPUT_RATE, OUTPUT_RATE, HistoryEntry
from pipeline.agent import CallAgent, CallSettings
from pipeline.chosen_voice import Favourite, Timbres, no_timbre
from pipeline.conversation import Conversation
from pipeline.fader import Fader
from pipeline.page_messages import PageMessage
from pipeline.playback import PlaybackTap
from pipeline.record import CallRecord
from pipeline.speech_stage import SpeechStage
from pipeline.tools.line import Transfer

__all__ = ["STOPPING", "Call", "CallAgent", "CallEnd", "CallSettings", "Fader", "transport_params"]

WATCH_EVERY_S = 0.5
STOPPING = "stopping"  # the reason of an end that is Parley's own
ACCOUNT_S = 0.2  # for the engine's account of an answer cut short by the end to arrive, and be kept
LAST_WORDS_S = 0.5  # for a last notice to reach the page before the connection closes


def transport_params(fader: Fader, guard: BaseAudioFilter | None = None) -> TransportParams:
    """What every ingress gives its transport: the engine's rates, chunks small enough to stop quickly.

    The call gets the same ``fader``. A ``guard`` cleans what is heard; the fader tells it what is played.
    """
    return TransportParams(
        audio_in_enabled=True,
        audio_in_sample_rate=INPUT_RATE,
        audio_in_channels=1,
        audio_in_filter=guard,
        audio_out_enabled=True,
        audio_out_sample_rate=OUTPUT_RATE,
        audio_out_channels=1,
        audio_out_10ms_chunks=2,  # one chunk survives an interruption: 20 ms of it, not pipecat's 40
        audio_out_filter=fader,
        audio_out_end_silence_secs=0,  # pipecat's 2 s would only delay the hang-up
    )


@dataclass(frozen=True)
class CallEnd:
    """How a call ended.

    ``reason``: "hung-up", "max-duration", "dead-peer", "no-peer", "engine-gone", "refused:CODE", "stopping",
    "failed", "bot-hung-up", "transferred", or what whoever ended it said.
    """

    call_id: str
    reason: str
    seconds: float
    conversation: Conversation
    history: list[HistoryEntry] = field(default_factory=list)  # as the engine read it
    facts: dict[str, str] = field(default_factory=dict)  # what else a call that goes on from here must know


class Call:
    """One call. ``run`` returns when it is over, ``end`` ends it; nothing of it outlives ``run``.

    Args:
        transport: made with ``transport_params(fader)``, not yet started.
        fader: the same one.
        engine_url: ``ws://...`` or ``unix:PATH``.
        agent: whom the caller talks to.
        settings: thresholds and timeouts.
        on_event: gets every message the page gets (``pipeline.page_messages``), for logs and metrics.
        call_id: names the call in logs and to the engine; made up if empty.
        transfer: puts the caller through, where the ingress can.
        record: what was said before, and where what is said now is kept; its end is the call's.
        timbres: where voices come from that the engine does not have.
        favourite: what is remembered of the caller beyond the call, if it is to be.
        page: whether a page is at the other end, to be told in RTVI's messages what happens.
    """

    def __init__(
        self,
        transport: BaseTransport,
        fader: Fader,
        engine_url: str,
        agent: CallAgent,
        settings: CallSettings | None = None,
        on_event: Callable[[PageMessage], None] | None = None,
        call_id: str = "",
        record: CallRecord | None = None,
        transfer: Transfer | None = None,
        timbres: Timbres = no_timbre,
        favourite: Favourite | None = None,
        page: bool = True,
    ) -> None:
        """See the class."""
        self._record = record or CallRecord()
        self.call_id = call_id or uuid.uuid4().hex
        self._settings = settings or CallSettings()
        self._stage = SpeechStage(
            engine_url=engine_url,
            call_id=self.call_id,
            agent=agent,
            settings=self._settings,
            record=self._record,
            fader=fader,
            hang_up=self.end,
            transfer=transfer,
            on_event=on_event,
            timbres=timbres,
            favourite=favourite,
        )
        self._worker = PipelineWorker(
            Pipeline([transport.input(), self._stage, transport.output(), PlaybackTap(self._stage.dialogue)]),
            params=PipelineParams(audio_in_sample_rate=INPUT_RATE, audio_out_sample_rate=OUTPUT_RATE),
            conversation_id=self.call_id,
            enable_rtvi=page,  # its observer looks at every frame of the call
            enable_turn_tracking=False,  # the turns are the stage's
            idle_timeout_secs=None,  # the watch below knows better what idle means
        )
        self._began = time.monotonic()
        self._ending = asyncio.Event()
        self._reason = ""
        transport.add_event_handler("on_client_disconnected", self._on_disconnected)

    @property
    def conversation(self) -> Conversation:
        """What was said so far."""
        return self._record.conversation

    async def run(self) -> CallEnd:
        """Hold the call until it ends. Cancelling it ends the call, too."""
        runner = WorkerRunner(handle_sigint=False)
        watch = asyncio.create_task(self._watch(runner), name=f"call-watch-{self.call_id}")
        over = False
        try:
            with logger.contextualize(call_id=self.call_id):
                await runner.add_workers(self._worker)
                await runner.run()
            over = True
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
            await self._stage.dialogue.desk.close()
            await self._stage.dialogue.chosen_voice.keep()  # first: what is closed may be erased at once
            self._record.close(self._reason or ("hung-up" if over else "failed"))
        return CallEnd(
            self.call_id,
            self._reason or "hung-up",
            time.monotonic() - self._began,
            self._record.conversation,
            self._record.history,
            self._record.facts,
        )

    async def end(self, reason: str = "ended") -> None:
        """End the call soon; ``run`` returns when it is over. The first reason counts."""
        if not self._reason:
            self._reason = reason
        self._ending.set()

    async def _watch(self, runner: WorkerRunner) -> None:
        """Wait for a reason to end the call, then end it.

        Cancelled, not drained: a peer that stopped reading would hold a graceful end up for ten seconds, and
        one that hung up hears nothing any more.
        """
        while not self._ending.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), WATCH_EVERY_S)
            try:
                await self._look()
            except Exception:  # else nothing would watch over the call any more
                logger.exception("fault in watching over the call, which ends")
                await self.end("failed")
        if await self._stage.dialogue.hang_up():
            await asyncio.sleep(ACCOUNT_S)
        if self._reason == STOPPING:
            text = "Parley is being restarted. Your call goes on in a moment."
            await self._stage.say_notice("info", text, ended=True, again=True)
        if self._stage.said_last_words:
            await asyncio.sleep(LAST_WORDS_S)
        await runner.cancel(self._reason)

    async def _look(self) -> None:
        now, settings, heard_at = time.monotonic(), self._settings, self._stage.dialogue.last_audio_at
        if now - self._began > settings.max_call_s:
            await self._stage.say_notice("info", "This call has reached its longest time and ends now.", True)
            await self.end("max-duration")
        elif heard_at is None and now - self._began > settings.connect_timeout_s:
            await self.end("no-peer")
        elif heard_at is not None and now - heard_at > settings.dead_peer_s:
            await self._stage.say_notice("error", "Nothing was received from you any more.", True)
            await self.end("dead-peer")

    async def _on_disconnected(self, _transport: BaseTransport, _client: Any) -> None:
        await self.end("hung-up")
