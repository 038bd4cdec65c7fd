"""What the caller said of late, so that it can be asked again when an engine died over it."""

from __future__ import annotations

from collections.abc import Iterable


class RecentAudio:
    """The last ``samples`` samples of the caller's 16-bit mono audio, on the call's clock."""

    def __init__(self, samples: int) -> None:
        """Nothing heard."""
        self.end = 0  # samples heard in all
        self._most = samples
        self._pcm = bytearray()

    def push(self, pcm: bytes) -> None:
        """The next samples."""
        self._pcm += pcm
        self.end += len(pcm) // 2
        if len(self._pcm) > 4 * self._most:  # cut seldom: a cut moves what is kept
            del self._pcm[: len(self._pcm) - 2 * self._most]

    def cut(self, spans: Iterable[tuple[int, int]]) -> bytes:
        """The spans [from, to) joined, less what is too long ago."""
        begin = self.end - len(self._pcm) // 2
        return b"".join(
            bytes(self._pcm[2 * max(0, start - begin) : 2 * max(0, stop - begin)]) for start, stop in spans
        )
