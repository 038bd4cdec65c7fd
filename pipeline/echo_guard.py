"""Takes the bot's own voice out of what the caller's line brings back, so that it does not interrupt itself.

Browsers cancel their own echo; loudspeaker phones and cheap headsets do not. WebRTC's audio processing (AEC3,
in livekit's wheel) does it here: it is told what was really played, 10 ms for 10 ms, and finds out by itself
how late, how loud and how coloured that comes back.

It is pipecat's input filter, so segmenter and model hear what it leaves. While nothing is played there is no
echo, and it rests: it costs as much as all the rest of a phone call in this process.
"""

from __future__ import annotations

from collections import deque

from livekit.rtc import AudioFrame, AudioProcessingModule
from loguru import logger
from pipecat.audio.filters.base_audio_filter import BaseAudioFilter
from pipecat.frames.frames import FilterControlFrame

from model_runtime.protocol import INPUT_RATE, OUTPUT_RATE

FRAMES_A_SECOND = 100  # the audio processing takes 10 ms at a time
HEARD_BYTES = 2 * INPUT_RATE // FRAMES_A_SECOND
PLAYED_BYTES = 2 * OUTPUT_RATE // FRAMES_A_SECOND
SILENCE = bytes(PLAYED_BYTES)
# Playing and hearing take turns on one event loop and are never quite in step. So much of an answer is kept
# in hand, or every hesitation would shift what was played against its echo; and what an echo takes to come
# back is longer in any case.
IN_HAND = 2  # frames
BACKLOG = 20  # frames after which hearing has stood still: the oldest are past
REST = 100  # frames after the last one played: no echo takes so long to come back and to die away
# Frames that it is told on waking, to be where it would be: what it still holds of the time before it rested
# would else be given out over the answer's beginning, as if the caller spoke.
CAUGHT_UP = 20


class EchoGuard(BaseAudioFilter):
    """One call's. ``noise_suppression``: steady noise is taken away, too; it does not rest then."""

    def __init__(self, *, echo_cancellation: bool = True, noise_suppression: bool = False) -> None:
        """Nothing played, nothing heard. The native part lives from ``start`` to ``stop``."""
        self._echo_cancellation = echo_cancellation
        self._noise_suppression = noise_suppression
        self._processing: AudioProcessingModule | None = None
        self._unframed, self._unheard = bytearray(), bytearray()  # less than a frame each
        self._played: deque[bytes] = deque()
        self._flowing = False  # whether an answer is being played to the processing
        self._idle = 0  # frames since something was
        self._missed: deque[bytes] = deque(maxlen=CAUGHT_UP)  # the last that were heard while it rested

    def played(self, pcm: bytes) -> None:
        """The caller is being sent these samples: 24 kHz mono s16le, any whole number."""
        self._unframed += pcm
        while len(self._unframed) >= PLAYED_BYTES:
            self._played.append(bytes(self._unframed[:PLAYED_BYTES]))
            del self._unframed[:PLAYED_BYTES]
        while len(self._played) > BACKLOG:
            self._played.popleft()

    async def filter(self, audio: bytes) -> bytes:
        """What the caller's line brought, 16 kHz mono s16le: the same without the echo, in whole frames."""
        self._unheard += audio
        whole = len(self._unheard) // HEARD_BYTES * HEARD_BYTES
        heard = bytes(self._unheard[:whole])
        del self._unheard[:whole]
        return b"".join(
            self._cleaned(heard[at : at + HEARD_BYTES]) for at in range(0, len(heard), HEARD_BYTES)
        )

    def _cleaned(self, heard: bytes) -> bytes:
        self._flowing = len(self._played) > (0 if self._flowing else IN_HAND - 1)
        self._idle = 0 if self._flowing else self._idle + 1
        if self._idle > REST and not self._noise_suppression:
            self._missed.append(heard)
            return heard
        while self._missed:
            self._processed(self._missed.popleft(), SILENCE)
        return self._processed(heard, self._played.popleft() if self._flowing else SILENCE)

    def _processed(self, heard: bytes, reference: bytes) -> bytes:
        if self._processing is None:
            return heard
        near = AudioFrame(heard, INPUT_RATE, 1, HEARD_BYTES // 2)
        try:
            if self._echo_cancellation:
                far = AudioFrame(reference, OUTPUT_RATE, 1, PLAYED_BYTES // 2)
                self._processing.process_reverse_stream(far)
            self._processing.process_stream(near)
        except RuntimeError as error:  # an echo is better than no ear
            logger.error(f"echo and noise are not taken out any more: {error}")
            self._processing = None
            return heard
        return bytes(near.data)

    async def start(self, sample_rate: int) -> None:
        """``BaseAudioFilter``: ``sample_rate`` is that of what is heard. ValueError if it is not 16 kHz."""
        if sample_rate != INPUT_RATE:
            raise ValueError(f"the echo guard hears {INPUT_RATE} Hz, not {sample_rate}")
        self._processing = AudioProcessingModule(
            echo_cancellation=self._echo_cancellation,
            noise_suppression=self._noise_suppression,
            high_pass_filter=True,
        )

    async def stop(self) -> None:
        """``BaseAudioFilter``: free the native part."""
        self._processing = None

    async def process_frame(self, frame: FilterControlFrame) -> None:
        """``BaseAudioFilter``: nothing is switched in the middle of a call."""


def load() -> None:
    """Have the native part begin, which takes 10 ms, the first time it is wanted."""
    AudioProcessingModule()
