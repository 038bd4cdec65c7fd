"""Documents taken apart: blocks as a reader finds them, and the passages they become. Pure.

A passage is what a caller can be told in a breath or two and what a model reads beside the question, so it is
short. It never crosses a heading, and knows under which headings it stood.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

USUAL = 500  # characters of a passage: some 80 words, half a minute of speech
MOST = 800  # characters that no passage exceeds
_SENTENCE = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])")
# Also what is no character to be read: controls, which a terminal would obey, and halves of characters.
_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


class Unreadable(Exception):  # noqa: N818 - reads as what it is
    """A document cannot be read. The message is a sentence; ``read`` puts the path before it."""


class Block(msgspec.Struct, frozen=True, array_like=True):
    """A paragraph, a list's item, a row of a table. ``line`` and ``page`` count from 1; 0: not known."""

    text: str
    headings: tuple[str, ...] = ()
    line: int = 0
    page: int = 0


class Passage(msgspec.Struct, frozen=True, array_like=True):
    """Some sentences of a document that stand together, and where they begin."""

    text: str
    headings: tuple[str, ...] = ()
    line: int = 0
    page: int = 0


def clean(text: str) -> str:
    """``text`` on one line, without anything that is not for reading."""
    return _SPACE.sub(" ", text).strip()


def passages(blocks: Iterable[Block]) -> Iterator[Passage]:
    """Blocks put together while they are short, and parted where they are long."""
    waiting: Passage | None = None
    for block in blocks:
        for text in _parted(clean(block.text)):
            together = f"{waiting.text}\n{text}" if waiting else text
            if waiting and waiting.headings == block.headings and len(together) <= USUAL:
                waiting = Passage(together, waiting.headings, waiting.line, waiting.page)
                continue
            if waiting:
                yield waiting
            waiting = Passage(text, block.headings, block.line, block.page)
    if waiting:
        yield waiting


def _parted(text: str) -> Iterator[str]:
    """``text`` in pieces of at most ``MOST`` characters: between sentences, else words, else anywhere."""
    piece = ""
    for sentence in _SENTENCE.split(text) if len(text) > MOST else [text]:
        if piece and len(piece) + 1 + len(sentence) > USUAL:
            yield piece
            piece = ""
        piece = f"{piece} {sentence}".strip()
        while len(piece) > MOST:
            cut = piece.rfind(" ", 1, MOST + 1)
            cut = cut if cut > MOST // 2 else MOST
            yield piece[:cut].strip()
            piece = piece[cut:].strip()
    if piece:
        yield piece
