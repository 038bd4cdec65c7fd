"""One call's sound in the worker: from the stack to the socket and back, as each has room."""

from __future__ import annotations

import time
from collections.abc import Callable

from baresip.audio import AudioInfo, CallAudio
from baresip.call import Call, CallState
from baresip.errors import AudioNotActive, AudioRestarted

from bot.ingress.sip import messages as m
from bot.ingress.sip.pacing import Intake, Outbox
from bot.ingress.sip.resampler import Resampler
from model_runtime.protocol import INPUT_RATE, OUTPUT_RATE

Send = Callable[[m.FromWorker], None]
"""To the media process."""


class Line:
    """One call's media between the stack and the socket."""

    def __init__(self, call_id: str, call: Call, send: Send) -> None:
        """``call``: the stack's."""
        self.call_id = call_id
        self.call = call
        self.next: Call | None = None  # where the far end sent us, while nobody has answered there
        self.outbox = Outbox()
        self.wants_early = False  # what comes before the answer is to be heard
        self.early = False  # ... and there is some
        self._send = send
        self._intake = Intake(time.monotonic())
        self._taken = 0  # as told
        self._ear: Resampler | None = None
        self._mouth: Resampler | None = None

    @property
    def concealed(self) -> int:
        """Frames of 20 ms so far that stand in for lost ones."""
        return self._intake.concealed

    def held(self, on: bool) -> None:
        """The far end holds us: what it plays meanwhile is for nobody."""
        self._intake.held = on

    def go_on(self) -> None:
        """With whom the far end sent us to."""
        self.call, self.next = self.next or self.call, None
        self.outbox.again()
        self.held(False)

    def tick(self, now: float) -> None:
        """Move what is there."""
        if not self._there and self.next is None:
            return
        pcm = b""
        try:
            if self._there:
                audio = self.call.audio
                info = audio.info()
                self._write(audio, info)
                pcm = self._read(audio, info)
        except (AudioNotActive, AudioRestarted):
            self.outbox.again()
        pcm = self._intake.take(pcm, now)
        if pcm or self.outbox.taken != self._taken:
            self._taken = self.outbox.taken
            self._send(m.Heard(self.call_id, pcm, self._taken))

    def speak(self, frame: bytes) -> None:
        """The next 20 ms that the far end is to hear. Not left to the next tick: an answer begins sooner."""
        self.outbox.put(frame)
        if self._there:
            try:
                self._write(self.call.audio, self.call.audio.info())
            except (AudioNotActive, AudioRestarted):
                self.outbox.again()

    @property
    def _there(self) -> bool:
        return self.call.state is CallState.ESTABLISHED or self.early

    def _write(self, audio: CallAudio, info: AudioInfo) -> None:
        if not info.tx_ready:  # on hold
            self.outbox.again()
            return
        self.outbox.left(info.tx_buffered)
        target = (info.tx_sample_rate, info.tx_channels)
        if self._mouth is None or self._mouth.target != target:
            self._mouth = Resampler(OUTPUT_RATE, 1, *target)
        while frame := self.outbox.next():
            self.outbox.wrote(audio.write(self._mouth(frame)))

    def _read(self, audio: CallAudio, info: AudioInfo) -> bytes:
        if not info.rx_ready or not info.rx_buffered:
            return b""
        source = (info.rx_sample_rate, info.rx_channels)
        if self._ear is None or self._ear.source != source:
            self._ear = Resampler(*source, INPUT_RATE, 1)
        return self._ear(audio.read(info.rx_buffered))
