"""Finding, checking and opening a checkpoint folder in the published Step-Audio 2 layout.

Nothing in a folder is executed: Python files are not looked at, safetensors and JSON are data, and the files
of ``token2wav/`` are read by ``model_runtime.speaking`` with loaders that build no objects. Everything that
can be checked without reading the weights is checked here, so that a broken folder is refused before memory
is taken.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from model_runtime import weights
from model_runtime.errors import CheckpointError
from model_runtime.hub import located
from model_runtime.library.listing import prepared, recordings
from model_runtime.thinking.backbone import BackboneConfig
from model_runtime.tokenizer import Tokenizer, read_tokenizer
from model_runtime.weights import TensorInfo

__all__ = ["AudioConfig", "Card", "Checkpoint", "CheckpointError", "open_checkpoint"]

TOKEN2WAV_FILES = ("flow.yaml", "flow.pt", "hift.pt", "campplus.onnx", "speech_tokenizer_v2_25hz.onnx")
# Nonsense beyond these is refused before it is tried as a size of memory. Step-Audio-R1 has 64 layers.
LARGEST_SIZE, MOST_LAYERS = 2**24, 1024
# Upstream's own wording of the transcription task ("write down what you hear", SA2:examples.py).
TRANSCRIBE = "请记录下你所听到的语音内容。"


@dataclass(frozen=True)
class AudioConfig:
    """The dimensions of ``audio_encoder_config``; ``adaptor_inner`` comes from the weights."""

    n_mels: int
    n_ctx: int
    n_state: int
    n_head: int
    n_layer: int
    llm_dim: int
    kernel_size: int
    adapter_stride: int
    adaptor_inner: int


class CardSampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the checkpoint likes to be sampled; upstream's defaults."""

    temperature: float = 0.7
    top_p: float = 0.9
    repetition_penalty: float = 1.05
    penalise_audio: bool = True


