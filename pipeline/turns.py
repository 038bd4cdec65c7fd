"""Who has the floor: a pure state machine, events in, actions out.

No asyncio and no clock of its own: time is the caller's sample count (16 kHz), brought by the events.

A turn goes like this. The caller speaks and pauses: the answer is begun at once, in silence
(``Speculate``). If the pause lasts, the turn is over and the answer may sound (``Speak``). If the caller
goes on instead, the answer is thrown away (``Drop``) and the next one answers everything said in the turn.

A caller who speaks over an answer already heard is first yielded to without losing anything: the bot lowers
its voice (``Duck``), then holds still (``Hold``). If it was a cough or an "mm-hm", it goes on where it was
(``Resume``); if the caller keeps speaking, or speaks again soon, it was an interruption: the answer is over
(``Stop``), and what was said over it begins a new turn. How long it lasted leaves a word's meaning open, so
somebody who knows the sound of words may be asked (``Judge``), who need not be sure, or answer at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from pipeline.segmenter import RATE, SpeechStart, SpeechStop

CALM_MS = 100  # without voice, after which the bot raises its voice that it has only lowered
# Once it holds still it waits for half as long again as was spoken over it, within these bounds. Who cuts in
# pauses as well, and longer after more ("no, ... wait"); a cough is soon over.
PATIENCE, PATIENT_FROM_MS, PATIENT_TO_MS = 1.5, 200, 700

Span = tuple[int, int]
"""[from, to) in 16 kHz samples of the call's clock."""


@dataclass(frozen=True)
class TurnSettings:
    """When the floor changes hands."""

    end_ms: int = (
        360  # silence after which the caller's turn is over (the segmenter's stop_ms lies within it)
    )
    duck_ms: int = 20  # speech over the bot that lowers its voice
    hold_ms: int = 120  # that makes it hold still
    barge_in_ms: int = 800  # that stops it for good: back-channels ("mm-hm", "yeah, right") are shorter
    judge_ms: int = 0  # silence after speech that it holds still for, until its sound is judged; 0: never
    again_ms: int = 1200  # speech over the bot counts together with what was said over it so long before
    min_speech_ms: int = 140  # less than this in a whole turn is a noise, not a turn
    max_turn_ms: int = 30_000  # speech that leaves nobody a turn is answered after this: it may be a radio
    silence_ms: int = 0  # of both, after which the caller has fallen silent; 0: they may
    pre_roll_ms: int = 200  # audio kept before speech was noticed: soft onsets are noticed late
    tail_ms: int = 100  # audio kept after the last voiced sample: final consonants are unvoiced


# --- events -----------------------------------------------------------------------


@dataclass(frozen=True)
class Tick:
    """The caller's audio has come as far as ``now``; ``voiced``: its last 20 ms were speech."""

    now: int
    voiced: bool = False


@dataclass(frozen=True)
class Prompt:
    """Something other than the caller's voice wants an answer: the call's beginning, a tool's result."""


@dataclass(frozen=True)
class Heard:
    """The caller has heard the first whole group of ``turn``'s answer."""

    turn: int


@dataclass(frozen=True)
class Finished:
    """``turn``'s answer is over: played to its end, or there was nothing to play."""

    turn: int


@dataclass(frozen=True)
class Silence:
    """Somebody else silences the bot: the page, an operator."""


@dataclass(frozen=True)
class Reset:
    """Whatever was being said or made is void: the engine's session is gone."""


@dataclass(frozen=True)
class Judged:
    """What was said over ``turn``'s answer, by its sound: no more than a back-channel, or a barge-in."""

    turn: int
    meaning: Literal["back-channel", "barge-in", "open"]


Event = SpeechStart | SpeechStop | Tick | Prompt | Heard | Finished | Silence | Judged | Reset

# --- actions ----------------------------------------------------------------------


@dataclass(frozen=True)
class Speculate:
    """Begin to make the answer to ``spans`` (none: to a prompt), unheard."""

    turn: int
    spans: tuple[Span, ...]
    ended_at: int = 0  # the sample after the caller's last voiced one

    def after(self, earlier: Speculate) -> Speculate:
        """This and an earlier question that stayed unanswered, as one; without spans of its own, that one."""
        spans = list(earlier.spans)
        for start, end in self.spans:
            if start <= spans[-1][1]:  # their margins touch
                spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
            else:
                spans.append((start, end))
        return Speculate(self.turn, tuple(spans), self.ended_at if self.spans else earlier.ended_at)


@dataclass(frozen=True)
class Speak:
    """The turn is over: let its answer be heard, what is made of it and what comes."""

    turn: int


@dataclass(frozen=True)
class Drop:
    """The caller goes on: the answer never was."""

    turn: int


@dataclass(frozen=True)
class Stop:
    """The caller cuts in: silence the answer and keep what was heard of it."""

    turn: int


