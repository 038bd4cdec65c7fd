"""Where in the caller's audio there is speech: webrtcvad with a hangover ring, run inline.

Pure and clock-free: time is the count of 16 kHz samples pushed so far. webrtcvad gives one yes or no for
each 20 ms; a ring of the last decisions smooths it, so that a click does not open a segment and a stop
consonant does not close one. One decision costs about 2 microseconds, far less than handing it to a thread
would.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import webrtcvad

RATE = 16_000  # Hz, mono s16le
FRAME_MS = 20
FRAME_SAMPLES = RATE * FRAME_MS // 1000
FRAME_BYTES = FRAME_SAMPLES * 2


@dataclass(frozen=True)
class SegmenterSettings:
    """How quickly speech is believed to begin and to end. Times are rounded up to whole 20 ms frames."""

    aggressiveness: int = 3  # webrtcvad's 0..3; 3 rejects the most noise and has the shortest tail of its own
    start_ms: int = 60  # voiced time within ``start_window_ms`` that opens a segment
    start_window_ms: int = 100
    stop_ms: int = 160  # unvoiced time in a row that closes it


@dataclass(frozen=True)
class SpeechStart:
    """The caller began to speak with sample ``at``; this was known at sample ``now``."""

    at: int
    now: int


@dataclass(frozen=True)
class SpeechStop:
    """The caller's last voiced sample so far is the one before ``at``; this was known at sample ``now``."""

    at: int
    now: int


class Segmenter:
    """Marks speech in a stream of caller audio.

    Args:
        settings: thresholds.
        is_speech: decides one frame of 640 bytes; webrtcvad unless given.
    """

    def __init__(
        self, settings: SegmenterSettings | None = None, is_speech: Callable[[bytes], bool] | None = None
    ) -> None:
        """See the class."""
        settings = settings or SegmenterSettings()
        if is_speech is None:
            vad = webrtcvad.Vad(settings.aggressiveness)
            is_speech = lambda frame: bool(vad.is_speech(frame, RATE))  # noqa: E731 - a def cannot sit in an if
        self._is_speech = is_speech
        self._start_frames = _frames(settings.start_ms)
        self._window = max(_frames(settings.start_window_ms), self._start_frames)
        self._stop_frames = _frames(settings.stop_ms)
        self._ring: deque[bool] = deque(maxlen=max(self._window, self._stop_frames))
        self._rest = bytearray()
        self._position = 0
        self._speaking = False

    @property
    def position(self) -> int:
        """Samples decided on so far, a whole number of frames."""
        return self._position

    @property
    def voiced(self) -> bool:
        """Whether the last frame was speech."""
        return bool(self._ring) and self._ring[-1]

    def push(self, pcm: bytes) -> list[SpeechStart | SpeechStop]:
        """Take the caller's next samples (any number) and say what they settle, in order."""
        self._rest += pcm
        events: list[SpeechStart | SpeechStop] = []
        while len(self._rest) >= FRAME_BYTES:
            frame = bytes(self._rest[:FRAME_BYTES])
            del self._rest[:FRAME_BYTES]
            event = self._decide(self._is_speech(frame))
            if event is not None:
                events.append(event)
        return events

    def _decide(self, voiced: bool) -> SpeechStart | SpeechStop | None:
        self._ring.append(voiced)
        self._position += FRAME_SAMPLES
        if not self._speaking:
            recent = list(islice(reversed(self._ring), self._window))
            if voiced and sum(recent) >= self._start_frames:
                self._speaking = True
                first = max(i for i, was_voiced in enumerate(recent) if was_voiced)  # recent[0] is the newest
                return SpeechStart(self._position - (first + 1) * FRAME_SAMPLES, self._position)
        elif len(self._ring) >= self._stop_frames and not any(
            islice(reversed(self._ring), self._stop_frames)
        ):
            self._speaking = False
            return SpeechStop(self._position - self._stop_frames * FRAME_SAMPLES, self._position)
        return None


def _frames(ms: int) -> int:
    return max(1, -(-ms // FRAME_MS))
