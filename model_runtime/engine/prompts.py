"""The turns of a session as tokens: the template's pieces laid out, and the rows heard put in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from model_runtime.chat import AudioSlot, Piece, Template, TextIds
from model_runtime.engine.history import Entry, Tokens
from model_runtime.tokens import SpecialTokens


class Prompts:
    """Every method gives new tokens, or an entry for the history."""

    def __init__(self, template: Template, tokens: SpecialTokens, transcribe_instructions: str) -> None:
        """``transcribe_instructions``: the system turn of the transcription task."""
        self._template = template
        self._tokens = tokens
        self._transcribe = transcribe_instructions

    def opening_turns(self, instructions: str, tools: Sequence[dict[str, Any]]) -> list[Entry]:
        """The system turn and the tools on offer: they stay for the whole call."""
        pieces: list[Piece] = []
        if instructions:
            pieces += self._template.system(instructions)
        if tools:
            pieces += self._template.tool_json_schemas(tools)
        return [Entry(self._lay(pieces), kept=True)] if pieces else []

    def human(self, turn: int, rows: Sequence[Tensor], text: str, transcript: str) -> Entry:
        """What the caller said in ``turn``:

        a block of rows [N, hidden] for each piece of audio, then typed text.
        """
        tokens = self._lay(self._template.human([AudioSlot(len(block)) for block in rows], text), rows)
        return Entry(
            tokens, self.human_in_words(transcript, text) if rows else None, turn=turn, heard=bool(rows)
        )

    def human_in_words(self, transcript: str, text: str) -> Tokens:
        """The same without its sound; nothing at all if nobody knows the words."""
        words = "\n".join(part for part in (transcript, text) if part)
        return self._lay(self._template.human((), words)) if words else Tokens()

    def reply(self, turn: int, ids: list[int], text: str, after: list[int]) -> Entry:
        """What was answered:

        ``ids`` from ``<tts_start>`` to before ``<|EOT|>``. In words: ``text`` and the ids ``after``.
        """
        words: list[Piece] = []
        if text or after:
            written = self._lay(self._template.assistant_text(text)).ids[:-1]
            words = [TextIds((*written, *after, self._tokens.eot))]
        return Entry(self._lay(self._template.assistant(ids)), self._lay(words), turn=turn)

    def function_output(self, name: str, content: str, result: str = "") -> Entry:
        """What a tool returned. The first line is the name, so a line break in it would be content."""
        tokens = self._lay(self._template.function_output(" ".join(name.split()), content))
        return Entry(tokens, result=result)

    def speech_opening(self) -> Tokens:
        """The assistant's turn, for the model to go on speaking."""
        return self._lay(self._template.opening())

    def thought_opening(self) -> Tokens:
        """The assistant's turn, for the model to go on thinking."""
        return self._lay(self._template.opening(think=True))

    def thought_closing(self, closed: bool) -> Tokens:
        """From a thought (``closed``: by the model itself) to speech."""
        return self._lay(self._template.after_thought(closed))

    def transcription(self, rows: Sequence[Tensor]) -> Tokens:
        """The transcription task over ``rows``, for the model to go on writing."""
        slots = [AudioSlot(len(block)) for block in rows]
        task = self._template.system(self._transcribe) if self._transcribe else []
        return self._lay([*task, *self._template.human(slots), *self._template.opening(speech=False)], rows)

    def _lay(self, pieces: Sequence[Piece], rows: Sequence[Tensor] = ()) -> Tokens:
        ids, slots = self._template.lay_out(pieces)
        return Tokens(ids, [(at, block) for (at, _), block in zip(slots, rows, strict=True)])