class Card(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a person should know of a checkpoint, and how it likes to be run. From the optional
    ``parley.json``.

    A published folder has none: then ``name`` is the folder's and the rest is what upstream does. ``label``
    is empty for a full model. ``variant`` says which template and which end the model was trained with.
    ``flow_steps`` 0 leaves the number to ``token2wav``. ``licence`` and ``about`` are for reading only.
    """

    name: str = ""
    label: str = ""
    variant: Literal["instruct", "base", "think"] = "instruct"
    default_voice: str = ""
    examples: list[str] = []
    transcribes: bool = True
    transcribe_instructions: str = TRANSCRIBE
    sampling: CardSampling = CardSampling()
    flow_steps: int = 0
    slot_masking: bool = False
    licence: str = ""
    about: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """A folder that was found whole. ``tensors`` tells where each weight is; none has been read."""

    folder: Path
    card: Card
    text: BackboneConfig
    audio: AudioConfig
    tokenizer: Tokenizer
    tensors: dict[str, TensorInfo]

    @property
    def token2wav(self) -> Path:
        """The folder of the flow, the vocoder and the two voice models."""
        return self.folder / "token2wav"

    @property
    def voices(self) -> dict[str, Path]:
        """Prepared voices by name."""
        return prepared(self.folder)

    @property
    def recordings(self) -> list[Path]:
        """Recordings to make voices of."""
        return recordings(self.folder)

    @property
    def parameters(self) -> int:
        """Numbers in the language model, encoder and adaptor."""
        return weights.count(self.tensors.values())


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a folder, or download ``hf://org/name`` (``hf://org/name@revision``) and open that.

    Raises CheckpointError for whatever keeps it from being used. Reads headers only, never the weights.
    """
    folder = located(path)
    remedy = "Name a folder in the published Step-Audio 2 layout, or hf://org/name."
    if not folder.is_dir():
        raise CheckpointError.of(folder, "is not a folder" if folder.exists() else "does not exist", remedy)
    source = folder / "config.json"
    if not source.is_file():
        raise CheckpointError.of(folder, "is not a checkpoint: there is no config.json in it", remedy)
    config = _read_object(source)
    kind = config.get("model_type")
    if not str(kind).startswith("step_audio") and "StepAudio" not in str(config.get("architectures")):
        raise CheckpointError.of(source, f"describes a {kind!r} model, not Step-Audio 2", remedy)
    card = _card(folder)
    tokenizer = read_tokenizer(folder)
    tensors = weights.scan(folder)
    text = _text_config(source, config)
    audio = _audio_config(source, config, tensors, text.hidden_size)
    if tokenizer.size > text.vocab_size:
        fault = f"has ids up to {tokenizer.size - 1}, but config.json has room for {text.vocab_size}"
        raise CheckpointError.of(
            tokenizer.source, fault, "Copy config.json and tokenizer from one checkpoint."
        )
    missing = [name for name in TOKEN2WAV_FILES if not (folder / "token2wav" / name).is_file()]
    if missing:
        raise CheckpointError.of(folder / "token2wav" / missing[0], "is missing")
    return Checkpoint(folder, card, text, audio, tokenizer, tensors)


# --- config.json ---


def _text_config(source: Path, config: dict[str, Any]) -> BackboneConfig:
    """``text_config``, or the flat form of Step-Audio-R1, which has the same keys at the top."""
    keys = _Keys(source, config, "text_config")
    heads = keys.size("num_attention_heads")
    kv_heads = keys.size("num_key_value_heads", keys.size("num_attention_groups", heads))
    hidden = keys.size("hidden_size")
    groups = keys.size("num_attention_groups", kv_heads)
    if groups != kv_heads:
        keys.refuse(f"has num_attention_groups {groups} but num_key_value_heads {kv_heads}")
    head_dim = keys.size("head_dim", hidden // heads)
    if heads % kv_heads or head_dim % 2:
        keys.refuse(f"cannot share {kv_heads} key heads of size {head_dim} among {heads} heads")
    if keys.text("hidden_act", "silu") != "silu" or keys.value("rope_scaling", None) is not None:
        keys.refuse("asks for an activation or a rope scaling that Step-Audio 2 does not have")
    return BackboneConfig(
        vocab_size=keys.size("vocab_size"),
        hidden_size=hidden,
        intermediate_size=keys.size("intermediate_size"),
        num_hidden_layers=keys.size("num_hidden_layers", limit=MOST_LAYERS),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        max_position_embeddings=keys.size("max_position_embeddings", keys.size("max_seq_len", 16_384)),
        rms_norm_eps=keys.positive("rms_norm_eps", 1e-6),
        rope_theta=keys.positive("rope_theta", 1e6),
    )


def _audio_config(
    source: Path, config: dict[str, Any], tensors: dict[str, TensorInfo], hidden: int
) -> AudioConfig:
    keys = _Keys(source, config, "audio_encoder_config")
    inner = tensors.get("adapter.linear1.weight")
    # Its width is in no config; a missing or misshapen tensor is reported when all are checked.
    adaptor_inner = inner.shape[0] if inner is not None and inner.shape else 2048
    audio = AudioConfig(
        n_mels=keys.size("n_mels"),
        n_ctx=keys.size("n_audio_ctx"),
        n_state=keys.size("n_audio_state"),
        n_head=keys.size("n_audio_head"),
        n_layer=keys.size("n_audio_layer", limit=MOST_LAYERS),
        llm_dim=keys.size("llm_dim", hidden),
        kernel_size=keys.size("kernel_size", 3),
        adapter_stride=keys.size("adapter_stride", 2),
        adaptor_inner=adaptor_inner,
    )
    if audio.llm_dim != hidden:
        keys.refuse(f"has llm_dim {audio.llm_dim}, but the language model is {hidden} wide")
    if audio.n_state % audio.n_head:
        keys.refuse(f"cannot divide n_audio_state {audio.n_state} among {audio.n_head} heads")
    if (audio.kernel_size, audio.adapter_stride) != (3, 2):
        keys.refuse("has an adaptor other than kernel_size 3, adapter_stride 2: its lengths would be wrong")
    return audio


class _Keys:
    """Typed reading of one part of config.json, nested under ``part`` or flat at the top."""

    def __init__(self, source: Path, config: dict[str, Any], part: str) -> None:
        self._source = source
        nested = config.get(part, config)
        if not isinstance(nested, dict):
            raise CheckpointError.of(source, f"has a {part} that is not an object")
        self._part = f"{part}." if part in config else ""
        self._values = nested

    def value(self, key: str, default: Any) -> Any:
        return self._values.get(key, default)

    def size(self, key: str, default: int | None = None, limit: int = LARGEST_SIZE) -> int:
        value = self.value(key, default)
        if value is None:
            raise CheckpointError.of(self._source, f"has no {self._part}{key}")
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= limit:
            raise CheckpointError.of(self._source, f"has {self._part}{key} {value!r}, which is no size")
        return value

    def positive(self, key: str, default: float) -> float:
        value = self.value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e12:
            raise CheckpointError.of(self._source, f"has {self._part}{key} {value!r}, which must be positive")
        return float(value)

    def text(self, key: str, default: str) -> str:
        return str(self.value(key, default))

    def refuse(self, fault: str) -> None:
        raise CheckpointError.of(self._source, fault)


# --- parley.json ---


def _card(folder: Path) -> Card:
    path = folder / "parley.json"
    name = folder.resolve().name
    if not path.is_file():
        lowered = name.lower()
        variant: Literal["instruct", "base", "think"] = "instruct"
        if lowered.endswith("-base"):
            variant = "base"
        elif lowered.endswith("-think"):
            variant = "think"
        return Card(name=name, variant=variant)
    data = _read_object(path)
    try:
        card = msgspec.convert(data.get("card", data), Card)
    except msgspec.ValidationError as error:
        raise CheckpointError.of(path, str(error), "Correct it, or remove it.") from None
    return card if card.name else msgspec.structs.replace(card, name=name)


def _read_object(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError.of(path, f"is not JSON ({error})") from None
    if not isinstance(data, dict):
        raise CheckpointError.of(path, "is not a JSON object")
    return data
