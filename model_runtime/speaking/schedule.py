"""How a reply's codes are cut into chunks, and how the chunks' audio is joined: settings of one stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self


@dataclass(frozen=True)
class Schedule:
    """Chunking and joining of one stream.

    The defaults are made for telephone latency: a small first chunk (8 codes and 3 of look-ahead are 11
    codes, 0.44 s of decoding at real-time speed, far less on any engine that keeps up), then growing ones,
    because a larger chunk costs less a second and sounds smoother.
    """

    chunks: tuple[int, ...] = (8, 12, 20, 25)  # codes a chunk; the last size repeats
    tail_frames: int = 100  # mel frames (20 ms) of the reply that the flow remembers beside the prompt
    first_hold_frames: int = 4  # audio held back after the first chunk, to be faded into the second
    hold_frames: int = 6  # and after every later one
    context_frames: int = 6  # frames already played that the vocoder sees again before a chunk
    fade: Literal["hann", "hamming"] = "hann"
    like_reference: bool = (
        False  # forget, and restart the vocoder's source, as the reference implementation does
    )

    def __post_init__(self) -> None:
        """Check the settings: ValueError says what is wrong."""
        if not self.chunks or min(self.chunks) < 1:
            raise ValueError(f"chunks must be one or more positive numbers of codes, not {self.chunks}")
        if self.tail_frames < 2 or self.tail_frames % 2:
            raise ValueError(f"tail_frames must be even and at least 2, not {self.tail_frames}")
        if min(self.first_hold_frames, self.hold_frames) < 1:
            raise ValueError(
                "first_hold_frames and hold_frames must be at least 1: without a fade joins click"
            )
        if self.context_frames < 0:
            raise ValueError(f"context_frames must not be negative, not {self.context_frames}")

    @classmethod
    def reference(cls) -> Self:
        """The schedule of the reference implementation, bumps included: for parity, not for calls.

        25 codes a chunk, prompt + 100 frames of cache, 8 frames held back and faded with a Hamming window,
        whose halves sum to 1.08.
        """
        return cls((25,), 100, 8, 8, 0, "hamming", like_reference=True)

    def size(self, index: int) -> int:
        """Codes in the chunk of that index."""
        return self.chunks[min(index, len(self.chunks) - 1)]

    def hold(self, index: int) -> int:
        """Frames held back after the chunk of that index."""
        return self.hold_frames if index else self.first_hold_frames
