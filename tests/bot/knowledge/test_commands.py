"""``parley knowledge`` as a person uses it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from bot.knowledge.adding import files
from bot.knowledge.store import KnowledgeError
from bot.settings import PACKAGE
from tests.bot.knowledge.papers import pdf, put
from tests.bot.test_cli import run

SHOP = str(PACKAGE.parent / "docs" / "bluebird")


def knowledge(tmp_path: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return run(
        tmp_path, "knowledge", *arguments, **{"PARLEY_KNOWLEDGE__FOLDER": str(tmp_path / "kept"), **settings}
    )


def said(tmp_path: Path, *arguments: str) -> str:
    done = knowledge(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_documents_are_added_found_shown_and_removed(tmp_path: Path) -> None:
    assert "There is nothing yet" in said(tmp_path, "list")
    added = said(tmp_path, "add", SHOP)
    assert "returns.md: added, 6 passages." in added
    assert "shop.html: added, " in added
    assert "returns.md: unchanged, 6 passages." in said(tmp_path, "add", f"{SHOP}/returns.md")
    listed = json.loads(said(tmp_path, "list", "--json"))
    assert [(one["base"], one["source"]) for one in listed] == [
        ("bluebird", name) for name in ("gear.md", "orders.md", "returns.md", "shop.html")
    ]
    assert "returns.md" in said(tmp_path, "list")
    (first, *_) = json.loads(said(tmp_path, "search", "um do you repair tents", "--json"))
    assert (first["where"], first["headings"][-1]) == ("returns.md, line 26", "Repairs")
    assert "Nothing is near that." in said(tmp_path, "search", "the capital of mongolia")
    assert "line 26 / Returns, repairs and warranty / Repairs" in said(tmp_path, "show", "returns.md")
    assert "returns.md is removed." in said(tmp_path, "remove", "returns.md")
    assert "returns.md" not in said(tmp_path, "list")
    assert "gear.md is removed." in said(tmp_path, "remove", "--all")
    assert json.loads(said(tmp_path, "list", "--json")) == []


def test_a_document_that_cannot_be_read_keeps_no_other_out(tmp_path: Path) -> None:
    put(tmp_path / "docs" / "a.md", "# Tents\n\nWe have tents.")
    put(tmp_path / "docs" / "b.txt", b"\xff\xfe")
    put(tmp_path / "docs" / "deeper" / "c.pdf", pdf([["We have boots."]]))
    put(tmp_path / "docs" / ".hidden.md", "Hidden.")
    done = knowledge(tmp_path, "add", "docs", "missing.md", "--base", "other")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "docs/b.txt: is not UTF-8 text (byte 0xff in line 1). Save it as UTF-8.",
        "missing.md: there is no such file.",
    ]
    assert done.stdout == "a.md: added, 1 passage.\ndeeper/c.pdf: added, 1 passage.\n"
    assert "page 1" in said(tmp_path, "search", "boots", "--agent", "other")
    put(tmp_path / "docs" / "a.md", b"\xff\xfe")  # what was there stays
    assert knowledge(tmp_path, "add", "docs/a.md", "--base", "other").returncode == 1
    assert "We have tents." in said(tmp_path, "search", "tents", "--base", "other")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("add", "folder"), "There is no Markdown, text, HTML or PDF file in folder."),
        (("add", "a.md", "--base", "A b"), "'A b' cannot be the name of a knowledge base"),
        (("search", "tents"), "There is no knowledge base 'bluebird' in"),
        (("show", "a.md"), "There is no knowledge base 'bluebird' in"),
        (("remove", "a.md"), "There is no knowledge base 'bluebird' in"),
        (("remove",), "Name the documents to remove, or say --all."),
        (("list", "--base", "other"), "There is no knowledge base 'other' in"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    (tmp_path / "folder").mkdir()
    put(tmp_path / "a.md", "Hello")
    done = knowledge(tmp_path, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(words)
    assert len(done.stderr.splitlines()) == 1


def test_an_encoder_that_is_none_is_named(tmp_path: Path) -> None:
    put(tmp_path / "a.md", "Hello")
    for arguments in (("add", "a.md"), ("search", "hello")):
        done = knowledge(tmp_path, *arguments, PARLEY_KNOWLEDGE__ENCODER=str(tmp_path / "none"))
        assert (done.returncode, "should hold model.onnx and tokenizer.json" in done.stderr) == (1, True)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    first, second = put(tmp_path / "a" / "x.md", "One"), put(tmp_path / "b" / "x.md", "Two")
    with pytest.raises(KnowledgeError, match=r"would both be 'x\.md'"):
        files([first, second])
    assert [file.source for file in files([tmp_path])] == ["a/x.md", "b/x.md"]
    assert [file.source for file in files([first, first])] == ["x.md"]
    (tmp_path / "a" / "link.md").symlink_to(second)
    assert [file.source for file in files([tmp_path / "a"])] == ["x.md"]
