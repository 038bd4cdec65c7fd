"""Markdown, HTML and plain text as blocks, each under its headings and with its line. Pure.

What a visitor would not read is left out: scripts, styles, the navigation of a page, a Markdown file's front
matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

from markdown_it import MarkdownIt
from markdown_it.token import Token

from bot.knowledge.passages import Block, clean

MOST_HEADING = 200  # characters: more is no heading, whatever it is marked as
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n.*?^(?:---|\.\.\.)[ \t]*$", re.DOTALL | re.MULTILINE)
_BLANK = re.compile(r"\s*")


class Headings:
    """The path of headings above a place."""

    def __init__(self) -> None:
        """At the beginning of a document there are none."""
        self._levels: dict[int, str] = {}

    def enter(self, level: int, title: str) -> None:
        """A heading begins: those of its level and below end."""
        self._levels = {at: said for at, said in self._levels.items() if at < level}
        if title := clean(title):
            self._levels[level] = title[:MOST_HEADING]

    @property
    def path(self) -> tuple[str, ...]:
        """From the highest to the lowest."""
        return tuple(self._levels.values())


def plain_text(text: str, page: int = 0) -> Iterator[Block]:
    """Paragraphs, which blank lines part. With ``page`` lines are not counted: a page has none of its own."""
    lines: list[str] = []
    begun = 0
    for at, line in enumerate([*text.splitlines(), ""], 1):
        if line.strip():
            begun = begun or at
            lines.append(line.strip())
        elif lines:
            yield Block(" ".join(lines), (), 0 if page else begun, page)
            lines, begun = [], 0


def markdown(text: str) -> Iterator[Block]:
    """CommonMark with tables. A row of a table is a block that names its columns; so is a list's item."""
    front = _FRONT_MATTER.match(text)
    if front:  # its lines stay, empty, so that all others keep their numbers
        text = "\n" * front[0].count("\n") + text[front.end() :]
    headings, columns, cells = Headings(), list[str](), list[str]()
    kind, line, level = "", 0, 0
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        line = token.map[0] + 1 if token.map else line
        match token.type:
            case "heading_open":
                kind, level = token.type, int(token.tag.removeprefix("h"))
            case "th_open" | "td_open":
                kind = token.type
            case "tr_open":
                cells = []
            case "inline":
                said = _inline(token)
                if kind == "heading_open":
                    headings.enter(level, said)
                elif kind in ("th_open", "td_open"):
                    cells.append(said)
                elif said:
                    yield Block(said, headings.path, line)
            case "heading_close" | "th_close" | "td_close":
                kind = ""
            case "thead_close":
                columns = cells
            case "tr_close" if columns and cells is not columns:
                yield Block(_row(columns, cells), headings.path, line)
            case "table_close":
                columns = []
            case "fence" | "code_block":
                yield from _under(headings.path, line, plain_text(token.content))
            case "html_block":
                yield from _under(headings.path, line, html(token.content))


def _inline(token: Token) -> str:
    """A paragraph without its marks."""
    parts = []
    for child in token.children or ():
        match child.type:
            case "text" | "code_inline":
                parts.append(child.content)
            case "image":
                parts.append(_inline(child))
            case "softbreak" | "hardbreak":
                parts.append(" ")
    return "".join(parts).strip()


def _row(columns: list[str], cells: list[str]) -> str:
    pairs = zip(columns, cells, strict=False)
    return "; ".join(f"{column}: {cell}" if column else cell for column, cell in pairs if cell) + "."


def _under(headings: tuple[str, ...], line: int, blocks: Iterator[Block]) -> Iterator[Block]:
    for block in blocks:
        yield Block(block.text, headings + block.headings, line + max(0, block.line - 1))


def html(text: str) -> Iterator[Block]:
    """What a page shows. Tags need not be closed, nor known."""
    page = _Page()
    page.feed(text)
    page.close()
    page.end_block()
    return iter(page.blocks)


_UNSEEN = frozenset((
    "script", "style", "template", "noscript", "svg", "math", "head", "nav", "select", "object", "iframe",
))  # fmt: skip
_INLINE = frozenset((
    "a", "abbr", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i", "img",
    "ins", "kbd", "label", "mark", "q", "s", "samp", "small", "span", "strike", "strong", "sub", "sup",
    "time", "tt", "u", "var", "wbr",
))  # fmt: skip
_CELLS = frozenset(("td", "th"))
_HEADINGS = {f"h{level}": level for level in range(1, 7)}


class _Page(HTMLParser):
    """Blocks between tags that begin a new line. A row of a table is one block."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[Block] = []
        self._headings = Headings()
        self._said: list[str] = []
        self._line = 0
        self._level = 0
        self._unseen: list[str] = []  # tags whose content nobody sees, the outermost first

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        """What is no section after ``<![`` is a comment up to the next ``>``, as in browsers (HTML 13.2.5).

        Python's parser fails an assertion there.
        """
        try:
            return super().parse_marked_section(i, report)
        except AssertionError:
            return self.parse_bogus_comment(i)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _UNSEEN:
            self._unseen.append(tag)
        if self._unseen:
            # A head that nobody closed ends where the body begins.
            if tag == "body":
                self._unseen.clear()
            return
        if tag in _CELLS:
            self._said.append("; " if "".join(self._said).strip() else "")
        elif tag == "br":
            self._said.append(" ")
        elif tag not in _INLINE:
            self.end_block()
            self._level = _HEADINGS.get(tag, 0)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag in _UNSEEN:  # <svg/> has no content to pass over
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._unseen:
            del self._unseen[self._unseen.index(tag) :]
        elif not self._unseen and tag not in _INLINE and tag not in _CELLS:
            self.end_block()

    def handle_data(self, data: str) -> None:
        if self._unseen:
            return
        if not self._line and (blank := _BLANK.match(data)) and blank.end() < len(data):
            self._line = self.getpos()[0] + data[: blank.end()].count("\n")
        self._said.append(data)

    def end_block(self) -> None:
        """What was said since the last block becomes one, or a heading."""
        said = " ".join("".join(self._said).split())
        if said and self._level and len(said) <= MOST_HEADING:
            self._headings.enter(self._level, said)
        elif said:
            self.blocks.append(Block(said, self._headings.path, self._line))
        self._said, self._line, self._level = [], 0, 0
