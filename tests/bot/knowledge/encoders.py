"""Sentence encoders for tests and benchmarks: real ONNX graphs and tokenizers, with chosen weights."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import nn

from model_runtime.sentences import SentenceEncoder

WORDS = 30_000  # of a random encoder's vocabulary


def write_tokenizer(folder: Path, words: list[str]) -> None:
    """A tokenizer of whole words; what it does not know is ``[UNK]``."""
    vocabulary = {word: at for at, word in enumerate(["[PAD]", "[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))


def export(module: nn.Module, folder: Path) -> None:
    """``module(input_ids, attention_mask)`` -> [B, T, D] or [B, D], as model.onnx."""
    inputs = (torch.ones(1, 3, dtype=torch.int64), torch.ones(1, 3, dtype=torch.int64))
    torch.onnx.export(
        module.eval(),
        inputs,
        str(folder / "model.onnx"),
        input_names=["input_ids", "attention_mask"],
        output_names=["vectors"],
        dynamic_axes={name: {0: "batch", 1: "tokens"} for name in ("input_ids", "attention_mask", "vectors")},
        opset_version=17,
        dynamo=False,
    )


class _Transformer(nn.Module):
    """BERT's shape: embeddings, then layers of attention and a wider one."""

    def __init__(self, words: int, layers: int, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.queries = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(layers))
        self.outs = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.wide = nn.ModuleList(nn.Linear(width, hidden) for _ in range(layers))
        self.narrow = nn.ModuleList(nn.Linear(hidden, width) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * layers))
        self.heads = heads

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.embedding(ids)  # [B, T, D]
        away = (1.0 - mask[:, None, None, :].float()) * -1e4
        for at in range(len(self.queries)):
            q, k, v = (
                part.view(part.shape[0], part.shape[1], self.heads, -1).transpose(1, 2)
                for part in self.queries[at](x).chunk(3, -1)
            )  # each [B, heads, T, D / heads]
            weights = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + away, -1)
            seen = (weights @ v).transpose(1, 2).flatten(2)
            x = self.norms[2 * at](x + self.outs[at](seen))
            x = self.norms[2 * at + 1](x + self.narrow[at](nn.functional.gelu(self.wide[at](x))))
        found: torch.Tensor = x
        return found


def random_encoder(folder: Path, layers: int, width: int, heads: int, hidden: int) -> SentenceEncoder:
    """An encoder of that size in ``folder``, with random weights."""
    torch.manual_seed(1)
    write_tokenizer(folder, [f"w{at}" for at in range(WORDS)])
    export(_Transformer(WORDS + 2, layers, width, heads, hidden), folder)
    return SentenceEncoder(folder)


class _Meanings(nn.Module):
    """Each word is the unit vector of its meaning; those without one are nearly nothing."""

    def __init__(self, of: list[int], count: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(of) + 2, count + 1)
        with torch.no_grad():
            self.embedding.weight.zero_()
            self.embedding.weight[:, count] = 0.01
            for at, meaning in enumerate(of, 2):
                self.embedding.weight[at, meaning] = 1.0

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.embedding(ids) * mask[:, :, None].float()
        return found


def meaning_encoder(folder: Path, meanings: dict[str, int]) -> SentenceEncoder:
    """An encoder to which words of one number mean the same."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder, list(meanings))
    export(_Meanings(list(meanings.values()), max(meanings.values()) + 1), folder)
    return SentenceEncoder(folder)
