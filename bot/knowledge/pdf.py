"""PDF as blocks: page by page, under the headings of its outline."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pypdf import PdfReader
from pypdf.errors import PyPdfError

from bot.knowledge.formats import Headings, plain_text
from bot.knowledge.passages import Block, Unreadable

MOST_HEADINGS = 10_000  # of an outline: a book has some hundreds
MOST_LEVELS = 6
_HYPHEN = re.compile(r"(?<=[^\W\d_])-[ \t]*\n[ \t]*(?=[^\W\d_A-Z])")  # a word parted at the end of a line


def pages(path: Path, most: int) -> Iterator[Block]:
    """The paragraphs of each page. Raises ``Unreadable``, without the path."""
    if b"%PDF-" not in path.open("rb").read(1024):  # Adobe's readers accept it that far from the beginning
        raise Unreadable("is not a PDF, whatever its name says.")
    try:
        reader = PdfReader(path)
        # Many are encrypted with an empty password, only to forbid printing; who could open it may read it.
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("is encrypted. Save it without a password.")
        count = len(reader.pages)
        if count > most:
            raise Unreadable(f"has {count} pages, and a document may have {most}. Split it.")
        titles = _titles(reader)
        headings = Headings()
        for number, page in enumerate(reader.pages, 1):
            for level, title in titles.get(number, ()):
                headings.enter(level, title)
            for block in plain_text(_HYPHEN.sub("", page.extract_text()), number):
                yield Block(block.text, headings.path, 0, number)
    except PyPdfError as error:
        raise Unreadable(f"cannot be read as PDF ({_said(error)}). Save it anew.") from None


def _titles(reader: PdfReader) -> dict[int, list[tuple[int, str]]]:
    """By page, from 1: the level and title of each entry of the outline that points there."""
    found: dict[int, list[tuple[int, str]]] = {}
    todo: list[tuple[int, object]] = [(1, entry) for entry in reversed(reader.outline)]
    seen = 0
    while todo and seen < MOST_HEADINGS:
        level, entry = todo.pop()
        if isinstance(entry, list):
            todo += [(level + 1, one) for one in reversed(entry)]
            continue
        seen += 1
        title = str(getattr(entry, "title", "") or "").strip()
        page = reader.get_destination_page_number(entry)  # type: ignore[arg-type]  # typed too narrowly by pypdf
        if title and page is not None and page >= 0 and level <= MOST_LEVELS:
            found.setdefault(page + 1, []).append((level, title))
    return found


def _said(error: Exception) -> str:
    """What a library says of a file, short and on one line: it may quote the file."""
    said = " ".join(str(error).split()) or type(error).__name__
    return said if len(said) <= 80 else said[:77] + "..."
