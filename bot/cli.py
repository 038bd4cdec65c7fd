"""The command line: ``parley``.

What goes wrong is said in a sentence, never in a traceback. Commands import what they need when they run, so
that ``parley --help`` answers at once.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from bot import agent_commands, kept_calls, train_commands
from bot import settings as conf
from bot.console import errors, fail, read_settings
from bot.knowledge import commands as knowledge
from bot.tools import commands as tools
from bot.voices import commands as voices

if TYPE_CHECKING:
    from bot.talk import PlacedCall

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="A self-hosted voice bot that answers real calls with one end-to-end speech model.",
)
app.add_typer(agent_commands.app, name="agents")
app.add_typer(kept_calls.app, name="calls")
app.add_typer(voices.app, name="voices")
app.add_typer(tools.app, name="tools")
app.add_typer(knowledge.app, name="knowledge")
app.add_typer(train_commands.app, name="train")


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes any free one.")] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Speech model: a folder, or hf://owner/name.")
    ] = None,
    agent: Annotated[str | None, typer.Option(help="Who answers.")] = None,
    log_level: Annotated[str | None, typer.Option(help="TRACE, DEBUG, INFO, WARNING or ERROR.")] = None,
) -> None:
    """Start Parley: the page, the calls, the speech model. Options override PARLEY_* settings."""
    settings = read_settings(host=host, port=port, checkpoint=checkpoint, agent=agent, log_level=log_level)
    from bot import log  # before anything that logs as it is imported

    log.set_up(settings.log_level)
    from bot.agents import AgentError
    from bot.serve import CannotServe
    from bot.serve import serve as run

    try:
        run(settings)
    except (AgentError, CannotServe, conf.BadSettings) as error:
        fail(str(error))


@app.command()
def talk(
    wav: Annotated[list[Path], typer.Option(help="A question, any audio file. Repeat it for several turns.")],
    out: Annotated[Path | None, typer.Option(help="Write the bot's side here, as a WAV file.")] = None,
    url: Annotated[
        str, typer.Option(help="The Parley to call; one of its agents: .../a/NAME.")
    ] = "http://127.0.0.1:8080",
    key: Annotated[
        str, typer.Option(envvar="PARLEY_KEY", help="The key, if the agent wants one.", show_envvar=True)
    ] = "",
    stereo: Annotated[bool, typer.Option(help="Write both sides: the caller left, the bot right.")] = False,
    greeting: Annotated[bool, typer.Option(help="Hear the greeting out before the first question.")] = True,
    wait: Annotated[float, typer.Option(help="Without greeting: seconds before the first question.")] = 0.5,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Call Parley as a browser would, ask what is in WAV files, and measure the answers on the recording."""
    from bot import log

    log.set_up("ERROR")
    from bot.talk import CallFailed, place_call, read_wav
    from bot.waveform import write_wav

    try:
        questions = [read_wav(path) for path in wav]
        with errors.status("calling", spinner="dots") as status:
            record = asyncio.run(
                place_call(
                    url,
                    questions,
                    key=key,
                    greeting=greeting,
                    wait_s=wait,
                    on_turn=lambda what: status.update(what),
                )
            )
    except CallFailed as error:
        fail(str(error))
    if out is not None:
        try:
            write_wav(out, [record.caller, record.bot] if stereo else [record.bot], record.rate)
        except OSError as error:
            fail(f"{out}: cannot be written: {error.strerror}.")
    if as_json:
        sys.stdout.write(json.dumps(_as_json(wav, record), indent=2) + "\n")
    else:
        _print_call(wav, record, out)
    if any(turn.voice_to_voice_ms is None for turn in record.turns):
        raise typer.Exit(1)


