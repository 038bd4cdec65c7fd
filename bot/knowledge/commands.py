"""``parley knowledge``: add, list, show, search and remove what agents can look up."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from bot.console import errors, fail, read_settings

if TYPE_CHECKING:
    from bot.knowledge.base import Encoder
    from bot.knowledge.store import Store
    from bot.settings import KnowledgeSettings

app = typer.Typer(no_args_is_help=True, help="What agents can look up during a call: documents of your own.")
BaseName = Annotated[
    str,
    typer.Option(
        "--base", "--agent", metavar="NAME", help="Which base; without it that of the agent who answers."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Source = Annotated[
    str, typer.Argument(metavar="DOCUMENT", help="Its name, as `parley knowledge list` prints it.")
]


@app.command()
def add(
    docs: Annotated[
        list[Path],
        typer.Argument(metavar="DOCS...", help="Markdown, text, HTML and PDF files, or folders of them."),
    ],
    base: BaseName = "",
) -> None:
    """Add documents, or take them in anew. One that cannot be read keeps no other from being added."""
    from bot.knowledge.adding import add as add_one
    from bot.knowledge.adding import files

    with _told() as settings:
        found = files(docs)
        if not found:
            fail(f"There is no Markdown, text, HTML or PDF file in {', '.join(map(str, docs))}.")
        encoder = _encoder(settings)
        refused = 0
        with _opened(settings, base, create=True) as store:
            for file in found:
                with errors.status(f"reading {file.source}", spinner="dots"):
                    added = add_one(store, encoder, file)
                if added.what == "refused":
                    refused += 1
                    errors.print(added.said, style="bold red", markup=False, highlight=False, soft_wrap=True)
                else:
                    _say(f"{added.source}: {added.what}, {_passages(added.passages)}.")
    if refused:
        raise typer.Exit(1)


@app.command("list")
def list_(
    base: Annotated[str, typer.Option("--base", "--agent", metavar="NAME", help="Only this base.")] = "",
    as_json: AsJson = False,
) -> None:
    """List the bases and their documents."""
    from bot.knowledge.store import names

    with _told() as settings:
        rows = []
        for name in [base] if base else names(settings.folder):
            with _opened(settings, name) as store:
                rows += [(name, document) for document in store.documents()]
    if as_json:
        _print_json([{"base": name} | asdict(document) for name, document in rows])
        return
    if not rows:
        _say("There is nothing yet: parley knowledge add FILES.")
        return
    table = Table(
        Column("Base", no_wrap=True),
        "Document",
        Column("Passages", justify="right"),
        Column("Bytes", justify="right"),
        Column("Added", no_wrap=True),
        "Found by",
        box=None,
        pad_edge=False,
    )
    for name, document in rows:
        added = datetime.fromtimestamp(document.added).strftime("%Y-%m-%d %H:%M")
        by = "words and meaning" if document.encoder else "words"
        row = (name, document.source, f"{document.passages}", f"{document.bytes}", added, by)
        table.add_row(*map(escape, row))
    Console().print(table)


@app.command()
def show(document: Source, base: BaseName = "", as_json: AsJson = False) -> None:
    """Show the passages of a document, as they will be found."""
    with _told() as settings, _opened(settings, base) as store:
        told = store.passages(document)
        if not told:
            fail(f"The knowledge base {store.name!r} has no document {document!r}.")
    if as_json:
        _print_json([{"text": p.text, "headings": p.headings, "line": p.line, "page": p.page} for p in told])
        return
    for one in told:
        place = f"page {one.page}" if one.page else f"line {one.line}"
        _say(" / ".join((place, *one.headings)), "bold")
        _say(one.text + "\n")


@app.command()
def search(
    text: Annotated[str, typer.Argument(help='What a caller might ask: "do you repair tents".')],
    base: BaseName = "",
    limit: Annotated[int, typer.Option(min=1, max=50, help="How many passages at most.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Search as a call does: prints the passages a model would read, or that nothing is near."""
    from bot.knowledge.knowledge import Answer, Knowledge

    async def look(settings: KnowledgeSettings, name: str) -> Answer:
        async with Knowledge(settings) as knowledge:
            return await knowledge.search(name, text, limit)

    with _told() as settings, errors.status("looking", spinner="dots"):
        from loguru import logger

        logger.remove()  # what is wrong is said once, below
        _encoder(settings)
        answer = asyncio.run(look(settings, base or _agent()))
    if answer.fault:
        fail(answer.fault)
    if as_json:
        _print_json([asdict(hit) | {"where": hit.where} for hit in answer.hits])
        return
    if not answer.hits:
        _say("Nothing is near that.")
    for hit in answer.hits:
        _say(f"{hit.score:.2f}  {' / '.join((hit.where, *hit.headings))}", "bold")
        _say(hit.text + "\n")


@app.command()
def remove(
    documents: Annotated[
        list[str] | None, typer.Argument(metavar="DOCUMENTS...", help="Their names.")
    ] = None,
    base: BaseName = "",
    everything: Annotated[bool, typer.Option("--all", help="All documents of the base.")] = False,
) -> None:
    """Forget documents: their words are overwritten. Calls no longer find them from the next search on."""
    if bool(documents) == everything:
        fail("Name the documents to remove, or say --all.")
    with _told() as settings, _opened(settings, base, writing=True) as store:
        sources = [document.source for document in store.documents()] if everything else documents or []
        with errors.status("removing", spinner="dots"):
            store.remove(sources)
    for source in sources:
        _say(f"{source} is removed.")


@contextmanager
def _told() -> Iterator[KnowledgeSettings]:
    """The settings, while something is done. What goes wrong ends the command."""
    from bot.knowledge.store import KnowledgeError

    try:
        yield read_settings().knowledge
    except KnowledgeError as error:
        fail(str(error))


@contextmanager
def _opened(
    settings: KnowledgeSettings, base: str, create: bool = False, writing: bool = False
) -> Iterator[Store]:
    from bot.knowledge.store import Store

    with closing(Store(settings.folder, base or _agent(), create=create, writing=writing or create)) as store:
        yield store


def _agent() -> str:
    """The base of the agent who answers has its name."""
    return read_settings().agent


def _encoder(settings: KnowledgeSettings) -> Encoder | None:
    from bot.knowledge.knowledge import load_encoder

    return load_encoder(settings.encoder)


def _passages(count: int) -> str:
    return "1 passage" if count == 1 else f"{count} passages"


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _say(text: str, style: str = "") -> None:
    Console().print(text, style=style, markup=False, highlight=False, soft_wrap=True)
