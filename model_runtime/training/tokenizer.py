"""Nano's tokenizer: ``python -m model_runtime.training.tokenizer --out DIR``.

Byte-level BPE of a few hundred pieces learnt from what callers ask and nano says, then the published
model's added tokens by name and in its order: 22 of Qwen2.5, 31 of Step, 6,656 of audio. Only the ids
differ.

One piece may be several words (as in SuperBPE, Liu et al. 2025): each sentence that nano says begins with a
piece of its own, the shortest words with which no other begins. So the first token decides which sentence it
is. Word by word, "You can" begins five of them, and what is decided there is none of the five.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from model_runtime.training.texts import open_sentences, shop, wordings

TEXT_PIECES = 600
ANSWERS = Path(__file__).with_name("runs") / "answers.json"  # every sentence that nano says
AUDIO_TOKENS = 6656  # `<audio_0>` to `<audio_6655>`, as published; 0 to 6560 are codes, 6561 is the pad
# fmt: off
QWEN = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>",
    "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>",
]
STEP = [
    "<|EOT|>", "<|BOT|>", "<|CALL_START|>", "<|CALL_END|>", "<|THINK_START|>", "<|THINK_END|>",
    "<|IMG_START|>", "<|IMG_END|>", "<|META_START|>", "<|META_END|>", "<im_patch>", "<im_start>",
    "<im_end>", "<dream>", "<dream_start>", "<dream_end>", "<|MASK_1e69f|>", "<|UNMASK_1e69f|>",
    "<video_start>", "<video_end>", "<patch_start>", "<patch_end>", "<patch_newline>", "<audio_start>",
    "<audio_end>", "<audio_patch>", "<audio_patch_pad>", "<|SC|>", "<tts_start>", "<tts_end>", "<tts_pad>",
]
# fmt: on
ADDED = [*QWEN, *STEP, *(f"<audio_{code}>" for code in range(AUDIO_TOKENS))]
# GPT-2's split of text into words.
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_PLAIN = {"<tool_call>", "</tool_call>"}  # kept when special tokens are skipped, as in Qwen2.5


def _texts() -> Iterator[str]:
    for patterns in wordings().values():
        yield from (words for pattern in patterns for words in pattern)
    yield from shop().spoken * 20
    yield from open_sentences()[:1500]
    turns = ["system\n", "human\n", "assistant\n", "tool_json_schemas\n", "function_output\n", "input\n"]
    yield from turns * 50
    yield from [
        "You are the voice assistant of Bluebird Outdoor. Answer warmly and briefly in plain words."
    ] * 20
    yield from ["The call has just begun. Greet the caller with these words: "] * 20
    yield from ["Write down what the caller says."] * 20


def openings(sentences: Sequence[str]) -> list[str]:
    """Of each sentence the shortest words with which no other begins, without the stop behind them.

    Raises ValueError for one that another goes on from.
    """
    found = []
    for sentence in sentences:
        words = sentence.split()
        beginnings = (" ".join(words[:count]).rstrip(".,!?") for count in range(1, len(words) + 1))
        others = [other for other in sentences if other != sentence]
        own = [one for one in beginnings if not any(other.startswith(one) for other in others)]
        if not own:
            raise ValueError(
                f"'{sentence}' is the beginning of another sentence: no first token tells them apart"
            )
        found.append(own[0])
    return found


def with_openings(tokenizer: Tokenizer, sentences: Sequence[str]) -> Tokenizer:
    """The same tokenizer, with a piece for the opening of each sentence behind its other pieces of text.

    The pieces on the way to one ("You can" to "You can pay") are there for the merges, and never come out.
    """
    data: dict[str, Any] = json.loads(tokenizer.to_str())
    vocabulary: dict[str, int] = data["model"]["vocab"]
    merges: list[list[str]] = data["model"]["merges"]
    before = len(vocabulary)
    found = openings(sentences)
    for opening in found:
        whole, *rest = tokenizer.encode(opening).tokens
        for piece in rest:
            if whole + piece not in vocabulary:
                vocabulary[whole + piece] = len(vocabulary)
                merges.append([whole, piece])
            whole += piece
    for token in data["added_tokens"]:
        token["id"] += len(vocabulary) - before
    longest_first = sorted(map(re.escape, found), key=len, reverse=True)
    split = f"(?:{'|'.join(longest_first)})(?!\\p{{L}})|{WORDS}"
    data["pre_tokenizer"] = {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": False},
            {**data["pre_tokenizer"], "use_regex": False},
        ],
    }
    return Tokenizer.from_str(json.dumps(data))


def make(sentences: Sequence[str]) -> Tokenizer:
    """The tokenizer: text pieces first, then the added tokens. ``sentences``: all that nano says."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TEXT_PIECES, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    tokenizer.add_tokens([AddedToken(name, normalized=False, special=name not in _PLAIN) for name in ADDED])
    return with_openings(tokenizer, sentences)


def write(tokenizer: Tokenizer, out: Path) -> None:
    """``tokenizer.json`` and ``tokenizer_config.json`` in ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|EOT|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 16384,
        "clean_up_tokenization_spaces": False,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")


def main() -> None:
    """Command line."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--out", type=Path, required=True)
    parse.add_argument("--answers", type=Path, default=ANSWERS, help="JSON: audio codes by text")
    args = parse.parse_args()
    write(make(list(json.loads(args.answers.read_text()))), args.out)


if __name__ == "__main__":
    main()
