"""Who has the floor: a pure state machine, events in, actions out.

No asyncio and no clock of its own: time is the caller's sample count (16 kHz), brought by the events.

A turn goes like this. The caller speaks and pauses: the answer is begun at once, in silence
(``Speculate``). If the pause lasts, the turn is over and the answer may sound (``Speak``). If the caller
goes on instead, the answer is thrown away (``Drop``) and the next one answers everything said in the turn.
How long it has to last may be changed by whoever tells by the sound whether they have finished (``Sounds``),
and who has cut in with a word or two is left time to go on.

A caller who speaks over an answer already heard is first yielded to without losing anything: at the first
sound the bot lowers its voice a little (``Dip``), more if it is a voice (``Duck``), then holds still
(``Hold``). If it was a cough or an "mm-hm", it goes on where it was
(``Resume``); if the caller keeps speaking, or speaks again soon, it was an interruption: the answer is over
(``Stop``), and what was said over it begins a new turn. How long it lasted leaves a word's meaning open, so
somebody who knows the sound of words may be asked (``Judge``), who need not be sure, or answer at all.
"""

from __future__ import annotations

from pipeline.turns.clock import Span, length
from pipeline.turns.events import (
    Action,
    Dip,
    Drop,
    Duck,
    Event,
    FallenSilent,
    Finished,
    Heard,
    Hold,
    Judge,
    Judged,
    Meaning,
    Opinion,
    Prompt,
    Reset,
    Resume,
    Silence,
    Sounds,
    Speak,
    Speculate,
    Stop,
    Tick,
)
from pipeline.turns.machine import Turns
from pipeline.turns.overlap import CALM_MS, PATIENT_TO_MS
from pipeline.turns.settings import TurnSettings

__all__ = [
    "CALM_MS",
    "PATIENT_TO_MS",
    "Action",
    "Dip",
    "Drop",
    "Duck",
    "Event",
    "FallenSilent",
    "Finished",
    "Heard",
    "Hold",
    "Judge",
    "Judged",
    "Meaning",
    "Opinion",
    "Prompt",
    "Reset",
    "Resume",
    "Silence",
    "Sounds",
    "Span",
    "Speak",
    "Speculate",
    "Stop",
    "Tick",
    "TurnSettings",
    "Turns",
    "length",
]
