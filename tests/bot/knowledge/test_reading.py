"""Reading whatever a person may give: what is good is read, the rest refused in one sentence, in time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bot.knowledge import reading
from bot.knowledge.passages import MOST, Passage, Unreadable
from bot.knowledge.reading import read
from tests.bot.knowledge.papers import encrypted, outlined, pdf, put

PAGES = [
    ["We repair tents and water-", "proof jackets.", " ", "Soles cost 45 dollars."],
    ["Closed on Sundays."],
]


def refusal(path: Path) -> str:
    with pytest.raises(Unreadable) as refused:
        read(path)
    said = str(refused.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    assert len(said) < len(str(path)) + 200
    return said.removeprefix(f"{path}: ")


def test_each_kind_is_read_with_its_places(tmp_path: Path) -> None:
    assert read(put(tmp_path / "a.md", "# A\n\nHello")) == [Passage("Hello", ("A",), 3)]
    assert read(put(tmp_path / "a.TXT", "\r\nHello\r\nyou")) == [Passage("Hello you", (), 2)]
    assert read(put(tmp_path / "a.html", "<h1>A</h1>\n<p>Hello")) == [Passage("Hello", ("A",), 2)]
    assert read(put(tmp_path / "bom.txt", b"\xef\xbb\xbfHello")) == [Passage("Hello", (), 1)]


def test_a_pdf_is_read_page_by_page_under_its_outline(tmp_path: Path) -> None:
    told = read(put(tmp_path / "a.pdf", outlined(pdf(PAGES), [("Repairs", 0, False), ("Hours", 1, True)])))
    assert [(one.headings, one.page) for one in told] == [(("Repairs",), 1), (("Repairs", "Hours"), 2)]
    assert "waterproof jackets" in told[0].text
    assert told[1].text == "Closed on Sundays."


def test_a_pdf_that_anybody_may_open_is_read(tmp_path: Path) -> None:
    (told,) = read(put(tmp_path / "a.pdf", encrypted(pdf(PAGES[1:]), "")))
    assert told.text == "Closed on Sundays."


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.md", b"", "is empty."),
        ("a.txt", b" \n\t\n", "has no text in it."),
        ("a.md", b"---\n***\n", "has no text in it."),
        ("a.html", b"<script>x()</script>", "has no text in it."),
        (
            "a.txt",
            "ok\nGrüße".encode("latin-1"),
            "is not UTF-8 text (byte 0xfc in line 2). Save it as UTF-8.",
        ),
        ("a.txt", "Hello".encode("utf-16"), "is not UTF-8 text (byte 0xff in line 1). Save it as UTF-8."),
        ("a.md", b"a\0b", "is not text: there are zero bytes in it."),
        ("a.docx", b"PK", "is neither Markdown (.md), text (.txt), HTML (.html) nor PDF (.pdf)."),
        ("a.pdf", b"Hello", "is not a PDF, whatever its name says."),
        ("a.pdf", encrypted(pdf(PAGES), "secret"), "is encrypted. Save it without a password."),
        ("a.pdf", pdf([[" "]]), "has no text in it. Is it a scan? Have its text recognised first."),
    ],
)
def test_what_has_nothing_to_read_is_refused(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    assert refusal(put(tmp_path / name, content)) == said


def test_what_is_not_there_or_no_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.md") == "there is no such file."
    (tmp_path / "folder.md").mkdir()
    assert refusal(tmp_path / "folder.md") == "is not a file."
    os.mkfifo(tmp_path / "pipe.md")
    assert refusal(tmp_path / "pipe.md") == "is not a file."


@pytest.mark.parametrize("kept", [9, 60, 200, 400])
def test_a_damaged_pdf_is_refused_or_read(tmp_path: Path, kept: int) -> None:
    path = put(tmp_path / "a.pdf", pdf(PAGES)[:kept])
    assert refusal(path)


def test_what_is_too_large_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    with path.open("wb") as file:
        file.truncate(reading.MOST_BYTES + 1)  # a hole: it takes no room
    assert refusal(path) == "has 50 MB, and a document may have 50 MB at most. Split it."


def test_a_long_book_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path / "a.txt", "All work and no play.\n\n" * (reading.MOST_TEXT // 20))
    assert refusal(path) == "has more than 10 million characters of text. Split it."


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bomb.pdf", pdf([], [b"BT /F1 1 Tf (x) Tj ET\n" + b" " * 400_000_000])),
        ("busy.pdf", pdf([], [b"BT /F1 1 Tf\n" + b"(x) Tj 1 0 Td\n" * 4_000_000 + b"ET"])),
    ],
)
def test_a_pdf_that_unpacks_to_very_much_ends_in_time(tmp_path: Path, name: str, content: bytes) -> None:
    assert len(content) < 2_000_000
    assert refusal(put(tmp_path / name, content))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("deep.html", "<div>" * 100_000 + "Hello"),
        ("open.html", "<a href='" * 2_000 + "Hello"),
        ("deep.md", "> " * 20_000 + "Hello"),
        ("lists.md", "- " * 20_000 + "Hello"),
        ("brackets.md", "[" * 50_000 + "Hello"),
        ("stars.md", "*a_" * 30_000 + "Hello"),
        ("line.txt", "Hello" * 200_000),
        ("loop.pdf", pdf([["x"]]).replace(b"/Kids[5 0 R]", b"/Kids[2 0 R]")),
    ],
)
def test_what_was_made_to_hurt_its_reader_is_read_or_refused(
    tmp_path: Path, name: str, content: bytes | str
) -> None:
    path = put(tmp_path / name, content)
    try:
        told = read(path)
    except Unreadable as error:
        said = str(error)
    else:
        assert all(len(one.text) <= MOST for one in told)
        said = "".join(one.text for one in told)
    assert "Hello" in said or said.startswith(f"{path}: ")


def test_a_reader_that_takes_too_long_or_too_much_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path / "a.txt", "Hello")
    monkeypatch.setattr(reading, "PATIENCE_S", 0.001)
    assert refusal(path) == "was not read after 0 s. Split it, or save it anew."
