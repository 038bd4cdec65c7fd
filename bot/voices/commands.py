"""``parley voices``: add, list, show, search, play and remove voices."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Column, Table

from bot.console import errors, fail, read_settings

if TYPE_CHECKING:
    from bot.voices.library import Library
    from model_runtime.library.entry import Entry

app = typer.Typer(
    no_args_is_help=True, help="The voices that calls can speak in: the checkpoint's, and your own."
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Lower-case letters, digits and dashes.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def add(
    name: Name,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="3 to 15 s of one person's clear speech, any audio format.")
    ],
    description: Annotated[str, typer.Option(help="What it sounds like, in words to find it by.")],
    consent: Annotated[str, typer.Option(help="Who agreed that this voice is used, and for what.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of a voice of that name.")
    ] = False,
) -> None:
    """Make a recording a voice that calls can speak in."""
    with _library("listening") as library:
        entry = library.add(name, file, description, consent, replace)
        unshared = library.share(entry.name)
    _say(f"{entry.name} is added: {_measured(entry)}.")
    if unshared:
        _say(f"Redis was not told of it, so other machines do not have it: {unshared}", "yellow")
    _say(f"An agent speaks in it with the line 'voice: {entry.name}' in its file.", "dim")


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List all voices."""
    with _library("looking") as library:
        entries = _all(library)
    if as_json:
        _print_json([_plain(entry) for entry in entries])
    else:
        _print_table(entries)


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Show all that is known of a voice."""
    with _library("looking") as library:
        entry = _named(_all(library), name)
    if as_json:
        _print_json(_plain(entry))
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for what, said in (
        ("name", entry.name),
        ("from", _origin(entry)),
        ("description", entry.description),
        ("measured", "" if entry.fault else _measured(entry)),
        ("consent", f"{entry.consent} ({entry.added})" if entry.consent else ""),
        ("prepared for", entry.checkpoint),
        ("licence", entry.licence),
        ("not usable", entry.fault),
    ):
        if said:
            table.add_row(f"[bold]{what}[/]", _escaped(said))
    Console().print(table)


@app.command()
def remove(name: Name) -> None:
    """Forget a voice of your own, here and in Redis. Calls that speak in it now go on to their end."""
    with _library("looking") as library:
        library.remove(name)
    _say(f"{name} is removed.")


@app.command()
def play(name: Name, out: Annotated[Path, typer.Option(help="Where to write it: a WAV file.")]) -> None:
    """Write how calls will hear a voice: the words of its recording, spoken by the checkpoint."""
    with _library("speaking") as library:
        library.render(name, out)
    _say(f"{name} speaks in {out}.")


@app.command()
def search(
    text: Annotated[str, typer.Argument(help='What it should sound like: "a deep, slow man".')] = "",
    like: Annotated[str, typer.Option(help="A voice that it should be like.", metavar="NAME")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many to show.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Find voices by words, by what was measured, and by likeness: search deeper --like slt."""
    from bot.voices.library import known
    from bot.voices.ranking import Ranking, UnknownVoice

    if not text.strip() and not like:
        fail("Say what to look for, or name a voice with --like.")
    with _library("looking") as library:
        entries = {entry.name: entry for entry in _all(library) if not entry.fault}
    try:
        hits = Ranking([known(entry) for entry in entries.values()]).search(text, like, limit)
    except UnknownVoice as error:
        fail(str(error))
    if as_json:
        _print_json(
            [_plain(entries[hit.name]) | {"score": round(hit.score, 3), "why": hit.why} for hit in hits]
        )
    else:
        _print_table([entries[hit.name] for hit in hits], [hit.score for hit in hits])


@contextmanager
def _library(doing: str) -> Iterator[Library]:
    """The library while something is done with it. What goes wrong ends the command."""
    from bot import log
    from bot.voices.library import Library, LibraryError

    log.set_up("ERROR")
    library = Library(read_settings())
    try:
        with errors.status(doing, spinner="dots"):
            yield library
    except LibraryError as error:
        fail(str(error))


def _all(library: Library) -> list[Entry]:
    """This machine's voices, and those that others have added; without a Redis to ask, only the first."""
    from bot.voices.library import LibraryError

    here = library.entries()
    names = {entry.name for entry in here}
    try:
        return [*here, *(entry for entry in library.shared() if entry.name not in names)]
    except LibraryError as error:
        errors.print(f"Voices of other machines are not shown: {error}", style="yellow", markup=False)
        return here


def _named(entries: Iterable[Entry], name: str) -> Entry:
    there = {entry.name: entry for entry in entries}
    if name not in there:
        fail(f"There is no voice {name!r}; there are: {', '.join(sorted(there))}.")
    return there[name]


def _print_table(entries: Iterable[Entry], scores: Iterable[float] = ()) -> None:
    """One line a voice; with ``scores``, one each, before it."""
    score = [Column("Score", justify="right")] if scores else []
    table = Table(
        *score,
        Column("Name", no_wrap=True),
        Column("Seconds", justify="right"),
        Column("Pitch", justify="right", no_wrap=True),
        "Description",
        Column("From", no_wrap=True),
        box=None,
        pad_edge=False,
    )
    for entry, mark in zip_longest(entries, scores):
        table.add_row(
            *([f"{mark:.2f}"] if score else []),
            _escaped(entry.name),
            f"{entry.seconds:.1f}" if entry.seconds else "",
            f"{entry.pitch_hz:.0f} Hz" if entry.pitch_hz else "",
            f"[yellow]not usable: {_escaped(entry.fault)}[/]" if entry.fault else _escaped(entry.description),
            _origin(entry),
        )
    Console().print(table)


def _plain(entry: Entry) -> dict[str, Any]:
    """For JSON: without the embedding, which only a program of ours can read."""
    return {key: value for key, value in msgspec.to_builtins(entry).items() if key != "speaker"}


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _measured(entry: Entry) -> str:
    pitch = f"pitch {entry.pitch_hz:.0f} Hz" if entry.pitch_hz else "no pitch found"
    return (
        f"{entry.seconds:.1f} s, {pitch}, brightness {entry.brightness_hz:.0f} Hz, "
        f"{entry.rate_hz:.1f} syllables a second"
    )


def _origin(entry: Entry) -> str:
    return {"checkpoint": "the checkpoint", "library": "yours", "shared": "another machine"}[entry.origin]


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


def _say(text: str, style: str = "") -> None:
    Console().print(text, style=style, markup=False, highlight=False, soft_wrap=True)
