"""``parley calls``: what is kept of calls, for whoever runs Parley: list them, read one, forget some."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Column, Table

from bot.console import errors, fail, read_settings
from bot.settings import BadSettings, Settings

if TYPE_CHECKING:
    from pipeline.conversation import Exchange
    from pipeline.memory.archive import Archive, Kept

app = typer.Typer(no_args_is_help=True, help="What is kept of calls: list it, read it, have it forgotten.")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="As 'parley calls list' prints it.")]
T = TypeVar("T")

LIST_WIDTH = 120  # columns: an ID that is cut short would be of no use
LOOK_AGAIN_S = 1.0  # whether a call that is to be forgotten is over
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@app.command("list")
def list_(
    as_json: AsJson = False,
    limit: Annotated[int, typer.Option(min=1, help="How many to show, the latest first.")] = 100,
) -> None:
    """List calls: who called, who answered, when, how long, how many turns, how it ended."""
    nothing: list[Kept] = []
    kept = _asked(read_settings(), "looking", lambda archive: archive.calls(), nothing)
    kept.sort(key=lambda call: (call.facts.get("began", ""), call.call_id), reverse=True)
    shown = kept[:limit]
    if as_json:
        _print_json([_plain(call) for call in shown])
        return
    if not kept:
        _say("Nothing is kept of any call.")
        return
    _print_table(shown)
    if len(kept) > limit:
        _say(f"{len(kept) - limit} earlier ones are not shown: --limit.", "dim")


@app.command()
def show(call_id: Id, as_json: AsJson = False) -> None:
    """Show what is kept of a call: the words, and of the bot's only those that the caller heard."""
    call = _asked(read_settings(), "looking", lambda archive: archive.call(call_id), None)
    if call is None:
        fail(_no_call(call_id))
    if as_json:
        exchanges = call.conversation.exchanges
        turns = [asdict(exchange) | {"heard_s": _heard_s(exchange)} for exchange in exchanges]
        _print_json(_plain(call) | {"facts": call.facts, "conversation": turns})
        return
    length = _length_s(call)
    table = Table(box=None, pad_edge=False, show_header=False)
    for what, said in (
        ("call", call.call_id),
        (
            "to" if _ours(call) else "from",
            " by ".join(filter(None, (call.facts.get("caller"), call.facts.get("ingress")))),
        ),
        (
            "called by" if _ours(call) else "answered by",
            " on ".join(filter(None, (call.facts.get("agent"), call.facts.get("checkpoint")))),
        ),
        ("began", _when(call)),
        ("length", "" if length is None else _clock(length)),
        ("state", _state(call)),
        ("kept for", "ever" if call.expires_s is None else f"{_clock(call.expires_s)} more (h:mm:ss)"),
        ("for the model", f"{call.entries} entries of token ids and encoded speech" if call.entries else ""),
        ("not readable", call.fault),
        ("set aside", "something under its name that could not be read" if call.set_aside else ""),
    ):
        if said:
            table.add_row(f"[bold]{what}[/]", _escaped(said))
    Console().print(table)
    for exchange in call.conversation.exchanges:
        _print_exchange(exchange)


