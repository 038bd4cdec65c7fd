"""What a session's history has to be, worked out anew from the rules: lists of ids, no cache, no jobs.

It shares nothing with the engine but the tokenizer and the audio encoder, and knows of a response only what a
client is told: why it ended, how many groups it had, what was heard in it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from model_runtime.model import SpeechModel
from model_runtime.thinking.kv_cache import KVCache
from model_runtime.tokens import SpecialTokens


@dataclass
class PlainTurn:
    """A turn of the template: its ids, the rows that lie over its audio patches, and itself in words."""

    ids: list[int]
    rows: list[Tensor] = field(default_factory=list)
    words: list[int] | None = None
    kept: bool = False
    turn: int = -1


@dataclass
class Reply:
    """What the model writes in a turn after ``<tts_start>``, without the end of the turn.

    ``ends``: how many ids there are up to the end of each group; ``letters``: each group's text. ``open``:
    the speech is not closed. ``calls``: it asks for a tool.
    """

    ids: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    letters: str = ""
    open: bool = True
    calls: bool = False


@dataclass
class Asked:
    """A response: what the caller said, and what became of it so far."""

    turn: int
    rows: list[Tensor]
    text: str
    reserve: int  # positions kept free for the answer
    reply: Reply
    written: int = 0  # ids of the reply that the model has drawn
    reason: str = ""  # of its end
    groups: int = 0
    read: bool = False  # the history has been read for it
    transcript: str = ""


class PlainHistory:
    """Settled turns, oldest first."""

    def __init__(self, tokens: SpecialTokens, encode: Callable[[str], list[int]]) -> None:
        self.turns: list[PlainTurn] = []
        self._tokens = tokens
        self._encode = encode

    @property
    def ids(self) -> list[int]:
        return [id for turn in self.turns for id in turn.ids]

    @property
    def rows(self) -> list[Tensor]:
        return [block for turn in self.turns for block in turn.rows]

    def read(self, model: SpeechModel) -> KVCache:
        """All of it, read in one go by ``model``."""
        ids, patch = self.ids, self._tokens.audio_patch
        begins = [at for at, id in enumerate(ids) if id == patch and ids[at - 1] != patch]
        rows = list(zip(begins, self.rows, strict=True))
        cache = model.new_cache(len(ids) + 1)
        with torch.inference_mode():
            model.prefill(cache, ids, model.embed(ids, rows))
        return cache

    # --- what is settled ---

    def system(self, text: str) -> None:
        self.turns.append(PlainTurn(self._turn("system", text), kept=True))

    def result(self, name: str, content: str) -> PlainTurn:
        return PlainTurn(self._turn("function_output", f"{name}\n{content}"))

    def settle(self, asked: Asked, heard: int) -> None:
        """``asked`` is committed, and ``heard`` groups of it were heard (-1: all)."""
        if (human := self.human(asked)) is not None:
            self.turns.append(human)
        self.turns.append(self._assistant(asked, heard))

    def human(self, asked: Asked) -> PlainTurn | None:
        """The caller's side; ``None`` if they said nothing."""
        tokens = self._tokens
        if not asked.rows and not asked.text:
            return None
        if not asked.rows:
            return PlainTurn(self._turn("human", asked.text), turn=asked.turn)
        ids = [tokens.bot, *self._encode("human\n")]
        for block in asked.rows:
            ids += [tokens.audio_start, *[tokens.audio_patch] * len(block), tokens.audio_end]
        if asked.text:
            ids += self._encode(asked.text)
        return PlainTurn([*ids, tokens.eot], asked.rows, self._heard_in_words(asked), turn=asked.turn)

    def _heard_in_words(self, asked: Asked) -> list[int]:
        words = "\n".join(filter(None, (asked.transcript, asked.text)))
        return self._turn("human", words) if words else []

    def _assistant(self, asked: Asked, heard: int) -> PlainTurn:
        tokens, reply = self._tokens, asked.reply
        by_itself = asked.reason in ("end", "silent")
        if heard in (-1, *range(asked.groups, 100)) and by_itself and (heard != 0 or reply.calls):
            ids = [*reply.ids, *([tokens.tts_end] if reply.open else [])]
            behind = reply.ids[reply.ends[-1] if reply.ends else 0 :]
            behind = [id for id in behind if id not in (tokens.tts_start, tokens.tts_end)]
            letters = reply.letters
        else:
            count = min(asked.groups, heard if heard >= 0 else asked.groups)
            # A reply that is cut short in the midst of a group ends with what there is of it.
            ends = [*(end for end in reply.ends if end <= asked.written), asked.written]
            ids = [*reply.ids[: ends[count - 1] if count else 0], tokens.tts_end]
            letters, behind = reply.letters[:count], []
        whole = [tokens.bot, *self._encode("assistant\n"), tokens.tts_start, *ids, tokens.eot]
        words: list[int] = []
        if letters or behind:
            words = [tokens.bot, *self._encode(f"assistant\n{letters}"), *behind, tokens.eot]
        return PlainTurn(whole, words=words, turn=asked.turn)

    def transcribed(self, asked: Asked) -> None:
        """The words of what the caller said have become known."""
        for turn in self.turns:
            if turn.turn == asked.turn and turn.rows and turn.words is not None:
                turn.words = self._heard_in_words(asked)

    # --- what goes when there is no more room ---

    def make_room(self, size: int, asked: Asked) -> None:
        """For ``asked`` and its answer, in a context of ``size``."""
        human = self.human(asked)
        self.shorten(size - asked.reserve - (0 if human is None else len(human.ids)))

    def make_room_ahead(self, size: int, reserve: int) -> None:
        """For what may be said next and its answer, for which ``reserve`` is kept free.

        A result that waits for its answer does not go for that.
        """
        if self.turns and (self.turns[-1].turn >= 0 or self.turns[-1].kept):
            self.shorten(size - reserve - min(320, size // 8))

    def shorten(self, limit: int) -> None:
        """Of what is longer than ``limit`` ids three quarters of that stay: the oldest sound goes first, then
        the oldest turns; what has not been answered goes only if it must.
        """
        kept = sum(len(turn.ids) for turn in self.turns if turn.kept)
        if len(self.ids) <= limit or kept > limit:
            return
        goal = limit * 3 // 4
        for turn in self.turns:
            if len(self.ids) > goal and turn.words is not None and len(turn.words) < len(turn.ids):
                turn.ids, turn.rows, turn.words = turn.words, [], None
        while len(self.ids) > goal and (old := [turn for turn in self.turns if not turn.kept]):
            unanswered = all(turn.turn < 0 for turn in old)
            if unanswered and len(self.ids) <= limit:
                break
            self.turns = [turn for turn in self.turns if turn is not old[0]]

    # --- the form ---

    def check_form(self) -> None:
        """Turns of known roles that are closed, and nothing between; speech and sound are closed within."""
        tokens = self._tokens
        roles = {
            name: self._encode(f"{name}\n") for name in ("system", "human", "assistant", "function_output")
        }
        for turn in self.turns:
            if not turn.ids:
                continue  # nothing of it was words
            assert turn.ids[0] == tokens.bot
            assert turn.ids[-1] == tokens.eot
            within = turn.ids[1:-1]
            assert tokens.bot not in within
            assert tokens.eot not in within
            text = [id for id in within if id not in tokens.control]
            assert any(text[:1] == role[:1] for role in roles.values())
            patches = [id for id in within if id == tokens.audio_patch]
            assert len(patches) == sum(len(block) for block in turn.rows)
            open = False
            for id in within:
                if id == tokens.tts_start:
                    assert not open
                    open = True
                elif id in (tokens.tts_end, tokens.tool_call):
                    open = False
                elif tokens.is_audio(id):
                    assert open
            assert not open

    def _turn(self, role: str, content: str) -> list[int]:
        return [self._tokens.bot, *self._encode(f"{role}\n{content}"), self._tokens.eot]
