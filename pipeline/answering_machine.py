"""Who has answered a call of ours: a person, a machine, or the network. Pure; time is counted in samples.

A person says a word or two and waits; a machine speaks on, or beeps. So the first phrase decides: it ended
within ``person_ms`` and was followed by ``pause_ms`` of silence, or it did not. Both are known at most
``pause_ms`` and 0.2 s after the phrase's end. Tones are told apart from voices before that (``tones``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import webrtcvad

from pipeline.segmenter import (
    FRAME_BYTES,
    FRAME_MS,
    RATE,
    Segmenter,
    SegmenterSettings,
    SpeechStart,
)
from pipeline.tones import Tone, ToneTracker

Found = Literal["person", "machine", "beep", "quiet", "ring", "intercept", "silence"]
"""What was found.

``person``: who waits for us to speak. ``machine``: a greeting, which goes on. ``beep``: a machine that
records from now on. ``quiet``: a machine that has not beeped, and has nothing more to say. ``ring``: it still
rings, by a tone on an answered line. ``intercept``: the network's three tones (SIT, ITU-T E.180: the number
is not in service, and so on). ``silence``: nobody says anything.
"""

HELD = 16  # frames a voice's marks wait, to learn whether they were a tone's: so long a low one takes
TAIL = 10  # frames after a tone in which webrtcvad still takes the silence for a voice
RING_HZ = (380.0, 500.0)  # 425 (ETSI), 440 + 480 (North America), 400 + 450 (United Kingdom)
INTERCEPT_HZ = ((914, 985), (1371, 1429), (1777, 1777))  # each may be the lower or the higher one
INTERCEPT_OFF_HZ = 40.0


@dataclass(frozen=True)
class DetectorSettings:
    """All in ms. The first two were chosen on the tuning set of tests/bench/answering_machine."""

    person_ms: int = 2100  # a person's first phrase is no longer
    pause_ms: int = 700  # silence after which a phrase is over, and not a pause for breath
    least_ms: int = 100  # a phrase that is shorter is a click
    silence_ms: int = 3000  # without any word
    ring_ms: int = 5500  # ... after a ring: 4 s lie between two in most countries
    beep_ms: int = 2500  # no beep is longer; a fax machine's tone is
    after_tone_ms: int = 240  # without another tone, and it was a beep rather than one of three
    quiet_ms: int = 4000  # a machine that has said nothing for so long will not beep


class AnsweringMachineDetector:
    """Listens to one call from its answer on.

    Args:
        settings: thresholds.
        is_speech: decides one frame of 640 bytes; webrtcvad unless given.
    """

    def __init__(
        self, settings: DetectorSettings | None = None, is_speech: Callable[[bytes], bool] | None = None
    ) -> None:
        """See the class."""
        self._settings = settings or DetectorSettings()
        if is_speech is None:
            vad = webrtcvad.Vad(3)
            is_speech = lambda frame: bool(vad.is_speech(frame, RATE))  # noqa: E731 - a def cannot sit in an if
        self._is_speech = is_speech
        self._tracker = ToneTracker()
        self._tones: list[Tone] = []  # ended, and not yet judged
        self._held: deque[tuple[int, bytes, bool]] = deque()  # frame number, frame, voiced
        self._masked = (0, 0)  # frames that were a tone, of the last one
        self._segmenter = Segmenter(SegmenterSettings(), lambda _: self._voiced)
        self._voiced = False
        self._rest = b""
        self._frames = 0
        self._quiet_from = 0  # ms
        self._first: int | None = None  # ms: where the first phrase began
        self._last = 0  # ms: where the last speech ended
        self._speaking = False
        self._rung = False
        self._spoke = False  # anybody did, ever
        self._is_machine = False

    def push(self, pcm: bytes) -> Found | None:
        """The next samples, 16 kHz mono s16le, any number; what they settle, the last of it if it is more.

        After ``machine`` there comes ``beep`` or ``quiet``; ``ring`` may come again and again. After any
        other the question is settled, and there is nothing more to ask.
        """
        self._rest += pcm
        found: Found | None = None
        while len(self._rest) >= FRAME_BYTES:
            frame, self._rest = self._rest[:FRAME_BYTES], self._rest[FRAME_BYTES:]
            found = self._frame(frame) or found
        return found

    def _frame(self, frame: bytes) -> Found | None:
        ended = self._tracker.push(np.frombuffer(frame, np.int16))
        self._held.append((self._frames, frame, self._is_speech(frame)))
        self._frames += 1
        sounding = self._tracker.now
        if ended is not None:
            self._tones.append(ended)
        if (tone := ended or sounding) is not None:
            begin, end = self._masked
            self._masked = (begin if tone.begin <= end else tone.begin, tone.end + TAIL)
        if len(self._held) > HELD:
            number, past, voiced = self._held.popleft()
            begin, end = self._masked
            self._hear(past, voiced and not begin <= number < end)
        return self._tone(sounding) or self._words(sounding is not None)

    # --- tones ---------------------------------------------------------------------------------------------

    def _tone(self, sounding: Tone | None) -> Found | None:
        """What the tones say by now."""
        now = self._frames * FRAME_MS
        last = sounding or (self._tones[-1] if self._tones else None)
        if last is None:
            return None
        self._quiet_from = last.end * FRAME_MS
        if _is_intercept([*self._tones, *filter(None, (sounding,))][-3:]):
            return "intercept"
        if sounding is not None or now - last.end * FRAME_MS < self._settings.after_tone_ms:
            return None
        self._tones.clear()
        if not self._spoke and RING_HZ[0] <= last.hz <= RING_HZ[1]:
            self._rung = True
            return "ring"
        return "beep" if last.ms <= self._settings.beep_ms else None

    # --- words ---------------------------------------------------------------------------------------------

    def _hear(self, frame: bytes, voiced: bool) -> None:
        """Mark speech: HELD frames late, and never a tone."""
        self._voiced = voiced
        for event in self._segmenter.push(frame):
            at = event.at * 1000 // RATE
            self._speaking = isinstance(event, SpeechStart)
            if self._speaking:
                self._spoke = True
                self._first = at if self._first is None else self._first
            else:
                self._last = self._quiet_from = at

    def _words(self, tone: bool) -> Found | None:
        """What speech and silence say by now."""
        settings = self._settings
        now = self._segmenter.position * 1000 // RATE
        quiet = 0 if self._speaking or tone or self._tones else now - self._quiet_from
        if self._is_machine:
            return "quiet" if quiet >= settings.quiet_ms else None
        if self._first is None:
            return "silence" if quiet >= (settings.ring_ms if self._rung else settings.silence_ms) else None
        if self._speaking:
            self._is_machine = now - self._first > settings.person_ms
            return "machine" if self._is_machine else None
        if quiet < settings.pause_ms:
            return None
        if self._last - self._first < settings.least_ms:
            self._first, self._spoke = None, False
            return None
        return "person"


def _is_intercept(tones: list[Tone]) -> bool:
    """Whether these three tones follow each other as the network's do."""
    return len(tones) == 3 and all(
        any(abs(tone.hz - hz) <= INTERCEPT_OFF_HZ for hz in choice)
        for tone, choice in zip(tones, INTERCEPT_HZ, strict=True)
    )
