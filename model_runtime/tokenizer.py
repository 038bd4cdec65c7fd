"""Text to ids and back, from a checkpoint's tokenizer files. Byte-level BPE, as Qwen2's; nothing else is
read.

Two things are wanted that a stock tokenizer does not give: text that can never become a control token, and
the bytes of a single token, so that a character split over several can be put together as they come.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as RustTokenizer

from model_runtime.errors import CheckpointError
from model_runtime.tokens import MissingTokenError, SpecialTokens

# Qwen2's split of text before BPE; only needed where tokenizer.json, which carries its own, is missing.
_QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}


class Tokenizer:
    """One vocabulary. ``source`` is the file it came from."""

    def __init__(self, data: dict[str, Any], source: Path) -> None:
        """``data`` is the content of a tokenizer.json. Raises CheckpointError when it is not one that can be
        used.
        """
        self.source = source
        try:
            model, added = data["model"], data["added_tokens"]
            vocabulary: dict[str, int] = dict(model["vocab"])
            names: dict[str, int] = {str(token["content"]): int(token["id"]) for token in added}
            kind = model["type"]
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError.of(source, f"is not a tokenizer file ({error!r})") from None
        if kind != "BPE" or "ByteLevel" not in json.dumps(data.get("decoder")):
            raise CheckpointError.of(source, "is not a byte-level BPE tokenizer", "Only such are supported.")
        plain = {piece: id for piece, id in vocabulary.items() if piece not in names}
        if not plain or not names or max(plain.values()) >= min(names.values()):
            fault = "does not number all text before the control tokens"
            raise CheckpointError.of(source, fault, "Only vocabularies laid out as Qwen2's are supported.")
        forged = {"".join(pair) for pair in _pairs(model.get("merges", []))} & names.keys()
        if forged:
            fault = f"has a merge that spells the control token {min(forged)}"
            raise CheckpointError.of(source, fault, "Such a tokenizer is not safe with callers' text.")
        # Without the added tokens text is split by BPE alone. ``special`` flags would not do: Qwen marks
        # ``<tool_call>`` as an ordinary added token, which is found in any text whatever the flags.
        bare = {**data, "added_tokens": [], "post_processor": None}
        bare["model"] = {**model, "ignore_merges": False, "unk_token": None}
        try:
            self._encoder = RustTokenizer.from_str(json.dumps(bare))
        except Exception as error:  # the library raises plain Exception for whatever it cannot read
            raise CheckpointError.of(source, f"is not a tokenizer file ({error})") from None
        self._names = names
        self.size = max(names.values()) + 1  # ids are below this
        self.control = frozenset(names.values())
        self._bytes: dict[int, bytes] = {id: _bytes(piece) for piece, id in plain.items()}
        self._bytes.update({id: name.encode() for name, id in names.items()})
        try:
            self.tokens = SpecialTokens.from_vocabulary(names.get, self.control)
        except MissingTokenError as error:
            raise CheckpointError.of(
                source, str(error), "Use the tokenizer of a Step-Audio 2 model."
            ) from None

    def encode(self, text: str) -> list[int]:
        """Ids of any text at all; never a control token, even where the text spells one."""
        sound = text.encode("utf-8", "replace").decode("utf-8")  # lone surrogates are no text
        ids: list[int] = self._encoder.encode(sound, add_special_tokens=False).ids
        return ids

    def bytes_of(self, id: int) -> bytes:
        """What one id spells, in UTF-8; empty for an id that spells nothing. Control tokens spell their
        names.
        """
        return self._bytes.get(id, b"")

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; control tokens are left out, broken characters become U+FFFD."""
        return b"".join(self.bytes_of(id) for id in ids if id not in self.control).decode("utf-8", "replace")

    def id_of(self, name: str) -> int | None:
        """The id of an added token, by name."""
        return self._names.get(name)


def read_tokenizer(folder: Path) -> Tokenizer:
    """From tokenizer.json, or else vocab.json, merges.txt and added_tokens.json. Raises CheckpointError."""
    whole = folder / "tokenizer.json"
    if whole.is_file():
        return Tokenizer(_json(whole), whole)
    parts = [folder / name for name in ("vocab.json", "merges.txt", "added_tokens.json")]
    if any(part.is_file() for part in parts):
        missing = next((part for part in parts if not part.is_file()), None)
    else:
        missing = whole
    if missing is not None:
        raise CheckpointError.of(missing, "is missing")
    vocabulary, added = _json(parts[0]), _json(parts[2])
    lines = _text(parts[1]).splitlines()
    merges = [line for line in lines if line and not line.startswith("#version")]
    data = {
        "version": "1.0",
        "added_tokens": [
            {"id": id, "content": name, "special": True, "normalized": False}
            | {"single_word": False, "lstrip": False, "rstrip": False}
            for name, id in added.items()
        ],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": _QWEN_SPLIT}, "behavior": "Isolated", "invert": False},
                _BYTE_LEVEL,
            ],
        },
        "decoder": _BYTE_LEVEL,
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
    }
    return Tokenizer(data, parts[0])


def _pairs(merges: Sequence[Any]) -> Iterable[tuple[str, ...]]:
    # Written as "a b" by older versions of the library, as ["a", "b"] by newer ones.
    return (tuple(merge.split(" ")) if isinstance(merge, str) else tuple(map(str, merge)) for merge in merges)


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise CheckpointError.of(path, f"is not JSON ({error})") from None
    if not isinstance(data, dict):
        raise CheckpointError.of(path, "is not a JSON object")
    return data


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError.of(path, f"cannot be read ({error})") from None


def _alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in of every byte: itself where it prints, else a character from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


_BYTE_OF = _alphabet()


def _bytes(piece: str) -> bytes:
    return bytes(_BYTE_OF[character] for character in piece if character in _BYTE_OF)
