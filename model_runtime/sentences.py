"""Sentences as vectors: an encoder in ONNX, in the layout in which sentence-transformers publishes them.

A folder holds ``tokenizer.json`` and ``model.onnx`` (or ``onnx/model.onnx``), with inputs ``input_ids``,
``attention_mask`` and perhaps ``token_type_ids`` [B, T] int64, and as its first output token embeddings [B,
T, D] or sentence embeddings [B, D]. ``1_Pooling/config.json`` says how the first become the second,
``config_sentence_transformers.json`` what is written before a query and a passage. Both may be missing.
Nothing in the folder is executed but the ONNX graph.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from model_runtime.errors import EncoderError
from model_runtime.onnx_session import quiet_session

MOST_TOKENS = 256  # of a text: what is longer is cut. Most such encoders were trained on less.
BATCH = 16


class SentenceEncoder:
    """One loaded encoder. May be called from any thread, one at a time."""

    def __init__(self, folder: Path) -> None:
        """Read it. Raises ``EncoderError``."""
        model = next(
            (path for path in (folder / "model.onnx", folder / "onnx" / "model.onnx") if path.is_file()), None
        )
        tokenizer = folder / "tokenizer.json"
        if model is None or not tokenizer.is_file():
            raise EncoderError(f"{folder}: should hold model.onnx and tokenizer.json, and does not.")
        prompts = _json(folder / "config_sentence_transformers.json").get("prompts") or {}
        self._prompts = {
            "query": prompts.get("query", ""),
            "passage": prompts.get("passage", prompts.get("document", "")),
        }
        self._first = bool(_json(folder / "1_Pooling" / "config.json").get("pooling_mode_cls_token"))
        self.name = _name(model, tokenizer, json.dumps([self._prompts, self._first, MOST_TOKENS]))
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer))
            self._tokenizer.enable_truncation(MOST_TOKENS)
            self._tokenizer.enable_padding(pad_id=_padding(self._tokenizer))
        except Exception as error:  # tokenizers raises Exception itself
            raise EncoderError(f"{tokenizer}: cannot be read as a tokenizer ({_line(error)}).") from None
        try:
            self._session = quiet_session(model)
        except Exception as error:  # onnxruntime's exceptions share no public base class
            raise EncoderError(f"{model}: cannot be read as an ONNX model ({_line(error)}).") from None
        self._inputs = [one.name for one in self._session.get_inputs()]
        self._model = model
        unknown = set(self._inputs) - {"input_ids", "attention_mask", "token_type_ids"}
        if unknown:
            raise EncoderError(f"{model}: is no sentence encoder, it asks for {', '.join(sorted(unknown))}.")
        self.width = self.query("width").shape[0]

    def query(self, text: str) -> NDArray[np.float32]:
        """The vector [D] of what is asked, of length 1. Raises ``EncoderError``."""
        vector: NDArray[np.float32] = self._encode([self._prompts["query"] + text])[0]
        return vector

    def passages(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors [N, D] of what may answer, each of length 1. Raises ``EncoderError``."""
        # Texts of one length together: a batch costs what its longest costs.
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))
        found = np.empty((len(texts), self.width), np.float32)
        for begin in range(0, len(order), BATCH):
            at = order[begin : begin + BATCH]
            found[at] = self._encode([self._prompts["passage"] + texts[one] for one in at])
        return found

    def _encode(self, texts: list[str]) -> NDArray[np.float32]:
        encoded = self._tokenizer.encode_batch(texts)
        mask = np.array([one.attention_mask for one in encoded], np.int64)
        given = {
            "input_ids": np.array([one.ids for one in encoded], np.int64),
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(mask),
        }
        try:
            out = self._session.run(None, {name: given[name] for name in self._inputs})[0]
        except Exception as error:
            raise EncoderError(f"{self._model}: failed ({_line(error)}).") from None
        if out.ndim == 3:
            weights = mask[:, :, None].astype(np.float32)
            out = out[:, 0] if self._first else (out * weights).sum(1) / np.maximum(weights.sum(1), 1)
        if out.ndim != 2 or not np.isfinite(out).all():
            raise EncoderError(f"{self._model}: gives no vectors [B, D], but {list(out.shape)}.")
        return np.asarray(out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-9), np.float32)


def _json(path: Path) -> dict[str, Any]:
    """What a file says that need not be there."""
    if not path.is_file():
        return {}
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(f"{path}: cannot be read as JSON ({_line(error)}).") from None
    if not isinstance(said, dict):
        raise EncoderError(f"{path}: should hold a JSON object, and does not.")
    return said


def _padding(tokenizer: Tokenizer) -> int:
    """The id to fill with. What is filled is masked, so without a token for it any will do."""
    given = tokenizer.padding
    return int(given["pad_id"]) if given else 0


def _name(model: Path, tokenizer: Path, more: str) -> str:
    """A hash of all that makes its vectors: those of another encoder cannot be compared with them."""
    digest = hashlib.sha256(more.encode())
    try:
        for path in (model, tokenizer):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    except OSError as error:
        raise EncoderError(f"{path}: cannot be read ({error.strerror}).") from None
    return digest.hexdigest()[:16]


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
