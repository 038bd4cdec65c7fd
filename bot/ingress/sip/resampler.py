"""PCM from one rate and number of channels to another, a piece at a time."""

from __future__ import annotations

import av
import numpy as np

_LAYOUTS = {1: "mono", 2: "stereo"}


class Resampler:
    """Stateful: pieces that follow each other join without a seam.

    FFmpeg's swresample, because it is 1 to 2 ms behind; soxr's streams are 15 to 66 ms at these rates. Two
    channels to one are averaged, one to two is heard on both sides.
    """

    def __init__(self, rate: int, channels: int, to_rate: int, to_channels: int) -> None:
        """Rates in Hz, one or two channels."""
        self.source = (rate, channels)
        self.target = (to_rate, to_channels)
        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=to_rate)
        # Its filter swallows the beginning: let that be silence, so that from here on 20 ms in are 20 ms out.
        self(bytes(rate // 50 * channels * 2))

    def __call__(self, pcm: bytes) -> bytes:
        """The next piece, s16le interleaved, at the other rate."""
        if self.source == self.target or not pcm:
            return pcm
        rate, channels = self.source
        # Filled and read in place: by way of arrays a frame takes twice as long, and there are 100 a second.
        frame = av.AudioFrame("s16", _LAYOUTS[channels], len(pcm) // 2 // channels, align=1)
        frame.planes[0].update(pcm)
        frame.sample_rate = rate
        mono = b"".join(
            bytes(piece.planes[0])[: 2 * piece.samples] for piece in self._resampler.resample(frame)
        )
        # Not by swresample, which would take 3 dB off.
        return mono if self.target[1] == 1 else np.frombuffer(mono, np.int16).repeat(2).tobytes()
