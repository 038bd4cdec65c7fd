"""From groups of codes to ``Speech`` frames:

the vocoder's stream of one response, and what has come out of it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from model_runtime.engine.groups import CODE_SAMPLES, GroupLedger
from model_runtime.engine.ops import Vocode, Work
from model_runtime.engine.pace import Pace
from model_runtime.protocol import OUTPUT_RATE, Speech
from model_runtime.speaking.token2wav import Token2WavStream
from model_runtime.speaking.voice import Voice


class SpeechOut:
    """The spoken side of one response, in ``voice``; ``new_stream`` is called when the first code is there.

    ``playing_until``: when all audio made so far will have been played if it is played as it comes, in
    seconds of ``clock``; ``None`` before the first. ``first_at``: when the first audio was given out.
    """

    def __init__(
        self,
        turn: int,
        voice: Voice,
        new_stream: Callable[[Voice], Token2WavStream],
        pace: Pace,
        emit: Callable[[Speech], None],
        clock: Callable[[], float],
    ) -> None:
        """Nothing said."""
        self.ledger = GroupLedger()
        self.playing_until: float | None = None
        self.first_at: float | None = None
        self._turn = turn
        self._voice = voice
        self._new_stream = new_stream
        self._stream: Token2WavStream | None = None
        self._waiting: list[int] = []
        self._held: list[NDArray[np.float32]] = []  # made, but not given out yet
        self._held_text: list[str] = []
        self._pace = pace
        self._emit = emit
        self._clock = clock

    @property
    def begun(self) -> bool:
        """Whether any audio has been given out."""
        return self.first_at is not None

    @property
    def following(self) -> float:
        """Seconds of speech to be made before there can be more audio; 0 before the first code and at the
        end.
        """
        return 0.0 if self._stream is None else self._stream.needed * CODE_SAMPLES / OUTPUT_RATE

    @property
    def to_write(self) -> int:
        """Codes that have still to be written before there can be more audio."""
        return 0 if self._stream is None else max(0, self._stream.needed - len(self._waiting))

    def speak_as(self, voice: Voice) -> None:
        """Go on in another voice from the next chunk."""
        self._voice = voice
        if self._stream is not None:
            self._stream.speak_as(voice)

    def begin_again(self) -> None:
        """What was written so far had no sound and is not to count: another try at the reply follows."""
        self.ledger = GroupLedger()

    def code(self, code: int) -> Work[None]:
        """One more code 0..6560. Most only wait: the stream makes audio when a chunk of them is there."""
        if self._stream is None:
            self._stream = self._new_stream(self._voice)
        self._waiting.append(code)
        if len(self._waiting) >= self._stream.needed:
            codes, self._waiting = self._waiting, []
            self._give((yield Vocode(self._stream, codes, False)), last=False)

    def group(self, codes: int, text: str) -> None:
        """A whole group has been written: how many codes it really holds (0 to 4), and its text."""
        self.ledger.write(codes, text)

    def end(self) -> Work[None]:
        """No group will follow: bring out what the stream holds back. More groups may follow all the same."""
        pcm = np.zeros(0, np.float32)
        if self._stream is not None:
            codes, self._waiting = self._waiting, []
            stream, self._stream = self._stream, None
            pcm = yield Vocode(stream, codes, True)
        self._give(pcm, last=True)

    def _give(self, audio: NDArray[np.float32], last: bool) -> None:
        """Give out ``audio``, or hold it if it is the first and would be followed by a gap."""
        self._held_text += self.ledger.speak(len(audio), last)
        self._held.append(audio)
        self._pace.made(len(audio) / OUTPUT_RATE)
        made = sum(len(piece) for piece in self._held) / OUTPUT_RATE
        more = self._stream is not None
        if not self.begun and more and not (made and self._pace.lasts(self, made, self._clock())):
            return
        if made or self._held_text:
            if made:
                now = self._clock()
                self.first_at = now if self.first_at is None else self.first_at
                self.playing_until = max(self.playing_until or now, now) + made
            pcm = to_pcm(np.concatenate(self._held))
            self._emit(Speech(self._turn, pcm, self.ledger.spoken, self._held_text))
        self._held, self._held_text = [], []


def to_pcm(audio: NDArray[np.float32]) -> bytes:
    """float32 [n] in [-1, 1] to s16le; anything beyond is clipped, anything that is no number is silence."""
    clean = np.nan_to_num(audio, nan=0.0, posinf=1.0, neginf=-1.0)
    return (np.clip(clean, -1.0, 1.0) * 32767).astype("<i2").tobytes()
