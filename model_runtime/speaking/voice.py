"""A voice (timbre): what token2wav needs of a prompt recording, how it is prepared, and its file.

A prepared voice needs neither the recording nor the two ONNX models again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnxruntime
import soxr
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from model_runtime.errors import CheckpointError, VoiceError
from model_runtime.library.packed import metadata
from model_runtime.listening.features import log_mel
from model_runtime.onnx_session import quiet_session
from model_runtime.speaking.mel import FBANK_RATE, MEL_BINS, MEL_RATE, fbank, mel24k

SHORTEST, LONGEST = 1.0, 30.0  # seconds; the speech tokenizer hears at most 30 s at once
QUIETEST = 1e-3  # full-scale peak below which a recording holds no voice (-60 dB)
CODES = 6561  # 3 ** 8: codes 0..6560
SPEAKER = 192


@dataclass(frozen=True, eq=False)
class Voice:
    """A prepared timbre."""

    tokens: Tensor  # int32 [n], 25 a second
    speaker: Tensor  # float32 [192]
    mel: Tensor  # float32 [2 n, 80], see `mel.mel24k`
    description: str = ""
    licence: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        """Check shapes, types and range: VoiceError says what is wrong."""
        count = self.tokens.shape[0] if self.tokens.dim() == 1 else 0
        if not count or self.tokens.is_floating_point():
            raise VoiceError(f"tokens must be whole numbers [n], not {_kind(self.tokens)}")
        if int(self.tokens.min()) < 0 or int(self.tokens.max()) >= CODES:
            raise VoiceError(
                f"tokens must lie in 0..{CODES - 1}, not {int(self.tokens.min())}..{int(self.tokens.max())}"
            )
        for name, value, shape in (
            ("speaker", self.speaker, (SPEAKER,)),
            ("mel", self.mel, (2 * count, MEL_BINS)),
        ):
            if tuple(value.shape) != shape or not value.is_floating_point():
                raise VoiceError(
                    f"{name} must be float {list(shape)} beside {count} tokens, not {_kind(value)}"
                )
            if not bool(value.isfinite().all()):
                raise VoiceError(f"{name} holds a value that is not a number")

    @property
    def seconds(self) -> float:
        """Length of the prompt."""
        return self.tokens.shape[0] / 25

    def save(self, path: Path, more: Mapping[str, str] = MappingProxyType({})) -> None:
        """Write the voice's file (safetensors); ``more`` goes into its metadata, for others to read."""
        tensors = {
            "tokens": self.tokens.to(torch.int32).cpu().contiguous(),
            "speaker": self.speaker.float().cpu().contiguous(),
            "mel": self.mel.float().cpu().contiguous(),
        }
        about = {"description": self.description, "licence": self.licence, "source": self.source}
        save_file(tensors, path, metadata=about | dict(more))

    @classmethod
    def load(cls, path: Path) -> Voice:
        """Read a voice's file; VoiceError names the file and what is wrong with it."""
        try:
            content = path.read_bytes()
        except OSError as error:
            raise VoiceError(f"{path.name}: cannot be read as a voice file ({error})") from error
        return cls.unpack(content, path.name)

    @classmethod
    def unpack(cls, content: bytes, source: str) -> Voice:
        """A voice's file as bytes; VoiceError names the ``source`` and what is wrong with it."""
        try:
            tensors = load(content)
        except SafetensorError as error:
            raise VoiceError(f"{source}: cannot be read as a voice file ({error})") from error
        missing = {"tokens", "speaker", "mel"} - set(tensors)
        if missing:
            raise VoiceError(f"{source}: not a voice file, it has no {' and no '.join(sorted(missing))}")
        tokens, speaker, mel = (tensors[name] for name in ("tokens", "speaker", "mel"))
        if tokens.is_floating_point():
            raise VoiceError(f"{source}: tokens must be whole numbers [n], not {_kind(tokens)}")
        about = metadata(content)
        try:
            return cls(
                tokens.to(torch.int32),
                speaker.float(),
                mel.float(),
                about.get("description", ""),
                about.get("licence", ""),
                about.get("source", ""),
            )
        except VoiceError as error:
            raise VoiceError(f"{source}: {error}") from error


def _kind(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)}"


