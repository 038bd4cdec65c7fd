"""A pipecat transport without network or clock: the test is the caller, and lets the sink take audio."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from pipecat.frames.frames import (
    InputAudioRawFrame,
    OutputAudioRawFrame,
    OutputTransportMessageFrame,
    OutputTransportMessageUrgentFrame,
    StartFrame,
)
from pipecat.transports.base_input import BaseInputTransport
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import BaseTransport

from model_runtime.protocol import INPUT_RATE, OUTPUT_RATE
from pipeline.call import transport_params
from pipeline.fader import Fader

CHUNK_MS = 20


def _buzz(samples: int) -> list[int]:
    """Something webrtcvad takes for a vowel: the harmonics of 125 Hz under two formants."""
    wave = [0.0] * samples
    for harmonic in range(1, 28):
        hertz = 125.0 * harmonic
        gain = math.exp(-(((hertz - 600) / 300) ** 2)) + 0.6 * math.exp(-(((hertz - 1500) / 400) ** 2)) + 0.02
        for i in range(samples):
            wave[i] += gain * math.sin(2 * math.pi * hertz * i / INPUT_RATE)
    return [round(value * 4000) for value in wave]


VOICE_20MS = b"".join(
    value.to_bytes(2, "little", signed=True) for value in _buzz(320)
)  # 20 ms: whole periods
SILENCE_20MS = bytes(640)


class _Input(BaseInputTransport):
    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)


class _Output(BaseOutputTransport):
    def __init__(self, transport: VirtualTransport) -> None:
        super().__init__(transport_params(transport.fader))
        self._transport = transport

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        await self._transport.allowance.acquire()
        self._transport.played += frame.audio
        return True

    async def send_message(
        self, frame: OutputTransportMessageFrame | OutputTransportMessageUrgentFrame
    ) -> None:
        self._transport.messages.append(frame.message)


class VirtualTransport(BaseTransport):
    """The far side of one call."""

    def __init__(self) -> None:
        super().__init__()
        self._register_event_handler("on_client_connected")
        self._register_event_handler("on_client_disconnected")
        self.fader = Fader()
        self._input = _Input(transport_params(self.fader))
        self._output = _Output(self)
        self.allowance = asyncio.Semaphore(0)  # chunks of 20 ms the sink will still take
        self.played = b""
        self.messages: list[Any] = []
        self.said = 0  # samples of caller audio so far

    def input(self) -> _Input:
        return self._input

    def output(self) -> _Output:
        return self._output

    @property
    def played_ms(self) -> float:
        return len(self.played) / 2 / OUTPUT_RATE * 1000

    def let_play(self, ms: int) -> None:
        """Let the sink take so much more."""
        for _ in range(ms // CHUNK_MS):
            self.allowance.release()

    async def voice(self, ms: int) -> None:
        """The caller speaks."""
        await self._say(VOICE_20MS, ms)

    async def silence(self, ms: int) -> None:
        """The caller is silent; time goes on."""
        await self._say(SILENCE_20MS, ms)

    async def hang_up(self) -> None:
        await self._call_event_handler("on_client_disconnected", object())

    async def _say(self, frame: bytes, ms: int) -> None:
        for _ in range(ms // CHUNK_MS):
            self.said += len(frame) // 2
            await self._input.push_audio_frame(InputAudioRawFrame(frame, INPUT_RATE, 1))
