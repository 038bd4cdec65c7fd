"""The chat template of Step-Audio 2: turns to token ids with places for audio in them. Pure.

A turn is ``<|BOT|>role\\ncontent<|EOT|>``; turns follow one another with nothing between. Control tokens are
put by this module, as ids; every text passes through an encoder that knows no control tokens, so no caller,
tool result or instruction can forge one. Texts are encoded in the segments upstream encodes
(``stepaudio2.py``: a turn whose content is a string is one segment, one of several items is a segment each),
for BPE would merge across other borders.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from model_runtime.tokens import SpecialTokens


@dataclass(frozen=True, slots=True)
class TextIds:
    """Ids as they are."""

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AudioSlot:
    """Room for ``patches`` rows of the adaptor: one piece of audio, at most 25 s."""

    patches: int


Piece: TypeAlias = TextIds | AudioSlot


class Template:
    """Builds turns. ``encode`` turns text into ids and must never yield a control token."""

    def __init__(self, tokens: SpecialTokens, encode: Callable[[str], Sequence[int]]) -> None:
        """A template for one vocabulary."""
        self._tokens = tokens
        self._encode = encode

    # --- whole turns ---

    def system(self, text: str) -> list[Piece]:
        """The operator's instructions."""
        return self._turn("system", text)

    def tool_json_schemas(self, tools: Sequence[dict[str, Any]]) -> list[Piece]:
        """The tools on offer, OpenAI-style; follows the system turn."""
        return self._turn("tool_json_schemas", json.dumps(list(tools), ensure_ascii=False))

    def human(self, audio: Sequence[AudioSlot] = (), text: str = "") -> list[Piece]:
        """What the caller said: audio first (as upstream's server orders it), then text. Text alone is one
        segment.
        """
        if not audio:
            return self._turn("human", text)
        items: list[Piece] = [TextIds(self._header("human")), *audio]
        if text:
            items.append(TextIds(tuple(self._encode(text))))
        return [*items, TextIds((self._tokens.eot,))]

    def input(self, text: str) -> list[Piece]:
        """Text from outside that the model is to use, such as search results."""
        return self._turn("input", text)

    def function_output(self, name: str, content: str) -> list[Piece]:
        """What a tool returned."""
        return self._turn("function_output", f"{name}\n{content}")

    def assistant(self, ids: Sequence[int], cut: int | None = None) -> list[Piece]:
        """A spoken answer as it enters the history: the ids the model wrote after ``<tts_start>``, less the
        final ``<|EOT|>``. ``cut`` keeps only that many of them and closes the speech there, where the caller
        stopped it.
        """
        kept = list(ids) if cut is None else [*ids[:cut], self._tokens.tts_end]
        header = self._header("assistant")
        return [TextIds((*header, self._tokens.tts_start, *kept, self._tokens.eot))]

    def assistant_text(self, text: str) -> list[Piece]:
        """A written answer."""
        return self._turn("assistant", text)

    # --- the turn to be completed ---

    def opening(self, speech: bool = True, think: bool = False) -> list[Piece]:
        """An assistant turn for the model to go on with: spoken, written, or (``think``) a thought to begin
        with.
        """
        if not think:
            return [TextIds((*self._header("assistant"), *((self._tokens.tts_start,) if speech else ())))]
        if self._tokens.think is None:
            return [TextIds((self._tokens.bot, *self._encode("assistant\n\n<think>\n")))]
        before, after = self._encode("assistant\n\n"), self._encode("\n")
        return [TextIds((self._tokens.bot, *before, self._tokens.think, *after))]

    def after_thought(self, closed: bool = True) -> list[Piece]:
        """What leads from a thought to speech. A thought cut short (not ``closed``) is closed first."""
        ids: list[int] = []
        if not closed:
            end = self._tokens.think_end
            ids.extend(self._encode("\n</think>") if end is None else (*self._encode("\n"), end))
        return [TextIds((*ids, *self._encode("\n\n"), self._tokens.tts_start))]

    def flat(self, items: Iterable[str | AudioSlot], speech: bool = True) -> list[Piece]:
        """The base model's form: instruction and audio one after another, no roles, no turns."""
        pieces: list[Piece] = [
            TextIds(tuple(self._encode(item))) if isinstance(item, str) else item for item in items
        ]
        return [*pieces, TextIds((self._tokens.tts_start,))] if speech else pieces

    # --- pieces to ids ---

    def lay_out(self, pieces: Iterable[Piece]) -> tuple[list[int], list[tuple[int, int]]]:
        """All ids in order, and (position, patches) of each ``AudioSlot``, in order: where its rows are laid
        in.
        """
        ids: list[int] = []
        slots: list[tuple[int, int]] = []
        for piece in pieces:
            if isinstance(piece, TextIds):
                ids.extend(piece.ids)
            else:
                ids.append(self._tokens.audio_start)
                slots.append((len(ids), piece.patches))
                ids.extend([self._tokens.audio_patch] * piece.patches)
                ids.append(self._tokens.audio_end)
        return ids, slots

    def _header(self, role: str) -> tuple[int, ...]:
        return (self._tokens.bot, *self._encode(f"{role}\n"))

    def _turn(self, role: str, content: str) -> list[Piece]:
        return [TextIds((self._tokens.bot, *self._encode(f"{role}\n{content}"), self._tokens.eot))]