@app.command()
def forget(
    call_id: Annotated[str, typer.Argument(metavar="ID", help="One call.")] = "",
    caller: Annotated[
        str, typer.Option(metavar="WHO", help="All calls of a caller: a SIP URI, or the user in it.")
    ] = "",
    before: Annotated[str, typer.Option(metavar="AGE", help="All that ended so long ago: 30d, 12h.")] = "",
    when_over: Annotated[
        bool, typer.Option("--when-over", help="Wait for the end of calls that are on the line.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Erase all that is kept of a call, of a caller's calls, or of old ones; not while they go on."""
    if sum(map(bool, (call_id, caller, before))) != 1:
        fail("Say what to forget: a call's ID, --caller WHO or --before AGE, and one of them only.")
    if caller.strip().lower() == "browser":
        fail(
            "Whoever calls from the page is 'browser', so that would be everybody: find the call by its time "
            "with 'parley calls list', and name its ID."
        )
    chosen = _Choice(call_id, caller, _seconds(before) if before else None)
    settings = read_settings()
    own = not settings.redis.url.get_secret_value()
    done = _asked(settings, "erasing", lambda archive: _forget(archive, chosen, when_over, own), _Forgotten())
    if call_id and not done.erased and not done.on_the_line:
        fail(_no_call(call_id))
    if as_json:
        _print_json(
            {
                "erased": [_plain(call) for call in done.erased],
                "on_the_line": [call.call_id for call in done.on_the_line],
                "unknown": [call.call_id for call in done.unknown],
                "callers": done.callers,
                "disk_tidied": done.disk_tidied if own else None,
            }
        )
    else:
        _print_forgotten(done, own)
    if done.on_the_line:
        ids = ", ".join(call.call_id for call in done.on_the_line)
        fail(f"On the line now, and so not erased: {ids}. --when-over waits for the end.")


@dataclass(frozen=True)
class _Choice:
    """Which calls to forget: one, a caller's, or those older than so many seconds."""

    call_id: str
    caller: str
    age_s: float | None

    def holds(self, call: Kept) -> bool | None:
        """Whether it is one of them; ``None``: what is kept does not say."""
        from pipeline.memory.callers import is_caller

        if self.caller:
            stored = call.facts.get("caller")
            return None if stored is None else is_caller(self.caller, stored)
        if self.age_s is None:
            return call.call_id == self.call_id
        at = _time(call.facts.get("ended")) or _time(call.facts.get("began"))
        return None if at is None else (datetime.now(UTC) - at).total_seconds() > self.age_s


@dataclass
class _Forgotten:
    """What became of it. ``unknown``: those of which it is not known whether they were meant."""

    erased: list[Kept] = field(default_factory=list)
    on_the_line: list[Kept] = field(default_factory=list)
    unknown: list[Kept] = field(default_factory=list)
    callers: int = 0  # of whom something was remembered beyond their calls
    disk_tidied: bool = True


async def _forget(archive: Archive, chosen: _Choice, when_over: bool, own: bool) -> _Forgotten:
    from pipeline.memory.archive import OnTheLine

    done = _Forgotten()
    if chosen.call_id:
        one = await archive.call(chosen.call_id)
        found = [one] if one else []
        # What a process may still have to write is kept from coming back, though nothing is there.
        if one is None:
            await archive.forget(chosen.call_id)
    else:
        found = await archive.calls()
    for call in sorted(found, key=lambda call: call.live):  # the wait comes last
        match chosen.holds(call):
            case None:
                done.unknown.append(call)
            case True:
                try:
                    while not await _gone(archive, call.call_id, when_over):
                        await asyncio.sleep(LOOK_AGAIN_S)
                        call = await archive.call(call.call_id) or call
                    done.erased.append(call)
                except OnTheLine:
                    done.on_the_line.append(call)
    if chosen.caller:  # last: a call that has just ended may have left something
        done.callers = await archive.callers.forget(chosen.caller)
    if own:  # even if nothing was erased now: an earlier try may have been broken off before this
        done.disk_tidied = await archive.tidy_disk()
    return done


async def _gone(archive: Archive, call_id: str, wait: bool) -> bool:
    """Whether the call is erased; False if it is to be waited for. Raises ``OnTheLine``."""
    from pipeline.memory.archive import OnTheLine

    try:
        await archive.forget(call_id)
    except OnTheLine:
        if not wait:
            raise
        return False
    return True


def _asked(settings: Settings, doing: str, ask: Callable[[Archive], Awaitable[T]], nothing: T) -> T:
    """What is asked of the archive; ``nothing`` where nothing was ever kept. Faults end the command."""
    from bot import log

    log.set_up("ERROR")
    from bot.archive import archive
    from pipeline.memory import MemoryUnavailable, RedisImpossible
    from pipeline.memory.client import in_words

    async def run() -> T:
        async with archive(settings) as opened:
            return nothing if opened is None else await ask(opened)

    try:
        with errors.status(doing, spinner="dots"):
            return asyncio.run(run())
    except (RedisImpossible, BadSettings) as error:
        fail(str(error))
    except MemoryUnavailable as error:
        fail(in_words(error))


def _seconds(age: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", age.strip())
    if not found:
        fail(f"{age!r} is no age: 30d, 12h, 90m or 45s.")
    return float(found[1]) * UNITS_S[found[2]]


def _no_call(call_id: str) -> str:
    return f"Nothing is kept of a call {call_id!r}. 'parley calls list' says what there is."


def _time(fact: str | None) -> datetime | None:
    try:
        at = datetime.fromisoformat(fact or "")
    except ValueError:
        return None
    return at if at.tzinfo else None


def _length_s(call: Kept) -> float | None:
    """Seconds from its beginning to its end, or to now; ``None``: not known."""
    began, ended = _time(call.facts.get("began")), _time(call.facts.get("ended"))
    if ended is None and call.live:
        ended = datetime.now(UTC)
    return None if began is None or ended is None else (ended - began).total_seconds()


def _state(call: Kept) -> str:
    if call.live:
        return "on the line"
    return call.facts.get("end") or ("broke off" if "began" in call.facts else "")


def _when(call: Kept) -> str:
    began = _time(call.facts.get("began"))
    return began.astimezone().strftime("%Y-%m-%d %H:%M:%S") if began else ""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _heard_s(exchange: Exchange) -> float:
    from model_runtime.protocol import GROUP_MS

    return exchange.heard_groups * GROUP_MS / 1000


def _ours(call: Kept) -> bool:
    """Whether we called: then the caller is the one who was called."""
    return call.facts.get("ingress") == "sip-outbound"


def _plain(call: Kept) -> dict[str, Any]:
    """For JSON: what the list says of a call."""
    known = {
        name: call.facts.get(name, "") for name in ("caller", "ingress", "agent", "began", "ended", "end")
    }
    return {
        "id": call.call_id,
        **known,
        "length_s": _length_s(call),
        "turns": len(call.conversation.exchanges),
        "history_entries": call.entries,
        "on_the_line": call.live,
        "expires_s": call.expires_s,
        "set_aside": call.set_aside,
        "fault": call.fault,
    }


def _print_table(calls: Sequence[Kept]) -> None:
    table = Table(
        Column("Began", no_wrap=True),
        Column("Caller", overflow="fold"),
        "Agent",
        Column("Length", justify="right", no_wrap=True),
        Column("Turns", justify="right", no_wrap=True),
        "State",
        Column("ID", no_wrap=True),
        box=None,
        pad_edge=False,
    )
    for call in calls:
        length = _length_s(call)
        table.add_row(
            _when(call),
            _escaped(("to " if _ours(call) else "") + call.facts.get("caller", "")),
            _escaped(call.facts.get("agent", "")),
            "" if length is None else _clock(length),
            str(len(call.conversation.exchanges)),
            f"[yellow]{_escaped(call.fault)}[/]" if call.fault else _escaped(_state(call)),
            _escaped(call.call_id),
        )
    console = Console()
    console.width = max(console.width, LIST_WIDTH)
    console.print(table)


def _print_exchange(exchange: Exchange) -> None:
    if exchange.spoken or exchange.caller is not None:
        _say(f"caller: {'(speech, not transcribed)' if exchange.caller is None else exchange.caller}")
    if exchange.bot:
        _say(f"   bot: {exchange.bot}", "bold")
    if exchange.sources:
        _say(f"        (from {'; '.join(exchange.sources)})", "dim")
    if exchange.interrupted:
        seconds = _heard_s(exchange)
        heard = f"interrupted after {seconds:.1f} s" if seconds else "nothing was heard"
        _say(f"        ({heard}; what came after is not kept)", "dim")


def _print_forgotten(done: _Forgotten, own: bool) -> None:
    for call in done.erased:
        parts = [
            f"{len(call.conversation.exchanges)} turns" if call.conversation.exchanges else "",
            f"{call.entries} entries of the model's history" if call.entries else "",
            "what was set aside" if call.set_aside else "",
            "what could not be read" if call.fault else "",
        ]
        whose = " of ".join(filter(None, (_when(call), call.facts.get("caller"))))
        said = ", ".join(filter(None, parts)) or "its facts"
        _say(f"Erased {call.call_id}{f' ({whose})' if whose else ''}: {said}.")
    if done.callers:
        _say("Erased the voice that they had chosen.")
    if not done.erased and not done.on_the_line and not done.callers:
        _say("There is nothing to erase.")
    if done.unknown:
        ids = ", ".join(call.call_id for call in done.unknown)
        _say(f"Not erased, since what is kept does not say whose or how old it is: {ids}.", "yellow")
    if (done.erased or done.callers) and not own:
        _say("What your Redis or its backups wrote to disk holds it until it is written anew.", "dim")
    if not done.disk_tidied:
        _say("It stands in Parley's file on disk until that is written anew, within an hour.", "yellow")


def _print_json(value: object) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _escaped(text: str) -> str:
    return _printable(text).replace("[", r"\[")


def _printable(text: str) -> str:
    """Callers' words, without what a terminal would obey."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


def _say(text: str, style: str = "") -> None:
    Console().print(_printable(text), style=style, markup=False, highlight=False, soft_wrap=True)
