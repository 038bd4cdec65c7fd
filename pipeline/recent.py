"""What the caller said of late: an engine session that begins in mid-call hears it first."""

from __future__ import annotations


class RecentAudio:
    """At least the last ``samples`` samples of the caller's 16-bit mono audio, on the call's clock."""

    def __init__(self, samples: int) -> None:
        """Nothing heard."""
        self.end = 0  # samples heard in all
        self._most = samples
        self._pcm = bytearray()

    @property
    def begin(self) -> int:
        """The first sample that is kept."""
        return self.end - len(self._pcm) // 2

    @property
    def pcm(self) -> bytes:
        """All that is kept, s16le."""
        return bytes(self._pcm)

    def cut(self, start: int, end: int) -> bytes:
        """What is kept of [``start``, ``end``), s16le."""
        first = 2 * max(0, start - self.begin)
        return bytes(self._pcm[first : max(first, 2 * (end - self.begin))])

    def push(self, pcm: bytes) -> None:
        """The next samples."""
        self._pcm += pcm
        self.end += len(pcm) // 2
        if len(self._pcm) > 4 * self._most:  # cut seldom: a cut moves what is kept
            del self._pcm[: len(self._pcm) - 2 * self._most]
