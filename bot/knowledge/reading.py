"""Reading a document that may be anything: in a process of its own, which has so much time and memory and no
more.

``python -m bot.knowledge.reading FILE`` prints one msgpack value: ``Read``. What cannot be read is refused in
a sentence, and whatever a file does to its reader, only that file is lost.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from bot.knowledge.passages import Block, Passage, Unreadable, passages

KINDS = {
    ".md": "markdown", ".markdown": "markdown", ".txt": "text", ".text": "text",
    ".html": "html", ".htm": "html", ".pdf": "pdf",
}  # fmt: skip
MOST_BYTES = 50_000_000  # of a file: a book with pictures
MOST_TEXT = 10_000_000  # characters: some 3,000 pages of text
MOST_PAGES = 5_000
MEMORY_BYTES = 1 << 30  # of the reader: ten times what a book takes
CPU_S = 40  # of the reader: some hundred pages of PDF take a few seconds
PATIENCE_S = 300.0  # the same, on a machine with much else to do


class Read(msgspec.Struct):
    """What the reader tells: passages, or why there are none."""

    passages: list[Passage] = []
    refused: str = ""


def kind_of(path: Path) -> str:
    """``markdown``, ``text``, ``html`` or ``pdf``, by the end of its name; "" if it is none of them."""
    return KINDS.get(path.suffix.lower(), "")


def read(path: Path) -> list[Passage]:
    """The passages of a document, at least one. Raises ``Unreadable``."""
    _look(path)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bot.knowledge.reading", "--", str(path)],
            capture_output=True,
            timeout=PATIENCE_S,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
    except subprocess.TimeoutExpired:
        raise Unreadable(
            f"{path}: was not read after {PATIENCE_S:.0f} s. Split it, or save it anew."
        ) from None
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise Unreadable(f"{path}: was not read after {CPU_S} s of work. Split it, or save it anew.")
    try:
        told = msgspec.msgpack.decode(done.stdout, type=Read)
    except msgspec.MsgspecError:  # it crashed, deep in a library
        raise Unreadable(f"{path}: cannot be read: it may be damaged. Save it anew.") from None
    if told.refused:
        raise Unreadable(f"{path}: {told.refused}")
    return told.passages


def _look(path: Path) -> None:
    """What can be told without reading it. Raises ``Unreadable``."""
    if not kind_of(path):
        raise Unreadable(f"{path}: is neither Markdown (.md), text (.txt), HTML (.html) nor PDF (.pdf).")
    try:
        if not path.is_file():
            raise Unreadable(f"{path}: {'is not a file' if path.exists() else 'there is no such file'}.")
        size = path.stat().st_size
    except OSError as error:
        raise Unreadable(f"{path}: cannot be read ({error.strerror}).") from None
    if not size:
        raise Unreadable(f"{path}: is empty.")
    if size > MOST_BYTES:
        most = f"{MOST_BYTES // 1_000_000} MB at most"
        raise Unreadable(f"{path}: has {size / 1e6:.0f} MB, and a document may have {most}. Split it.")


def _blocks(path: Path) -> Iterator[Block]:
    """Raises ``Unreadable``, without the path, for what is found on the way."""
    kind = kind_of(path)
    if kind == "pdf":
        from bot.knowledge.pdf import pages

        yield from pages(path, MOST_PAGES)
        return
    from bot.knowledge.formats import html, markdown, plain_text

    text = _text(path.read_bytes())
    yield from {"markdown": markdown, "html": html, "text": plain_text}[kind](text)


def _text(content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise Unreadable(f"is not UTF-8 text (byte 0x{byte:02x} in line {line}). Save it as UTF-8.") from None
    if "\0" in text:
        raise Unreadable("is not text: there are zero bytes in it.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _within(blocks: Iterable[Block]) -> Iterator[Block]:
    """Raises ``Unreadable`` when it becomes too much."""
    told = 0
    for block in blocks:
        told += len(block.text)
        if told > MOST_TEXT:
            raise Unreadable(f"has more than {MOST_TEXT // 1_000_000} million characters of text. Split it.")
        yield block


def _read_here(path: Path) -> Read:
    """The work of the reader's process."""
    try:
        found = list(passages(_within(_blocks(path))))
    except Unreadable as error:
        return Read(refused=str(error))
    except OSError as error:
        return Read(refused=f"cannot be read ({error.strerror}).")
    except MemoryError:
        return Read(refused=f"takes more than {MEMORY_BYTES >> 30} GiB to read. Split it, or save it anew.")
    except RecursionError:
        return Read(refused="is nested too deeply to be read. Save it anew.")
    except Exception as error:  # parsers of broken files raise what comes to hand
        return Read(refused=f"cannot be read ({type(error).__name__}): it may be damaged. Save it anew.")
    if not any(any(c.isalnum() for c in one.text) for one in found):
        scan = " Is it a scan? Have its text recognised first." if kind_of(path) == "pdf" else ""
        return Read(refused=f"has no text in it.{scan}")
    return Read(found)


def main() -> int:
    """Be the reader."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)  # of libraries, about what they could mend
    sys.stdout.buffer.write(msgspec.msgpack.encode(_read_here(Path(sys.argv[-1]))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
