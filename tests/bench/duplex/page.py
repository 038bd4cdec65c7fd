"""The scenes of ``tests.bench.duplex`` as one page, with nothing to load."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tests.bench.duplex.drawing import decisions, drawing, spoken_by_bot, spoken_by_caller
from tests.bench.duplex.figures import PAUSES
from tests.bench.duplex.reading import Seen
from tests.bench.duplex.scenes import HOLDING, YIELDING
from tests.bench.report import Goal

STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --text: #1c2330; --soft: #5d6778;
  --line: #dfe3ea; --caller: #2f6fc4; --bot: #c8721b; --good: #177a45; --bad: #c1272d;
  --dip: #e3c565; --duck: #c99700; --hold: #c1272d; --over: #2f6fc41c; --gone: #5d677838 }
@media (prefers-color-scheme: dark) { :root { --page: #12151b; --card: #1b2028; --text: #e6eaf1;
  --soft: #98a3b5; --line: #2c333f; --caller: #6ea8f0; --bot: #f0a04b; --good: #4cc38a; --bad: #ff7b72;
  --dip: #7d6a2a; --duck: #d1a52c; --hold: #ff7b72; --over: #6ea8f026; --gone: #98a3b540 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--text); font: 15px/1.5 system-ui, sans-serif }
main { max-width: 84rem; margin: 0 auto; padding: 2rem 1.25rem 4rem }
h1 { font-size: 1.7rem; margin: 0 } h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem }
h2 small { color: var(--soft); font-weight: 400; font-size: .9rem; margin-left: .5rem }
p { max-width: 60rem; color: var(--soft); margin: .4rem 0 1.2rem }
.tables { display: flex; flex-wrap: wrap; gap: 1.25rem; align-items: start }
table { background: var(--card); border: 1px solid var(--line); border-radius: 10px; overflow: hidden;
  border-spacing: 0; border-collapse: separate; font-size: .88rem }
th { color: var(--soft); font-weight: 500 } th, td { text-align: left; padding: .3rem .8rem }
td.n, th.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
tr + tr td { border-top: 1px solid var(--line) } td a { color: inherit }
.good { color: var(--good) } .bad { color: var(--bad); font-weight: 600 }
.broken { border: 2px solid var(--bad); border-radius: 10px; padding: .8rem 1.1rem; margin: 1.2rem 0 }
.broken strong { color: var(--bad) } .broken ul { margin: .3rem 0 0; padding-left: 1.2rem }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; font-size: .85rem; color: var(--soft);
  margin: 1.2rem 0 0 }
.legend i { display: inline-block; width: 14px; height: 10px; border-radius: 2px; margin-right: .4rem }
.legend i.bar { width: 3px; height: 14px; vertical-align: -2px }
figure { margin: 0 0 1rem; background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  border-left: 4px solid var(--good); padding: .7rem .9rem .5rem }
figure.wrong { border-left-color: var(--bad) }
figcaption { display: flex; flex-wrap: wrap; gap: .1rem .9rem; margin-bottom: .5rem }
figcaption b { font-weight: 600 } figcaption span { color: var(--soft) }
.scroll { overflow-x: auto } svg { display: block } svg svg { overflow: hidden }
svg text { font: 11px system-ui, sans-serif; fill: var(--text) }
svg .name, svg .tick { fill: var(--soft) } svg .tick { text-anchor: middle }
.grid { stroke: var(--line); stroke-dasharray: 2 4 }
.caller.wave { fill: var(--caller) } .bot.wave { fill: var(--bot) }
.caller .box { fill: color-mix(in srgb, var(--caller) 16%, var(--card)) }
.bot .box { fill: color-mix(in srgb, var(--bot) 16%, var(--card)) }
.cut { fill: var(--bad) } .withdrawn text { text-decoration: line-through; fill: var(--soft) }
.over { fill: var(--over) } .outage { fill: var(--gone) }
.mark { stroke-width: 2 } .lowered { stroke: var(--duck) } .silent { stroke: var(--bad) }
.back { stroke: var(--good) }
rect.dip { fill: var(--dip) } rect.duck { fill: var(--duck) } rect.hold { fill: var(--hold) }
.decision line { stroke: var(--soft); opacity: .55 }
.decision.opinion text { fill: var(--soft); font-style: italic }
.decision.stop text, .decision.drop text { fill: var(--bad); font-weight: 600 }
.decision.speak text, .decision.resume text { fill: var(--good); font-weight: 600 }
details { font-size: .85rem; color: var(--soft); margin: .2rem 0 .3rem } summary { cursor: pointer }
details table { margin-top: .4rem; border-radius: 6px } details td { padding: .1rem .8rem }
"""
LEGEND = (
    ("bar", "duck", "voice lowered"),
    ("bar", "bad", "silent"),
    ("bar", "good", "back"),
    ("", "over", "said over the bot"),
    ("", "gone", "nothing of the caller arrived"),
    ("", "dip", "bot told to dip"),
    ("", "duck", "... to duck"),
    ("", "hold", "... to hold still"),
)