def check_recording(wav: np.ndarray, rate: int) -> np.ndarray:
    """A recording as float32 mono [n], or VoiceError saying why it cannot be a voice.

    `wav` is float in [-1, 1], [n] or [n, channels] (averaged), at `rate` Hz.
    """
    if wav.ndim == 2:
        wav = wav.mean(1)
    if wav.ndim != 1 or not np.issubdtype(wav.dtype, np.floating):
        raise VoiceError("a voice recording must be one row of floating-point samples in -1..1")
    if rate < 8000:
        raise VoiceError(f"a voice recording needs at least 8000 samples a second, this one has {rate}")
    seconds = len(wav) / rate
    if not SHORTEST <= seconds <= LONGEST:
        raise VoiceError(
            f"a voice recording must last {SHORTEST:g} to {LONGEST:g} seconds, this one lasts {seconds:.1f}"
        )
    if not np.isfinite(wav).all():
        raise VoiceError("the recording holds samples that are not numbers")
    if np.abs(wav).max() < QUIETEST:
        raise VoiceError("the recording is silent")
    return wav.astype(np.float32)


class VoicePreparer:
    """Turns recordings into voices with a checkpoint's speech tokenizer and speaker model (ONNX)."""

    def __init__(self, folder: Path) -> None:
        """Open the two ONNX models of a `token2wav` folder; CheckpointError if one is missing or damaged."""
        self._tokenizer = _session(folder / "speech_tokenizer_v2_25hz.onnx", 2)
        self._speaker = _session(folder / "campplus.onnx", 1)

    def tokens(self, wav16k: np.ndarray) -> Tensor:
        """Codes of 16 kHz audio of at most 30 s: int32 [n], 25 a second."""
        mel = log_mel(wav16k, right_pad=0).unsqueeze(0).numpy()
        names = [entry.name for entry in self._tokenizer.get_inputs()]
        feed = {names[0]: mel, names[1]: np.array([mel.shape[2]], np.int32)}
        return torch.from_numpy(np.asarray(self._tokenizer.run(None, feed)[0])).reshape(-1).to(torch.int32)

    def speaker(self, wav16k: np.ndarray) -> Tensor:
        """Speaker embedding of 16 kHz audio: float32 [192], not normalised."""
        features = fbank(wav16k)
        features = features - features.mean(0)
        name = self._speaker.get_inputs()[0].name
        output = self._speaker.run(None, {name: features.unsqueeze(0).numpy()})[0]
        return torch.from_numpy(np.asarray(output)).reshape(-1).float()

    def prepare(
        self, wav: np.ndarray, rate: int, *, description: str = "", licence: str = "", source: str = ""
    ) -> Voice:
        """A recording of 1 to 30 s, float in [-1, 1], to a voice; VoiceError if it cannot serve."""
        mono = check_recording(wav, rate)
        wav16k = mono if rate == FBANK_RATE else soxr.resample(mono, rate, FBANK_RATE, quality="VHQ")
        wav24k = mono if rate == MEL_RATE else soxr.resample(mono, rate, MEL_RATE, quality="VHQ")
        tokens = self.tokens(wav16k)
        return Voice(
            tokens, self.speaker(wav16k), fit(mel24k(wav24k), 2 * len(tokens)), description, licence, source
        )


def fit(mel: Tensor, frames: int) -> Tensor:
    """Cut a mel [F, 80], or repeat its last frame, to that many frames: the codes decide the length."""
    if mel.shape[0] >= frames:
        return mel[:frames].contiguous()
    return F.pad(mel.T.unsqueeze(0), (0, frames - mel.shape[0]), mode="replicate")[0].T.contiguous()


def _session(path: Path, inputs: int) -> onnxruntime.InferenceSession:
    if not path.is_file():
        raise CheckpointError.of(path, "is missing, and without it no voice can be prepared")
    try:
        session = quiet_session(path)
    except Exception as error:  # onnxruntime's exceptions share no public base class
        raise CheckpointError.of(
            path, f"cannot be read as an ONNX model ({str(error).splitlines()[0]})"
        ) from error
    if len(session.get_inputs()) != inputs:
        raise CheckpointError.of(path, f"has {len(session.get_inputs())} inputs where {inputs} are expected")
    return session
