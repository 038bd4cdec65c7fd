"""Reading a recording, in whatever format FFmpeg knows."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from model_runtime.errors import VoiceError

MOST_S = 60.0  # no more is read of a file: it is much too long anyway


def read(path: Path) -> tuple[NDArray[np.float32], int]:
    """The first minute of a file's sound: float32 [channels, n] in [-1, 1] and its rate in Hz.

    Raises VoiceError naming the file.
    """
    pieces: list[NDArray[np.float32]] = []
    rate = 0
    try:
        # As an open file and not by name: a name may be a URL to FFmpeg.
        with path.open("rb") as file, av.open(file, "r") as container:
            resampler: av.AudioResampler | None = None
            samples = 0
            for frame in container.decode(audio=0):
                if resampler is None:
                    rate = int(frame.sample_rate)
                    resampler = av.AudioResampler(format="fltp", layout=frame.layout, rate=rate)
                for piece in resampler.resample(frame):
                    pieces.append(np.asarray(piece.to_ndarray(), np.float32))
                    samples += pieces[-1].shape[1]
                if samples > MOST_S * rate:
                    break
    except OSError as error:  # FFmpeg's own errors are OSErrors, too
        raise VoiceError(
            f"{path}: cannot be read as audio ({(error.strerror or str(error)).lower()})"
        ) from None
    except (av.FFmpegError, IndexError, ValueError):
        raise VoiceError(f"{path}: cannot be read as audio") from None
    if not pieces:
        raise VoiceError(f"{path}: holds no audio")
    return np.concatenate(pieces, axis=1), rate