def page(seen: Sequence[Seen], goals: Sequence[Goal]) -> str:
    """HTML: the goals, the kinds, and every scene."""
    kinds = list(dict.fromkeys(one.kind for one in seen))
    legend = "".join(
        f'<span><i class="{shape}" style="background: var(--{colour})"></i>{words}</span>'
        for shape, colour, words in LEGEND
    )
    scenes = "".join(_kind(kind, [one for one in seen if one.kind == kind]) for kind in kinds)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Who has the floor</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style><main><h1>Who has the floor</h1><p>Real calls, both sides on one time axis: "
        "the caller above, the bot below. What is measured is read from the waveforms (upright bars); words "
        "and decisions are what the bot told meanwhile, at the moment they reached the caller. "
        "The bot's words are those that were heard.</p>"
        f'{_broken(seen)}<div class="tables">{_goals(goals)}{_overview(kinds, seen)}</div>'
        f'<div class="legend">{legend}</div>{scenes}</main></html>\n'
    )


def as_wanted(one: Seen) -> bool:
    """Whether it went as its kind should."""
    if not one.answered:
        return False
    if one.kind in (*YIELDING, "one word", "echo interruption"):
        return one.yielded
    if one.kind in (*HOLDING, "echo"):
        return not one.yielded
    return not one.taken_over if one.kind in PAUSES else one.voice_to_voice_ms is not None


def outcome(one: Seen) -> str:
    """What became of it, in words."""
    if one.failed:
        return f"could not be played: {one.failed}"
    said = ["taken over"] * one.taken_over + ["not answered"] * one.unanswered
    if one.voice_to_voice_ms is not None:
        said.append(f"answered after {one.voice_to_voice_ms:.0f} ms")
    if one.later_ms is not None:
        said.append(f"{one.later_ms:+.0f} ms against before")
    if one.over_s is not None:
        said.append("it stopped" if one.yielded else "it went on")
        times = (("lowered", one.lowered_ms), ("silent", one.silent_ms), ("back", one.back_ms))
        said += [f"{name} after {ms:.0f} ms" for name, ms in times if ms is not None]
        said += [f"{one.missing_ms:.0f} ms missing"] * (one.missing_ms > 40)
    elif one.kind == "echo":
        said.append("it stopped" if one.yielded else "it went on")
    return ", ".join(said)


def _broken(seen: Sequence[Seen]) -> str:
    failed = [one for one in seen if one.failed]
    if not failed:
        return ""
    rows = "".join(f"<li>{escape(f'{one.kind} {one.name}: {one.failed}')}</li>" for one in failed)
    return (
        f'<div class="broken"><strong>{len(failed)} of {len(seen)} scenes could not be played</strong> '
        f"and are in none of the figures:<ul>{rows}</ul></div>"
    )


def _goals(goals: Sequence[Goal]) -> str:
    rows = "".join(
        f'<tr><td class="{"good" if goal.met else "bad"}">{"✓" if goal.met else "✗"}</td>'
        f'<td>{escape(goal.name)}</td><td class="n">{goal.value:g} {goal.unit}</td>'
        f'<td class="n">{goal.goal:g}</td></tr>'
        for goal in goals
    )
    return (
        f'<table><tr><th></th><th>goal</th><th class="n">is</th><th class="n">at most</th></tr>{rows}</table>'
    )


def _overview(kinds: Sequence[str], seen: Sequence[Seen]) -> str:
    rows = ""
    for kind in kinds:
        these = [one for one in seen if one.kind == kind]
        good = sum(map(as_wanted, these))
        mark = "good" if good == len(these) else "bad"
        rows += (
            f'<tr><td><a href="#{_anchor(kind)}">{escape(kind)}</a></td>'
            f'<td class="n {mark}">{good} of {len(these)}</td></tr>'
        )
    return f'<table><tr><th>scenes</th><th class="n">as wanted</th></tr>{rows}</table>'


def _kind(kind: str, seen: Sequence[Seen]) -> str:
    good = sum(map(as_wanted, seen))
    return (
        f'<h2 id="{_anchor(kind)}">{escape(kind)}<small>{good} of {len(seen)} as wanted</small></h2>'
        + "".join(map(_scene, seen))
    )


def _anchor(kind: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in kind)


def _scene(one: Seen) -> str:
    mark = "" if as_wanted(one) else ' class="wrong"'
    caption = f"<figcaption><b>{escape(one.name)}</b><span>{escape(outcome(one))}</span></figcaption>"
    if one.caller is None or one.bot is None:
        return f"<figure{mark}>{caption}</figure>"
    return f'<figure{mark}>{caption}<div class="scroll">{drawing(one)}</div>{_log(one)}</figure>'


def _log(one: Seen) -> str:
    """The same as a list: nothing in it is shortened."""
    entries = [(words.start_s, "caller", words.text) for words in spoken_by_caller(one)]
    entries += [
        (words.start_s, "bot", f"{words.text} ({words.ended})" if words.ended else words.text)
        for words in spoken_by_bot(one.told or [])
    ]
    entries += [(label.at_s, "decided", label.text) for label in decisions(one.told or [])]
    entries += [(at, "notice", text) for at, kind, _, text in one.told or [] if kind == "notice"]
    rows = "".join(
        f'<tr><td class="n">{at:.2f} s</td><td>{who}</td><td>{escape(what)}</td></tr>'
        for at, who, what in sorted(entries)
    )
    return f"<details><summary>all that was said and decided</summary><table>{rows}</table></details>"
