"""What units of work would take on an H200 with the published 8B model: reckoned, not measured.

Bytes by bandwidth or operations by rate, whichever is longer, but never less than launching the kernels
takes. What is copied, gathered or waited for beyond that is a factor on top. Token2wav is eager: its launches
are nearly all of a pass, whoever is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Step-Audio-2-mini, bf16.
BODY = 6_525_621_760  # parameters of the layers
HEAD = 158_720 * 3_584  # of the output head
AUDIO_HEAD = 6_562 * 3_584  # of it, what an audio slot scores
TOKEN_BYTES = 28 * 2 * 4 * 128 * 2  # of keys and values
ENCODER = 636_968_960  # parameters, read once and used for each frame
ENCODER_FRAMES = 50  # a second
ENCODER_ROOM = 1500  # frames that attend to each other at most
PREFILL_LAUNCHES = 28 * 15
ENCODER_LAUNCHES = 32 * 15
# Of token2wav, for a second of audio: flow with 10 steps and guidance, encoder, vocoder.
SPEECH_OPERATIONS = 205e9
SPEECH_LAUNCHES = 16 * 25 * 10
CODE_S = 0.04


@dataclass(frozen=True)
class CostModel:
    """A device. Times in seconds, ``bandwidth`` in bytes and rates in operations a second.

    ``beyond`` multiplies what is reckoned by bytes and operations: 1 is the floor; 1.5 is how much above its
    floor the engine's goal lets a decode step be. ``host`` is the engine's own work for one session of a
    step. ``launch`` is one kernel's; a decode step is recorded and has none to speak of. ``speech_launches``
    are a pass's of token2wav.
    """

    bandwidth: float = 4.3e12
    rate: float = 790e12  # bf16
    speech_rate: float = 395e12  # TF32, half of that
    beyond: float = 1.5
    launch: float = 5e-6
    host: float = 15e-6
    speech_launches: int = SPEECH_LAUNCHES

    def hear(self, seconds: float) -> float:
        """Encode one caller's piece of audio."""
        frames = seconds * ENCODER_FRAMES
        operations = 2 * frames * (ENCODER + 32 * 2 * 1280 * frames)
        return self._longer(2 * ENCODER, operations, ENCODER_LAUNCHES)

    def prefill(self, tokens: int, past: int, whole_head: bool) -> float:
        """Read ``tokens`` of one session behind its ``past``."""
        read = 2 * (BODY + HEAD * whole_head) + TOKEN_BYTES * (past + tokens)
        return self._longer(read, 2 * BODY * tokens, PREFILL_LAUNCHES) + self.host

    def decode(self, pasts: Sequence[int], whole_head: bool) -> float:
        """One id for each of the sessions that have so many tokens behind them.

        ``whole_head``: one of them at least may draw any id.
        """
        weights = BODY + (HEAD if whole_head else AUDIO_HEAD)
        read = 2 * weights + TOKEN_BYTES * sum(pasts)
        return self._longer(read, 2 * weights * len(pasts), 0) + self.host * len(pasts)

    def speech(self, chunks: int, codes: int) -> float:
        """Render so many chunks of one shape in one pass, ``codes`` in each."""
        operations = SPEECH_OPERATIONS * CODE_S * codes * chunks
        return self.beyond * operations / self.speech_rate + self.speech_launches * self.launch

    def _longer(self, read: float, operations: float, launches: int) -> float:
        return max(self.beyond * max(read / self.bandwidth, operations / self.rate), launches * self.launch)
