"""A checkpoint of Step-Audio-2-mini's true dimensions and random weights: ``python -m tests.bench.published
DIR``.

What an engine costs depends on its dimensions and hardly on what its weights say. So this folder, which takes
no download, stands in for the published one wherever something is measured: same layout, names, types
and number of weights (16.6 GB of bfloat16 beside 0.7 GB of token2wav), the whole vocabulary with the
published ids, and two prepared voices. It is loaded on the same path as any checkpoint. What it says is
noise: a random text in the text slots, since its card asks for slot masking, and no end before the longest
reply that the engine allows.

``small`` has the same vocabulary and layout with tiny dimensions, to try all this in a moment on any machine.
"""

from __future__ import annotations

import argparse
import itertools
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model_runtime import weights
from model_runtime.checkpoint import AudioConfig
from model_runtime.speaking.flow import Flow, FlowConfig
from model_runtime.speaking.vocoder import HiFT, HiFTConfig
from model_runtime.speaking.voice import Voice
from model_runtime.thinking.backbone import BackboneConfig
from tests.model_runtime import tiny
from tests.model_runtime.tiny import Size

MINI = Size(
    BackboneConfig(),
    AudioConfig(128, 1500, 1280, 20, 32, 3584, 3, 2, adaptor_inner=2048),
    FlowConfig(),
    HiFTConfig(),
)
SMALL = Size(
    BackboneConfig(MINI.text.vocab_size, 32, 64, 2, 4, 2, 8),
    tiny.TINY.audio,
    tiny.TINY.flow,
    tiny.TINY.hift,
)
SIZES = {"mini": MINI, "small": SMALL}

TEXT_PIECES = 151_643  # of Qwen2.5's vocabulary; all ids before the added tokens
QWEN = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|vision_pad|>", "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>"),
    *("<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"),
)
STEP = (
    *("<|EOT|>", "<|BOT|>", "<|CALL_START|>", "<|CALL_END|>", "<|THINK_START|>", "<|THINK_END|>"),
    *("<|IMG_START|>", "<|IMG_END|>", "<|META_START|>", "<|META_END|>", "<im_patch>", "<im_start>"),
    *("<im_end>", "<dream>", "<dream_start>", "<dream_end>", "<|MASK_1e69f|>", "<|UNMASK_1e69f|>"),
    *("<video_start>", "<video_end>", "<patch_start>", "<patch_end>", "<patch_newline>", "<audio_start>"),
    *("<audio_end>", "<audio_patch>", "<audio_patch_pad>", "<|SC|>", "<tts_start>", "<tts_end>", "<tts_pad>"),
)
AUDIO_TOKENS = 6656

SHARDS = 16  # more than published: one is in memory three times while it is written
PROMPT_CODES = 125  # 5 s of a voice, as long as a good prompt is
VOICES = ("anna", "bert")
LOUDNESS = 0.2  # scale of the vocoder's last layer, whose output is a logarithm: less is fainter, more clips
MEL_MEAN, MEL_SPREAD = -5.0, 2.0  # about what speech has
BIAS = 0.02
LABEL = "random weights, for measuring only"
CARD = {
    "name": "Step-Audio-2 with random weights",
    "label": LABEL,
    "default_voice": VOICES[0],
    "transcribes": False,
    "slot_masking": True,  # without it random scores never make a group of text and sound
}


def tokenizer_data() -> dict[str, object]:
    """The content of a tokenizer.json with the published ids.

    Text is bytes alone: the other pieces of text are there to be counted and to be drawn, and spell their
    number.
    """
    spelt = tiny.byte_pieces()
    pieces = [*spelt, *(f"w{id}" for id in range(len(spelt), TEXT_PIECES))]
    return tiny.bpe(pieces, [], (*QWEN, *STEP, *(f"<audio_{code}>" for code in range(AUDIO_TOKENS))))


