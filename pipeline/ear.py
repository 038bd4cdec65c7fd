"""What one call hears of its caller: speech and keys, on the call's clock (samples at 16 kHz)."""

from __future__ import annotations

from collections.abc import Sequence

from model_runtime.protocol import INPUT_RATE
from pipeline import interjection, turn_end
from pipeline.interjection import Kinds
from pipeline.keypad import Keypad
from pipeline.nearness import Nearness
from pipeline.onset import Onset
from pipeline.recent import RecentAudio
from pipeline.segmenter import FRAME_BYTES, Segmenter, SegmenterSettings, SpeechStart, SpeechStop
from pipeline.turns import Meaning, Span, Tick

RECENT_S = 35  # a turn of the greatest length, and the pauses within it


class Ear:
    """The call's, whatever becomes of its engines: each of their sessions has a clock of its own.

    Args:
        settings: of the segmenter.
        kinds: who knows what is said over the bot by its sound, if there is somebody.
    """

    def __init__(self, settings: SegmenterSettings, kinds: Kinds | None) -> None:
        """Nothing heard."""
        self.segmenter = Segmenter(settings)
        self.recent = RecentAudio(RECENT_S * INPUT_RATE)
        self.session_start = 0  # where on the call's clock the engine session's clock is 0
        self._nearness = Nearness()
        self._onset = Onset()
        self._begins = False  # a sound, in what was pushed last
        self._keypad = Keypad()
        self._kinds = kinds

    def aligned(self, pcm: bytes) -> bytes:
        """The call's first samples behind so much silence that they are whole frames.

        A resampler holds a few back at first, so that packets would come 1 ms short of a frame for the whole
        call, and every frame wait for the packet after it.
        """
        return pcm if self.recent.end else bytes(-len(pcm) % FRAME_BYTES) + pcm

    def push(self, pcm: bytes) -> list[SpeechStart | SpeechStop]:
        """The caller's next samples, s16le; what they settle of speech."""
        self.recent.push(pcm)
        self._begins = self._onset.push(pcm)
        events = self.segmenter.push(pcm)
        if any(isinstance(event, SpeechStart) for event in events):
            self._nearness.begins()
        if self.segmenter.voiced:
            self._nearness.push(pcm)
        return events

    @property
    def tick(self) -> Tick:
        """How far it has come."""
        voiced = self.segmenter.voiced
        far = voiced and self._nearness.far
        return Tick(self.segmenter.position, voiced and not far, self._begins, far)

    def press(self, key: str) -> None:
        """A key of the caller's phone."""
        self._keypad.press(key, self.segmenter.position)

    def keys(self) -> str:
        """What was entered on the keypad and has not been taken, when the entry is whole; else empty."""
        return self._keypad.take(self.segmenter.position)

    def begin_session(self) -> bytes:
        """A session of the engine begins: what it is to hear first."""
        self.session_start = self.recent.begin
        return self.recent.pcm

    def in_session(self, spans: Sequence[Span]) -> list[Span]:
        """What the session has heard of ``spans``, on its own clock."""
        begun = self.session_start
        return [(max(start, begun) - begun, end - begun) for start, end in spans if end > begun]

    def seconds_since(self, sample: int) -> float:
        """How long ago that was."""
        return (self.recent.end - sample) / INPUT_RATE

    def turn(self, spans: Sequence[Span]) -> bytes:
        """The sound of a turn so far, s16le: with the pauses between ``spans``, up to now."""
        return self.recent.cut(spans[0][0] - turn_end.BEFORE, self.segmenter.position)

    def meaning(self, span: Span) -> Meaning:
        """Of what was said there, and is said yet if it ends now, by its sound.

        Words as faint as somebody else's are in no hurry: who means to cut in says more, and louder.
        """
        if self._kinds is None:
            return "open"
        start, end = span
        said = self.recent.cut(start - interjection.BEFORE, self.segmenter.position)
        told = interjection.meaning(self._kinds(said), over=end < self.segmenter.position)
        return "open" if told == "barge-in" and self._nearness.faint else told