@dataclass(frozen=True)
class Duck:
    """The caller may be cutting in: lower the answer's voice."""

    turn: int


@dataclass(frozen=True)
class Hold:
    """The caller seems to cut in: hold the answer where it is."""

    turn: int


@dataclass(frozen=True)
class Resume:
    """The caller did not cut in: the answer goes on where it was, at full volume."""

    turn: int


@dataclass(frozen=True)
class Judge:
    """Say what the sound of ``span`` means, which was said over the answer (``Judged``)."""

    turn: int
    span: Span


@dataclass(frozen=True)
class FallenSilent:
    """Nobody has spoken for ``silence_ms``: for the ``times``-th time since the caller last did."""

    times: int


Action = Speculate | Speak | Drop | Stop | Duck | Hold | Resume | Judge | FallenSilent

# --- the machine ------------------------------------------------------------------


@dataclass
class _Answer:
    turn: int
    to_voice: bool  # answers the caller's speech, not a prompt
    may_speak: bool = False
    heard: bool = False
    yields: type[Duck] | type[Hold] | None = None  # how far it has given way

    @property
    def takes_barge_in(self) -> bool:
        """Whether speech over it must be long enough to mean it; others yield to any speech at once."""
        return self.heard or not self.to_voice


@dataclass
class Turns:
    """The state of the floor. ``handle`` is the only way in."""

    settings: TurnSettings = field(default_factory=TurnSettings)
    _next: int = 0
    _answer: _Answer | None = None
    _voice_from: int | None = None  # where the speech going on began
    _voice_end: int = 0
    _spans: list[Span] = field(default_factory=list)  # the turn's speech so far, unpadded
    _over: list[Span] = field(default_factory=list)  # speech over the answer that has not stopped it
    _voiced_at: int = 0  # the last tick with voice
    _silent_at: int = 0  # and without
    _judged_at: int = -1  # the last voice that was judged with what came before it
    _quiet_from: int = 0  # since when nobody has had the floor
    _silences: int = 0  # since the caller last spoke

    @property
    def answering(self) -> int | None:
        """The turn whose answer is being made or heard."""
        return self._answer.turn if self._answer else None

    @property
    def idle(self) -> bool:
        """Nobody has the floor."""
        return self._answer is None and self._voice_from is None and not self._spans

    def handle(self, event: Event) -> list[Action]:
        """Take one event and say what must be done, in order."""
        match event:
            case SpeechStart(at, now):
                return self._speech_start(at, now)
            case SpeechStop(at, now):
                return self._speech_stop(at, now)
            case Tick(now, voiced):
                return self._tick(now, voiced)
            case Prompt():
                return self._prompt()
            case Heard(turn):
                if self._answer and self._answer.turn == turn and not self._answer.heard:
                    self._answer.heard = True
                    self._spans.clear()
            case Finished(turn):
                if self._answer and self._answer.turn == turn:
                    self._answer = None
                    # What was said over its end was not to stop it, unless the caller goes on.
                    self._spans, self._over = self._over if self._voice_from is not None else [], []
            case Silence():
                if self._answer and self._answer.may_speak:
                    self._over.clear()
                    return self._stop()
            case Judged(turn, meaning):
                return self._judged(turn, meaning)
            case _:  # Reset
                self._answer = None
                self._spans, self._over = [], []
        return []

    def _speech_start(self, at: int, now: int) -> list[Action]:
        self._voice_from = at
        self._silences = 0
        if self._over and at - self._over[-1][1] > _samples(self.settings.again_ms):
            self._over.clear()
        if self._answer and not self._answer.takes_barge_in:
            turn, self._answer = self._answer.turn, None
            return [Drop(turn)]
        return self._tick(now, voiced=True)

    def _speech_stop(self, at: int, now: int) -> list[Action]:
        if self._voice_from is None:  # the longest turn was cut off before the speech was
            return []
        begun, self._voice_from = self._voice_from, None
        if self._answer:  # too short to be a barge-in: the answer goes on
            if at > begun:
                self._over.append((begun, at))
            return []
        self._spans.append((begun, at))
        self._voice_end = at
        if length(self._spans) < _samples(self.settings.min_speech_ms):
            return []
        return [self._begin(tuple(self._padded(now)), ended_at=at)]

    def _tick(self, now: int, voiced: bool) -> list[Action]:
        if voiced:
            self._voiced_at = now
        else:
            self._silent_at = now
        if not self.idle:
            self._quiet_from = now
        elif self.settings.silence_ms and now - self._quiet_from >= _samples(self.settings.silence_ms):
            self._quiet_from = now
            self._silences += 1
            return [FallenSilent(self._silences)]
        if self._answer and self._answer.takes_barge_in:
            return self._spoken_over(now, voiced)
        if self._voice_from is not None:
            whole = now - self._voice_from + length(self._spans)
            if self._answer is None and whole >= _samples(self.settings.max_turn_ms):
                actions = self._speech_stop(now, now)
                return actions + self._let_speak()
        elif not voiced and now - self._voice_end >= _samples(self.settings.end_ms):
            # (A voiced frame here may be the first of more speech: the next frames will tell.)
            if self._answer and not self._answer.may_speak:
                return self._let_speak()
            if not self._answer:
                self._spans.clear()  # a noise, and nothing came after it
        return []

    def _spoken_over(self, now: int, voiced: bool) -> list[Action]:
        """An answer is being heard: give way to the caller as far as they seem to want it."""
        assert self._answer is not None
        settings = self.settings
        if voiced and self._voice_from is not None:
            # The silence in which a segment is still open is no part of what must last.
            lasted = now - self._voice_from + length(self._over)
            if lasted >= _samples(settings.barge_in_ms):
                return self._stop()
            if lasted >= _samples(settings.hold_ms):
                return self._give_way(Hold)
        if voiced:
            # (Voice that has long gone on and is no segment is what nobody was left a turn for.)
            begins = _samples(settings.duck_ms) <= now - self._silent_at < _samples(settings.hold_ms)
            return self._give_way(Duck) if begins or self._voice_from is not None else []
        calm = _samples(CALM_MS) if self._answer.yields is Duck else self._patience()
        if now - self._voiced_at >= calm:
            return self._resume()
        return self._ask(now) if self._answer.yields is Hold else []

    def _ask(self, now: int) -> list[Action]:
        """Have what the answer holds still for judged, once in each pause."""
        assert self._answer is not None
        judge = _samples(self.settings.judge_ms)
        if self._voice_from is None or self._judged_at == self._voiced_at:
            return []
        if not judge or now - self._voiced_at < judge:
            return []
        self._judged_at = self._voiced_at
        return [Judge(self._answer.turn, (self._voice_from, self._voiced_at))]

    def _judged(self, turn: int, meaning: str) -> list[Action]:
        current = self._answer is not None and self._answer.turn == turn and self._answer.yields is Hold
        if not current or self._voiced_at != self._judged_at:  # too late: they have gone on
            return []
        if meaning == "barge-in":
            return self._stop()
        if meaning == "back-channel":
            # It does not count together with what is said next.
            self._over.clear()
            if self._voice_from is not None:
                self._voice_from = self._voiced_at
            return self._resume()
        return []

    def _patience(self) -> int:
        """Samples of silence after which an answer held still goes on."""
        going_on = 0 if self._voice_from is None else self._voiced_at - self._voice_from
        lasted = int(PATIENCE * (length(self._over) + going_on))
        return min(max(lasted, _samples(PATIENT_FROM_MS)), _samples(PATIENT_TO_MS))

    def _give_way(self, how: type[Duck] | type[Hold]) -> list[Action]:
        assert self._answer is not None
        if self._answer.yields in (how, Hold):
            return []
        self._answer.yields = how
        return [how(self._answer.turn)]

    def _resume(self) -> list[Action]:
        assert self._answer is not None
        if self._answer.yields is None:
            return []
        self._answer.yields = None
        return [Resume(self._answer.turn)]

    def _prompt(self) -> list[Action]:
        if not self.idle:
            return []  # the caller's speech goes first, and its answer sees the same history
        begin = self._begin((), ended_at=0)
        return [begin, *self._let_speak()]

    def _begin(self, spans: tuple[Span, ...], ended_at: int) -> Speculate:
        self._answer = _Answer(self._next, to_voice=bool(spans))
        self._over.clear()
        self._next += 1
        return Speculate(self._answer.turn, spans, ended_at)

    def _let_speak(self) -> list[Action]:
        assert self._answer is not None
        self._answer.may_speak = True
        return [Speak(self._answer.turn)]

    def _stop(self) -> list[Action]:
        assert self._answer is not None
        turn, self._answer = self._answer.turn, None
        self._spans, self._over = self._over, []  # what was said over it is the beginning of a turn
        return [Stop(turn)]

    def _padded(self, now: int) -> list[Span]:
        """The turn's spans with their margins; spans that then touch become one."""
        padded: list[Span] = []
        for start, end in self._spans:
            start = max(0, start - _samples(self.settings.pre_roll_ms))
            end = min(now, end + _samples(self.settings.tail_ms))
            if padded and start <= padded[-1][1]:
                padded[-1] = (padded[-1][0], end)
            else:
                padded.append((start, end))
        return padded


def length(spans: Iterable[Span]) -> int:
    """Samples in all of them."""
    return sum(end - start for start, end in spans)


def _samples(ms: int) -> int:
    return RATE * ms // 1000