class Random:
    """Weights from a generator on the device that makes them fastest."""

    def __init__(self, device: torch.device, seed: int) -> None:
        """The same device and seed give the same weights."""
        self._device = device
        self._generator = torch.Generator(device).manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        """float32 on the device, mean 0 and spread 1."""
        return torch.randn(shape, generator=self._generator, device=self._device)

    def codes(self, count: int, below: int) -> Tensor:
        """int32 on the device, from 0 on."""
        return torch.randint(0, below, (count,), generator=self._generator, device=self._device).int()

    def weights(self, root: nn.Module) -> Iterator[tuple[str, Tensor]]:
        """Name and value, float32, of each parameter of a module that may itself be without memory."""
        for path, module in root.named_modules():
            for leaf, value in module.named_parameters(recurse=False):
                yield f"{path}.{leaf}" if path else leaf, self._weight(module, leaf, value)

    def _weight(self, module: nn.Module, leaf: str, like: Tensor) -> Tensor:
        """So large that what passes through keeps its size.

        No large one is all zeros: a GPU multiplies those faster than numbers.
        """
        if isinstance(module, nn.Embedding):
            return self.normal(*like.shape)
        if like.dim() > 1:
            return self.normal(*like.shape) / math.sqrt(like[0].numel())
        if leaf == "bias":
            return self.normal(*like.shape) * BIAS
        return torch.ones(like.shape, device=self._device)  # the scale of a norm, or a Snake's frequency


def write(folder: Path, size: Size = MINI, device: str = "auto", seed: int = 0) -> Path:
    """The whole checkpoint into a new ``folder``; returns it. ``device``: where the numbers are drawn."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    random = Random(torch.device(device), seed)
    folder.mkdir(parents=True)
    tiny.write_json(folder / "config.json", tiny.config_data(size))
    tiny.write_json(folder / "tokenizer.json", tokenizer_data())
    tiny.write_json(folder / "parley.json", {"card": CARD})
    with torch.device("meta"):
        thinking, flow, hift = tiny.modules(size), Flow(size.flow), HiFT(size.hift)
    _write_shards(folder, thinking, random)
    vocoder = {name: value.cpu() for name, value in random.weights(hift)}
    vocoder["conv_post.weight"] *= LOUDNESS
    spoken = {name: value.cpu() for name, value in random.weights(flow)}
    tiny.write_token2wav(folder, size.flow, spoken, vocoder)
    (folder / "voices").mkdir()
    for name in VOICES:
        codes = random.codes(PROMPT_CODES, size.flow.vocab_size)
        mel = MEL_MEAN + MEL_SPREAD * random.normal(2 * PROMPT_CODES, size.flow.output_size)
        speaker = random.normal(size.flow.spk_embed_dim)
        Voice(codes, speaker, mel, description=LABEL).save(folder / "voices" / f"{name}.safetensors")
    return folder


def _write_shards(folder: Path, modules: Mapping[str, nn.Module], random: Random) -> None:
    """The language model and the encoder in bfloat16, in shards of at most about one size, and their index.

    Never is more than one shard in memory.
    """
    shapes = weights.shapes(modules)
    total = sum(map(math.prod, shapes.values()))
    shards: list[list[str]] = [[]]
    held = 0
    for name, shape in shapes.items():
        if shards[-1] and held + math.prod(shape) > total / SHARDS:
            shards.append([])
            held = 0
        shards[-1].append(name)
        held += math.prod(shape)
    values = (
        (prefix + name, value) for prefix, module in modules.items() for name, value in random.weights(module)
    )
    placed: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        drawn = {name: value.to(torch.bfloat16).cpu() for name, value in itertools.islice(values, len(shard))}
        save_file(drawn, folder / file)
        placed |= dict.fromkeys(drawn, file)
    tiny.write_json(folder / weights.INDEX, {"metadata": {"total_size": 2 * total}, "weight_map": placed})


def main() -> None:
    """Write one, and say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SIZES, default="mini")
    options = parser.parse_args()
    begun = time.monotonic()
    write(options.folder, SIZES[options.size])
    size = sum(path.stat().st_size for path in options.folder.rglob("*") if path.is_file())
    print(f"{options.folder}: {size / 1e9:.2f} GB in {time.monotonic() - begun:.1f} s")


if __name__ == "__main__":
    main()