@app.command()
def call(
    uri: Annotated[
        str, typer.Argument(help="Whom to call: sip:USER@HOST, with :PORT and ;transport=tcp if need be.")
    ],
    agent: Annotated[str | None, typer.Option(help="Who calls.")] = None,
    header: Annotated[
        list[str], typer.Option(metavar="X-NAME=VALUE", help="A header of the INVITE. May be repeated.")
    ] = [],  # noqa: B006 - Typer copies it
    variable: Annotated[
        list[str],
        typer.Option(metavar="NAME=VALUE", help="What the agent's {{NAME}} stands for. May be repeated."),
    ] = [],  # noqa: B006
) -> None:
    """Call somebody by phone, and be on the line until they hang up.

    PARLEY_SIP__DESTINATIONS and the agent's may_call say whom.
    """
    settings = read_settings(agent=agent)
    from bot import log

    log.set_up(settings.log_level if settings.log_level in ("TRACE", "DEBUG") else "WARNING")
    from bot.agents import AgentError
    from bot.ingress.sip.destinations import NotCallable
    from bot.ingress.sip.outbound import CannotCall
    from bot.serve import place

    try:
        with errors.status("calling", spinner="dots") as status:
            end = place(
                settings, uri, status.update, _pairs("--header", header), _pairs("--variable", variable)
            )
    except (AgentError, NotCallable, CannotCall, conf.BadSettings) as error:
        fail(str(error))
    if end is None:
        Console().print("a machine answered, and was hung up on", style="dim", highlight=False)
        return
    for line in end.conversation.messages():
        who = "bot" if line["role"] == "assistant" else "they"
        Console().print(f"{who}: {line['content']}", markup=False, highlight=False)
    Console().print(f"{end.reason} after {end.seconds:.0f} s", style="dim", highlight=False)


@app.command()
def check() -> None:
    """Say what is fine and what is not: device, checkpoint, ports, Redis, versions."""
    from bot import log

    log.set_up("ERROR")
    from bot.check import look

    ok = True
    table = Table(box=None, pad_edge=False, show_header=False)
    marks = {"ok": "[green]fine[/]", "note": "[yellow]note[/]", "bad": "[bold red]not fine[/]"}
    with errors.status("looking", spinner="dots") as status:
        for finding in look(read_settings(), status.update):
            ok = ok and finding.state != "bad"
            table.add_row(marks[finding.state], f"[bold]{finding.what}[/]", finding.said)
    Console().print(table)
    raise typer.Exit(0 if ok else 1)


@app.command()
def settings(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the README's table of defaults.")
    ] = False,
) -> None:
    """Print every setting: its environment variable, what it is now, what it does."""
    if markdown:
        sys.stdout.write(conf.markdown())
        return
    table = Table(Column("Setting", no_wrap=True), Column("Now", overflow="fold"), "What it does")
    for row in conf.rows(read_settings()):
        now = f"[bold]{row.value}[/]" if row.value != row.default else row.value
        table.add_row(row.variable, now, row.description.replace("`", "").replace("[", r"\["))
    Console().print(table)
    Console().print("Set them in the environment or in a .env file. [bold]Bold[/]: not the default.")


def main() -> None:
    """The ``parley`` command."""
    try:
        app()
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _pairs(option: str, given: list[str]) -> dict[str, str]:
    """``NAME=VALUE`` of an option that may be repeated."""
    for pair in given:
        if "=" not in pair:
            fail(f"{option} {pair!r} should be NAME=VALUE.")
    return dict(pair.split("=", 1) for pair in given)


def _as_json(wav: list[Path], record: PlacedCall) -> dict[str, object]:
    return {
        "model": {key: record.info.get(key, "") for key in ("checkpoint", "label", "voice", "agent")},
        "setup_ms": round(record.setup_s * 1000),
        "greeting": record.greeting,
        "turns": [
            {
                "wav": str(path),
                "question": turn.question,
                "answer": turn.answer,
                "voice_to_voice_ms": None
                if turn.voice_to_voice_ms is None
                else round(turn.voice_to_voice_ms),
                "reported_ms": turn.reported_ms,
                "asked_from_s": round(turn.asked_from_s, 3),
                "asked_to_s": round(turn.asked_to_s, 3),
                "answered_from_s": None if turn.answered_from_s is None else round(turn.answered_from_s, 3),
                "answered_to_s": None if turn.answered_to_s is None else round(turn.answered_to_s, 3),
            }
            for path, turn in zip(wav, record.turns, strict=True)
        ],
    }


def _print_call(wav: list[Path], record: PlacedCall, out: Path | None) -> None:
    console = Console()

    def line(text: str, style: str = "") -> None:
        console.print(text, style=style, markup=False, highlight=False)

    label = record.info.get("label", "")
    line(f"{record.info.get('checkpoint', '?')}{f' ({label})' if label else ''}", "dim")
    if record.greeting:
        line(f"bot: {record.greeting}")
    for path, turn in zip(wav, record.turns, strict=True):
        line(f"you: {turn.question or path.name}")
        if turn.voice_to_voice_ms is None:
            line("bot: (no answer)", "bold red")
            continue
        line(f"bot: {turn.answer or '(speech without captions)'}", "bold")
        line(f"     {turn.voice_to_voice_ms:.0f} ms voice to voice", "dim")
    if out is not None:
        line(f"recorded in {out}", "dim")


if __name__ == "__main__":
    main()
