"""A phone leg as a pipecat transport."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from loguru import logger
from pipecat.audio.dtmf.types import KeypadEntry
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    InputAudioRawFrame,
    InputDTMFFrame,
    OutputAudioRawFrame,
    StartFrame,
)
from pipecat.transports.base_input import BaseInputTransport
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import BaseTransport, TransportParams

from bot.ingress.sip import messages as m
from bot.ingress.sip.leg import SipLeg
from model_runtime.protocol import INPUT_RATE

APART_EVERY_S = 1.0  # between two frames of silence for a call that is kept apart: so that it is not dead

_KEYS = {key.value for key in KeypadEntry}


class _Input(BaseInputTransport):
    """What the far end says and presses; answers the call once the pipeline runs."""

    def __init__(self, transport: SipTransport, params: TransportParams) -> None:
        super().__init__(params)
        self._transport = transport
        self._listening: asyncio.Task[None] | None = None

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        self._listening = self.create_task(self._listen())
        self._transport.leg.answer()

    async def stop(self, frame: EndFrame) -> None:
        await super().stop(frame)
        await self._stop_listening()

    async def cancel(self, frame: CancelFrame) -> None:
        await super().cancel(frame)
        await self._stop_listening()

    async def cleanup(self) -> None:
        await super().cleanup()  # type: ignore[no-untyped-call] # pipecat's
        await self._stop_listening()

    async def push_audio_frame(self, frame: InputAudioRawFrame) -> None:
        """Clean it and pass it on at once: the leg has a queue already; pipecat's sets a timer a frame."""
        guard = self._params.audio_in_filter
        if guard is not None:
            frame.audio = await guard.filter(frame.audio)
        if frame.audio:
            await self.push_frame(frame)

    async def _stop_listening(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            await self.cancel_task(listening)

    async def _listen(self) -> None:
        silent_at = 0.0
        async for event in self._transport.leg.events():
            together = self._transport.together.is_set()
            match event:
                case m.Heard(pcm=pcm):
                    if pcm and not together and time.monotonic() > silent_at + APART_EVERY_S:
                        silent_at = time.monotonic()
                        await self.push_audio_frame(InputAudioRawFrame(bytes(m.HEARD_BYTES), INPUT_RATE, 1))
                    elif pcm and together:
                        pcm = bytes(len(pcm)) if self._transport.deaf else pcm
                        await self.push_audio_frame(InputAudioRawFrame(pcm, INPUT_RATE, 1))
                case m.Digit(digit=digit) if self._transport.on_key:
                    self._transport.on_key(digit)
                case m.Digit(digit=digit) if together:
                    logger.info("a key was pressed")  # not which: it may be a PIN or a card number
                    if digit in _KEYS:  # A to D are on no phone that people have
                        await self.push_frame(InputDTMFFrame(KeypadEntry(digit)))
                case m.Held(on=on):
                    logger.info("put on hold" if on else "taken back from hold")
                case m.Established():
                    await self._transport.happened("on_client_connected")
                case m.Closed():
                    await self._transport.happened("on_client_disconnected")


class _Output(BaseOutputTransport):
    """What the far end hears. A write lasts until there is room on the line: that is the pace of the call."""

    def __init__(self, transport: SipTransport, params: TransportParams) -> None:
        super().__init__(params)
        self._transport = transport

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        if not frame.audio:  # the fader kept it: the answer is over
            return True
        await self._transport.together.wait()
        return await self._transport.leg.speak(frame.audio)


class SipTransport(BaseTransport):
    """``leg``, for one pipeline. Whoever made the leg ends it.

    Event handlers ``on_client_connected`` and ``on_client_disconnected`` get the leg as their client.
    """

    def __init__(
        self,
        leg: SipLeg,
        params: TransportParams,
        on_key: Callable[[str], None] | None = None,
        deaf: bool = False,
    ) -> None:
        """``params`` at the engine's rates: see ``pipeline.call.transport_params``.

        ``on_key`` gets the keys that are pressed, in place of the call; ``deaf``: whatever is said is
        silence, at its pace.
        """
        super().__init__()
        self.leg = leg
        self.on_key = on_key
        self.deaf = deaf
        self.together = asyncio.Event()  # cleared: the call and the far end do not hear each other
        self.together.set()
        # A write that waits is a hold, which may last; the end of the leg ends it.
        params = params.model_copy(update={"audio_out_write_timeout_secs": None})
        self._input = _Input(self, params)
        self._output = _Output(self, params)
        self._register_event_handler("on_client_connected")
        self._register_event_handler("on_client_disconnected")

    def input(self) -> BaseInputTransport:
        """The start of the pipeline."""
        return self._input

    def output(self) -> BaseOutputTransport:
        """Its end."""
        return self._output

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Meanwhile somebody else speaks on the leg.

        What the call says waits, as in a hold. Its clock, which counts what it hears, nearly stands still, so
        that nobody is taken for silent; a key that is pressed is for nobody.
        """
        self.together.clear()
        try:
            yield
        finally:
            self.together.set()

    async def happened(self, event: str) -> None:
        """Tell whoever listens for ``event``."""
        await self._call_event_handler(event, self.leg)
