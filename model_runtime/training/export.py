"""Trained weights as a checkpoint folder: ``python -m model_runtime.training.export --work DIR``.

Writes config.json, model.safetensors (float16, the published tensor names, the two embeddings untied) and
parley.json into the nano folder, beside the tokenizer. ``token2wav`` and ``voices`` are the speaking
half's.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from model_runtime.training.encoder import HELD, NANO
from model_runtime.training.hearer import CONTEXT, HEADS, HIDDEN, LAYERS, STATE
from model_runtime.training.language_model import FEED_FORWARD, KV_HEADS, POSITIONS
from model_runtime.training.language_model import HEADS as LM_HEADS
from model_runtime.training.language_model import LAYERS as LM_LAYERS

HELD_BACK = ("phones.", "path.", "look.", "intent.")  # heads of training: no part of a checkpoint
BACKBONE = "backbone."
LABEL = "nano: a demo model made for Parley, not Step-Audio 2"
EXAMPLES = [
    "What is your address?",
    "How long is the warranty?",
    "Do you have tents?",
    "Can I order online?",
    "Are you open on Sunday?",
    "What is your phone number?",
    "Do you have express delivery?",
    "I want to cancel my order.",
    "How can I pay?",
    "Do you have gift cards?",
    "Do you repair tents?",
    "Where can I park?",
]


def config(vocabulary: int, eot: int, end_of_text: int) -> dict[str, Any]:
    """config.json, nested as published."""
    return {
        "architectures": ["StepAudio2ForCausalLM"],
        "model_type": "step_audio_2",
        "audio_encoder_config": {
            "n_mels": 128,
            "n_audio_ctx": CONTEXT,
            "n_audio_state": STATE,
            "n_audio_head": HEADS,
            "n_audio_layer": LAYERS,
            "llm_dim": HIDDEN,
            "kernel_size": 3,
            "adapter_stride": 2,
        },
        "text_config": {
            "vocab_size": vocabulary,
            "hidden_size": HIDDEN,
            "intermediate_size": FEED_FORWARD,
            "num_hidden_layers": LM_LAYERS,
            "num_attention_heads": LM_HEADS,
            "num_attention_groups": KV_HEADS,
            "num_key_value_heads": KV_HEADS,
            "hidden_act": "silu",
            "max_position_embeddings": POSITIONS,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1e6,
            "torch_dtype": "float16",
            "eos_token_id": eot,
        },
        "bos_token_id": end_of_text,
        "eos_token_id": eot,
        "pad_token_id": end_of_text,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "use_sliding_window": False,
    }


def card(flow_steps: int, temperature: float) -> dict[str, Any]:
    """parley.json: what nano is, and how it likes to be run."""
    return {
        "card": {
            "name": "nano",
            "label": LABEL,
            "default_voice": "rms",
            "examples": EXAMPLES,
            "transcribes": False,  # it was never taught to write down what it hears
            "sampling": {
                "temperature": temperature,
                "top_p": 0.9,
                "repetition_penalty": 1.0,
                "penalise_audio": False,
            },
            "flow_steps": flow_steps,
            "slot_masking": True,
            "licence": "Apache-2.0",
            "about": "Trained on synthetic speech alone; knows one invented shop (training/shop.yaml).",
        }
    }


def named(ears: dict[str, Tensor], mind: dict[str, Tensor]) -> dict[str, Tensor]:
    """All tensors by their published names, float16. The heads the halves were taught by stay behind."""
    half = {name: weight for name, weight in ears.items() if name.startswith(("encoder.", "adapter."))}
    half |= {
        name.removeprefix(BACKBONE): weight for name, weight in mind.items() if name.startswith(BACKBONE)
    }
    return {name: weight.to(torch.float16).contiguous() for name, weight in half.items()}


def main() -> None:
    """Command line."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--work", type=Path, required=True, help="holds encoder.pt and language_model.pt")
    parse.add_argument("--out", type=Path, default=NANO)
    parse.add_argument("--heads", type=Path, default=HELD, help="keeps the heads the ears were taught by")
    parse.add_argument("--flow-steps", type=int, default=2, help="0: the published ten")
    parse.add_argument("--temperature", type=float, default=0.0)
    args = parse.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(args.out / "tokenizer.json"))
    ears = torch.load(args.work / "encoder.pt", weights_only=True)["averages"]["hearer"]
    mind = torch.load(args.work / "language_model.pt", weights_only=True)["averages"]["mind"]
    tensors = named(ears, mind)
    heads = {name: weight for name, weight in ears.items() if name.startswith(HELD_BACK)}
    save_file({name: weight.contiguous() for name, weight in heads.items()}, args.heads)
    save_file(tensors, args.out / "model.safetensors", metadata={"format": "pt"})
    eot, end = tokenizer.token_to_id("<|EOT|>"), tokenizer.token_to_id("<|endoftext|>")
    assert eot is not None
    assert end is not None
    described = config(tokenizer.get_vocab_size(), eot, end)
    (args.out / "config.json").write_text(json.dumps(described, indent=1) + "\n")
    carded = card(args.flow_steps, args.temperature)
    (args.out / "parley.json").write_text(json.dumps(carded, indent=1) + "\n")
    size = (args.out / "model.safetensors").stat().st_size / 1e6
    print(f"{len(tensors)} tensors, {sum(t.numel() for t in tensors.values()):,} numbers, {size:.1f} MB")


if __name__ == "__main__":
    main()
