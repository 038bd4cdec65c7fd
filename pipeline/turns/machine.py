"""The turn machine itself: whose turn it is, and what becomes of its answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.segmenter import SpeechStart, SpeechStop
from pipeline.turns.clock import Span, length, samples
from pipeline.turns.events import (
    Action,
    Drop,
    Event,
    FallenSilent,
    Finished,
    Heard,
    Judged,
    Opinion,
    Prompt,
    Silence,
    Sounds,
    Speak,
    Speculate,
    Stop,
    Tick,
)
from pipeline.turns.overlap import Overlap, Voice
from pipeline.turns.settings import TurnSettings


@dataclass
class _Answer:
    turn: int
    to_voice: bool  # answers the caller's speech, not a prompt
    over: Overlap  # what is said over it
    may_speak: bool = False
    heard: bool = False

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
    _voice: Voice = field(default_factory=Voice)
    _spans: list[Span] = field(default_factory=list)  # the turn's speech so far, unpadded
    _cut_in: bool = False  # it began over an answer, which it stopped
    _end_ms: int = field(init=False)  # of silence after what was said last: then the turn is over
    _quiet_from: int = 0  # since when nobody has had the floor
    _silences: int = 0  # since the caller last spoke

    def __post_init__(self) -> None:
        """As if something had been said before."""
        self._end_ms = self.settings.end_ms

    @property
    def answering(self) -> int | None:
        """The turn whose answer is being made or heard."""
        return self._answer.turn if self._answer else None

    @property
    def idle(self) -> bool:
        """Nobody has the floor."""
        return self._answer is None and self._voice.since is None and not self._spans

    def handle(self, event: Event) -> list[Action]:
        """Take one event and say what must be done, in order."""
        match event:
            case SpeechStart(at, now):
                return self._speech_start(at, now)
            case SpeechStop(at, now):
                return self._speech_stop(at, now)
            case Tick():
                return self._tick(event)
            case Prompt():
                return self._prompt()
            case Heard(turn):
                if self._answer and self._answer.turn == turn and not self._answer.heard:
                    self._answer.heard = True
                    self._spans.clear()
            case Finished(turn):
                if self._answer and self._answer.turn == turn:
                    # What was said over its end was not to stop it, unless the caller goes on.
                    self._spans = self._answer.over.spans if self._voice.since is not None else []
                    self._answer = None
            case Silence():
                if self._answer and self._answer.may_speak:
                    self._answer.over.spans.clear()
                    return self._over([Stop(self._answer.turn)])
            case Judged(turn, meaning):
                if self._answer and self._answer.turn == turn:
                    return self._over(self._answer.over.judged(meaning, self._voice))
            case Sounds(ended_at, opinion):
                if self._answer and not self._answer.may_speak and self._voice.ended == ended_at:
                    self._end_ms = self._patience(opinion)
            case _:  # Reset
                self._answer, self._spans, self._cut_in = None, [], False
        return []

    def _speech_start(self, at: int, now: int) -> list[Action]:
        self._voice.since = at
        self._silences = 0
        if self._answer and not self._answer.takes_barge_in:
            turn, self._answer = self._answer.turn, None
            return [Drop(turn)]
        if self._answer:
            self._answer.over.begins(at)
        return self._tick(Tick(now, voiced=True))

    def _speech_stop(self, at: int, now: int) -> list[Action]:
        begun, self._voice.since = self._voice.since, None
        if begun is None:  # the longest turn was cut off before the speech was
            return []
        if self._answer:  # too short to be a barge-in: the answer goes on
            if at > begun:
                self._answer.over.spans.append((begun, at))
            return []
        self._spans.append((begun, at))
        self._voice.ended = at
        self._end_ms = self._patience("open")
        if length(self._spans) < samples(self.settings.min_speech_ms):
            return []
        return [self._begin(tuple(self._padded(now)), ended_at=at)]

    def _tick(self, tick: Tick) -> list[Action]:
        voice, now = self._voice, tick.now
        if tick.voiced:
            voice.voiced_at = now
        else:
            voice.silent_at = now
        if not self.idle:
            self._quiet_from = now
        elif self.settings.silence_ms and now - self._quiet_from >= samples(self.settings.silence_ms):
            self._quiet_from = now
            self._silences += 1
            return [FallenSilent(self._silences)]
        if self._answer and self._answer.takes_barge_in:
            return self._over(self._answer.over.tick(tick, voice))
        if voice.since is not None:
            whole = now - voice.since + length(self._spans)
            if self._answer is None and whole >= samples(self.settings.max_turn_ms):
                actions = self._speech_stop(now, now)
                return actions + self._let_speak()
        elif not tick.voiced and now - voice.ended >= samples(self._end_ms):
            # (A voiced frame here may be the first of more speech: the next frames will tell.)
            if self._answer and not self._answer.may_speak:
                return self._let_speak()
            if not self._answer:
                self._spans.clear()  # a noise, and nothing came after it
                self._cut_in = False
        return []

    def _patience(self, opinion: Opinion) -> int:
        """Milliseconds of silence that end a turn that sounds so.

        Who has cut in with a word or two ("no, ...") mostly goes on after a breath, however final it sounded.
        """
        settings = self.settings
        if self._cut_in and length(self._spans) < samples(settings.barge_in_ms):
            opinion = "unfinished"
        match opinion:
            case "finished":
                return min(settings.finished_ms, settings.end_ms)
            case "unfinished":
                return max(settings.unfinished_ms, settings.end_ms)
            case _:
                return settings.end_ms

    def _over(self, actions: list[Action]) -> list[Action]:
        """What an overlap comes to. If it stops the answer, what was said over it begins a turn."""
        if self._answer and Stop(self._answer.turn) in actions:
            self._spans, self._answer = self._answer.over.spans, None
            self._cut_in = self._voice.since is not None
        return actions

    def _prompt(self) -> list[Action]:
        if not self.idle:
            return []  # the caller's speech goes first, and its answer sees the same history
        begin = self._begin((), ended_at=0)
        return [begin, *self._let_speak()]

    def _begin(self, spans: tuple[Span, ...], ended_at: int) -> Speculate:
        turn = self._next
        self._next += 1
        self._answer = _Answer(turn, to_voice=bool(spans), over=Overlap(turn, self.settings))
        return Speculate(turn, spans, ended_at)

    def _let_speak(self) -> list[Action]:
        assert self._answer is not None
        self._answer.may_speak = True
        self._cut_in = False
        return [Speak(self._answer.turn)]

    def _padded(self, now: int) -> list[Span]:
        """The turn's spans with their margins; spans that then touch become one."""
        padded: list[Span] = []
        for start, end in self._spans:
            start = max(0, start - samples(self.settings.pre_roll_ms))
            end = min(now, end + samples(self.settings.tail_ms))
            if padded and start <= padded[-1][1]:
                padded[-1] = (padded[-1][0], end)
            else:
                padded.append((start, end))
        return padded
