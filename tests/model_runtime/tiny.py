"""A tiny random checkpoint in the published layout, written from a seed: ``python -m tests.model_runtime.tiny
DIR``.

Names, files and layout are the published ones; only dimensions and the vocabulary are small. The two ONNX
files are empty: they are opened only when a voice is prepared, and this folder brings a prepared voice.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model_runtime import weights
from model_runtime.checkpoint import AudioConfig
from model_runtime.listening.adaptor import Adaptor
from model_runtime.listening.encoder import AudioEncoder
from model_runtime.speaking.conformer import EncoderConfig
from model_runtime.speaking.dit import DiTConfig
from model_runtime.speaking.flow import Flow, FlowConfig
from model_runtime.speaking.loading import flow_yaml
from model_runtime.speaking.vocoder import HiFT, HiFTConfig
from model_runtime.speaking.voice import Voice
from model_runtime.thinking.backbone import Backbone, BackboneConfig
from model_runtime.tokenizer import Tokenizer

HIDDEN, STATE, HEADS = 32, 32, 4


@dataclass(frozen=True)
class Size:
    """The dimensions of a whole checkpoint."""

    text: BackboneConfig
    audio: AudioConfig
    flow: FlowConfig
    hift: HiFTConfig


TINY = Size(
    BackboneConfig(6912, HIDDEN, 64, 2, HEADS, 2, HIDDEN // HEADS, 2048),
    AudioConfig(128, 1500, STATE, 4, 2, HIDDEN, 3, 2, adaptor_inner=48),
    FlowConfig(
        input_size=32,
        inference_cfg_rate=0.0,
        encoder=EncoderConfig(32, 32, 3, 2, 1, 2, 2, 64),
        estimator=DiTConfig(depth=2, num_heads=2, head_dim=16, hidden_size=32),
    ),
    HiFTConfig(16, 8),
)
PLAIN = ("<tool_call>", "</tool_call>")  # added, but not marked special, as in Qwen2.5
CONTROL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", *PLAIN, "<|EOT|>", "<|BOT|>"),
    *("<audio_start>", "<audio_end>", "<audio_patch>", "<tts_start>", "<tts_end>", "<tts_pad>"),
    *(f"<audio_{code}>" for code in range(6562)),
)


def byte_pieces() -> list[str]:
    """GPT-2's printable character of every byte, in byte order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    spare = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]


def tokenizer_data(think: bool = False) -> dict[str, Any]:
    """The content of a tokenizer.json: bytes, a few merges, then the added tokens."""
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("Ġ", "t"), ("<", "|"), ("|", ">")]
    pieces = [*byte_pieces(), *(left + right for left, right in merges)]
    return bpe(pieces, merges, (*CONTROL, "<think>", "</think>") if think else CONTROL)


def bpe(pieces: Sequence[str], merges: Sequence[tuple[str, str]], names: Sequence[str]) -> dict[str, Any]:
    """A byte-level tokenizer.json of ``pieces`` of text and, behind them, the added tokens' ``names``."""
    added = [
        {"id": len(pieces) + n, "content": name, "special": name not in PLAIN}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for n, name in enumerate(names)
    ]
    vocabulary = {piece: id for id, piece in enumerate(pieces)}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [list(pair) for pair in merges]},
    }


@cache
def tokenizer(think: bool = False) -> Tokenizer:
    """The tiny vocabulary, opened."""
    return Tokenizer(tokenizer_data(think), Path("tokenizer.json"))


def config_data(size: Size = TINY) -> dict[str, Any]:
    """The content of config.json, nested as mini, Base and Think have it."""
    text, audio = size.text, size.audio
    return {
        "architectures": ["StepAudio2ForCausalLM"],
        "model_type": "step_audio_2",
        "auto_map": {"AutoModelForCausalLM": "modeling_step_audio_2.StepAudio2ForCausalLM"},
        "text_config": {
            "vocab_size": text.vocab_size,
            "hidden_size": text.hidden_size,
            "intermediate_size": text.intermediate_size,
            "num_hidden_layers": text.num_hidden_layers,
            "num_attention_heads": text.num_attention_heads,
            "num_attention_groups": text.num_key_value_heads,
            "num_key_value_heads": text.num_key_value_heads,
            "max_position_embeddings": text.max_position_embeddings,
            "rms_norm_eps": text.rms_norm_eps,
            "rope_theta": text.rope_theta,
            "eos_token_id": 0,
        },
        "audio_encoder_config": {
            "n_mels": audio.n_mels,
            "n_audio_ctx": audio.n_ctx,
            "n_audio_state": audio.n_state,
            "n_audio_head": audio.n_head,
            "n_audio_layer": audio.n_layer,
            "n_codebook_size": 4096,
            "llm_dim": audio.llm_dim,
            "kernel_size": audio.kernel_size,
            "adapter_stride": audio.adapter_stride,
        },
    }


def flat(config: dict[str, Any]) -> dict[str, Any]:
    """The same in Step-Audio-R1's form: the language model's keys at the top."""
    rest = {key: value for key, value in config.items() if key != "text_config"}
    return {**rest, **config["text_config"]}


def backbone_config() -> BackboneConfig:
    """The language model's dimensions."""
    return TINY.text


def modules(size: Size = TINY) -> dict[str, nn.Module]:
    """What model.safetensors holds the weights of, by the prefix that their names have there."""
    audio = size.audio
    return {
        "encoder.": AudioEncoder(audio.n_mels, audio.n_ctx, audio.n_state, audio.n_head, audio.n_layer),
        "adapter.": Adaptor(audio.n_state, audio.llm_dim, audio.adaptor_inner),
        "": Backbone(size.text),
    }


def tensors(seed: int = 0) -> dict[str, Tensor]:
    """Every weight of model.safetensors by its published name."""
    torch.manual_seed(seed)
    return {
        prefix + name: value.detach()
        for prefix, module in modules().items()
        for name, value in module.named_parameters()
    }


def write_json(path: Path, data: object) -> None:
    """One JSON file."""
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


def write_shards(folder: Path, values: dict[str, Tensor]) -> None:
    """Two shards and their index, in place of a single file."""
    (folder / weights.SINGLE).unlink(missing_ok=True)
    placed = {name: f"model-0000{1 + n % 2}-of-00002.safetensors" for n, name in enumerate(values)}
    for file in set(placed.values()):
        save_file({name: value for name, value in values.items() if placed[name] == file}, folder / file)
    write_json(folder / weights.INDEX, {"metadata": {}, "weight_map": placed})


def write_token2wav(
    folder: Path, flow: FlowConfig, flow_weights: Mapping[str, Tensor], hift_weights: Mapping[str, Tensor]
) -> None:
    """The folder ``token2wav``; ``flow`` are the dimensions of the flow's weights."""
    speaking = folder / "token2wav"
    speaking.mkdir(parents=True)
    (speaking / "flow.yaml").write_text(flow_yaml(flow), encoding="utf-8")
    torch.save(flow_weights, speaking / "flow.pt")
    torch.save(hift_weights, speaking / "hift.pt")
    for name in ("campplus.onnx", "speech_tokenizer_v2_25hz.onnx"):
        (speaking / name).touch()


def write(folder: Path, seed: int = 0, dtype: torch.dtype = torch.float32, voices: bool = True) -> Path:
    """The whole checkpoint; returns ``folder``."""
    folder.mkdir(parents=True)
    write_json(folder / "config.json", config_data())
    write_json(folder / "tokenizer.json", tokenizer_data())
    save_file({name: value.to(dtype) for name, value in tensors(seed).items()}, folder / weights.SINGLE)
    write_token2wav(folder, TINY.flow, Flow(TINY.flow).state_dict(), HiFT(TINY.hift).state_dict())
    if voices:
        (folder / "voices").mkdir()
        codes = torch.randint(0, 6561, (12,), dtype=torch.int32)
        Voice(codes, torch.randn(192), torch.randn(24, 80)).save(folder / "voices" / "anna.safetensors")
    return folder


if __name__ == "__main__":
    write(Path(sys.argv[1]))
