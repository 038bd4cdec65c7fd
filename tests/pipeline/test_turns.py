"""Who has the floor: every scene by hand, then what must hold of any of them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import get_args

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipeline.segmenter import SpeechStart, SpeechStop
from pipeline.turns import (
    CALM_MS,
    PATIENT_TO_MS,
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
    Turns,
    TurnSettings,
)
from tests.pipeline.floor import INTERRUPTED, SETTINGS, Floor, answered, at


def test_an_answer_is_begun_at_the_pause_and_heard_at_the_end() -> None:
    floor = Floor(ms=1000)
    assert floor.speak(1000) == []
    assert floor.silent(160) == [Speculate(0, ((at(800), at(2100)),), at(2000))]
    assert floor.turns.answering == 0
    assert floor.quiet(220) == []
    assert floor.quiet(20) == [Speak(0)]
    assert floor.quiet(2000) == []


def test_margins_stay_within_the_call() -> None:
    turns = Turns(TurnSettings(tail_ms=500))
    turns.handle(SpeechStart(at(100), at(160)))
    (begun,) = turns.handle(SpeechStop(at(500), at(660)))
    assert begun == Speculate(0, ((0, at(660)),), at(500))


def test_a_caller_who_goes_on_is_answered_once_and_whole() -> None:
    floor = Floor(ms=1000)
    floor.speak(1000)
    floor.silent(360)
    assert floor.speak(600) == [Drop(0)]
    assert floor.silent(160) == [Speculate(1, ((at(800), at(2100)), (at(2160), at(3060))), at(2960))]
    assert floor.quiet(400) == [Speak(1)]


def test_close_spans_become_one() -> None:
    floor = Floor(ms=1000)
    floor.speak(1000)
    floor.silent(240)
    floor.speak(600)
    (begun,) = floor.silent(160)
    assert begun == Speculate(1, ((at(800), at(2940)),), at(2840))


def test_a_noise_is_no_turn() -> None:
    floor = Floor(ms=1000)
    assert floor.speak(120) + floor.silent(600) == []
    assert floor.turns.idle


def test_noises_add_up_only_while_they_follow_each_other() -> None:
    floor = Floor(ms=1000)
    assert floor.speak(80) + floor.silent(200) == []
    floor.speak(80)
    assert [type(action) for action in floor.silent(160)] == [Speculate]
    floor = Floor(ms=1000)
    assert floor.speak(80) + floor.silent(600) + floor.speak(80) + floor.silent(600) == []


def test_a_noise_after_the_question_delays_the_answer_but_does_not_lose_it() -> None:
    floor = Floor(ms=1000)
    floor.speak(1000)
    floor.silent(300)
    assert floor.speak(60) == [Drop(0)]
    (begun,) = floor.silent(160)
    assert isinstance(begun, Speculate)
    assert begun.spans[0][0] == at(800)


def test_going_on_before_anything_was_heard_takes_the_answer_back() -> None:
    floor = Floor(ms=1000)
    answered(floor, heard=False)
    assert floor.speak(500) == [Drop(0)]
    (begun,) = floor.silent(160)
    assert isinstance(begun, Speculate)
    assert begun.spans[0][0] == at(800)


def test_speech_begun_over_the_bot_that_outlasts_it_is_a_turn() -> None:
    floor = Floor(ms=1000)
    answered(floor)
    floor.speak(100)
    assert floor.go(Finished(0)) == []
    assert [type(action) for action in floor.speak(300) + floor.silent(200)] == [Speculate]


def test_a_prompt_is_answered_at_once() -> None:
    floor = Floor()
    assert floor.go(Prompt()) == [Speculate(0, ()), Speak(0)]


def test_a_prompt_waits_for_the_floor() -> None:
    floor = Floor(ms=1000)
    floor.speak(100)
    assert floor.go(Prompt()) == []
    floor.silent(160)
    assert floor.go(Prompt()) == []
    floor.quiet(400)
    assert floor.go(Prompt()) != []


def test_a_greeting_is_not_stopped_by_a_noise_even_unheard() -> None:
    floor = Floor()
    floor.go(Prompt())
    assert floor.speak(100) + floor.silent(1400) == [Duck(0), Resume(0)]
    assert floor.speak(700) == INTERRUPTED


def test_somebody_else_can_silence_the_bot() -> None:
    floor = Floor(ms=1000)
    assert floor.go(Silence()) == []
    answered(floor)
    assert floor.go(Silence()) == [Stop(0)]


def test_silencing_does_not_reach_what_nobody_hears() -> None:
    floor = Floor(ms=1000)
    floor.speak(1000)
    floor.silent(160)
    assert floor.go(Silence()) == []
    assert floor.turns.answering == 0


def test_endless_speech_is_answered() -> None:
    floor = Floor(ms=1000)
    actions = floor.speak(5000)
    assert [type(action) for action in actions] == [Speculate, Speak]
    assert floor.silent(400) == []  # the stop that comes at last belongs to nothing


def test_speech_that_pauses_but_never_ends_is_answered_too() -> None:
    floor = Floor(ms=1000)
    actions: list[Action] = []
    for _ in range(5):
        actions += floor.speak(1000)
        actions += floor.silent(200)  # too short to be an end
    assert [type(action) for action in actions] == [Speculate, Drop] * 4 + [Speculate, Speak]


def test_a_lost_engine_voids_everything() -> None:
    floor = Floor(ms=1000)
    floor.speak(1000)
    floor.silent(160)
    assert floor.go(Reset()) == []
    assert floor.turns.idle
    assert floor.quiet(1000) == []


def test_news_of_another_turn_is_ignored() -> None:
    floor = Floor(ms=1000)
    answered(floor, heard=False)
    assert floor.go(Heard(7)) + floor.go(Finished(7)) == []
    assert floor.turns.answering == 0
    assert floor.go(Heard(0)) + floor.go(Heard(0)) == []


def test_a_caller_who_falls_silent_is_noticed_again_and_again_until_they_speak() -> None:
    floor = Floor(Turns(replace(SETTINGS, silence_ms=2000)), ms=1000)
    floor.speak(1000)
    assert floor.silent(500)[-1] == Speak(0)
    assert floor.quiet(5000) == []  # it is the bot's turn
    floor.go(Finished(0))
    assert floor.quiet(1980) == []
    assert floor.quiet(20) == [FallenSilent(1)]
    assert floor.quiet(2000) == [FallenSilent(2)]
    floor.speak(200)
    assert floor.silent(500)[-1] == Speak(1)
    floor.go(Finished(1))
    assert floor.quiet(2000) == [FallenSilent(1)]


class AnyCall(RuleBasedStateMachine):
    """Whatever happens, in whatever order: nobody is talked over, and no answer is lost track of."""

    def __init__(self) -> None:
        super().__init__()
        self.turns = Turns(replace(SETTINGS, judge_ms=80))
        self.now = 0
        self.judges: Judge | None = None  # has been asked for
        self.told: Meaning | None = None  # what is being told of that
        self.voice_from: int | None = None
        self.voice_end = -at(10_000)
        self.open: set[int] = set()  # begun, and neither dropped, stopped nor finished
        self.speaking: set[int] = set()
        self.last_turn = -1
        self.asked = 0  # samples of the newest answer's question
        self.endless = False
        self.yields = ""  # how far the bot has given way: "dipped", "lowered", "held"
        self.waits_ms = SETTINGS.end_ms  # at most, for a caller who has paused
        self.cut_in = False

    def go(self, event: Event) -> None:
        for action in self.turns.handle(event):
            match action:
                case Speculate(turn, spans):
                    assert turn > self.last_turn
                    assert not self.open
                    self.last_turn = turn
                    self.asked = sum(end - start for start, end in spans)
                    self.open.add(turn)
                    for (_, before), (after, _) in pairwise(spans):
                        assert before < after
                    for start, end in spans:
                        assert 0 <= start < end <= self.now
                case Speak(turn):
                    assert turn in self.open
                    assert turn not in self.speaking
                    self.speaking.add(turn)
                    self.cut_in = False
                    if self.voice_from is not None:  # only over what is endless, until that ends
                        self.endless = self.endless or self.asked >= at(5000)
                        assert self.endless
                case Drop(turn):
                    assert turn in self.open
                    self.close(turn)
                case Stop(turn):
                    assert turn in self.speaking
                    self.close(turn)
                    self.cut_in = True
                case Dip(turn):
                    assert turn in self.speaking
                    assert not self.yields
                    self.yields = "dipped"
                case Duck(turn):
                    assert turn in self.speaking
                    assert self.yields in ("", "dipped") or (self.yields == "held" and self.told)
                    self.yields = "lowered"
                case Hold(turn):
                    assert turn in self.speaking
                    assert self.yields != "held"
                    assert self.voice_from is not None
                    self.yields = "held"
                case Resume(turn):
                    assert turn in self.speaking
                    assert self.yields
                    self.yields = ""
                case Judge(turn, (start, end)):
                    assert turn in self.speaking
                    assert 0 <= start < end <= self.now
                    self.judges = action

    def close(self, turn: int) -> None:
        self.open.discard(turn)
        self.speaking.discard(turn)
        self.yields = ""

    @precondition(lambda self: self.voice_from is None)
    @rule()
    def begins(self) -> None:
        begun, self.now = self.now, self.now + at(60)
        self.voice_from, self.endless = begun, False
        self.go(SpeechStart(begun, self.now))

    @precondition(lambda self: self.voice_from is not None)
    @rule()
    def ends(self) -> None:
        self.voice_end, self.now = self.now, self.now + at(160)
        self.voice_from = None
        self.waits_ms = SETTINGS.unfinished_ms if self.cut_in else SETTINGS.end_ms
        self.go(SpeechStop(self.voice_end, self.now))

    @rule(frames=st.integers(1, 300))
    def time_passes(self, frames: int) -> None:
        for _ in range(frames):
            self.now += at(20)
            self.go(Tick(self.now, voiced=self.voice_from is not None))

    @rule(frames=st.integers(1, 100))
    def somebody_else_speaks(self, frames: int) -> None:
        for _ in range(frames):
            self.now += at(20)
            self.go(Tick(self.now, far=True))

    @rule()
    def something_begins(self) -> None:
        self.now += at(20)
        self.go(Tick(self.now, voiced=self.voice_from is not None, onset=True))

    @rule()
    def prompt(self) -> None:
        self.go(Prompt())

    @precondition(lambda self: self.speaking)
    @rule()
    def hears(self) -> None:
        self.go(Heard(next(iter(self.speaking))))

    @precondition(lambda self: self.speaking and self.yields != "held")
    @rule()
    def finishes(self) -> None:
        turn = next(iter(self.speaking))
        self.close(turn)
        self.go(Finished(turn))

    @precondition(lambda self: self.judges)
    @rule(meaning=st.sampled_from(get_args(Meaning)))
    def is_judged(self, meaning: Meaning) -> None:
        assert self.judges is not None
        judge, self.judges = self.judges, None
        self.told = meaning
        self.go(Judged(judge.turn, meaning))
        self.told = None

    @rule(opinion=st.sampled_from(get_args(Opinion)), late=st.booleans())
    def sounds(self, opinion: Opinion, late: bool) -> None:
        if opinion == "unfinished" and not late:
            self.waits_ms = SETTINGS.unfinished_ms
        self.go(Sounds(self.voice_end - late, opinion))

    @rule()
    def silenced(self) -> None:
        self.go(Silence())

    @rule()
    def lost(self) -> None:
        self.open.clear()
        self.speaking.clear()
        self.yields = ""
        self.go(Reset())

    @invariant()
    def the_machine_and_its_user_agree(self) -> None:
        assert self.open == ({self.turns.answering} if self.turns.answering is not None else set())

    @invariant()
    def nobody_is_given_way_to_who_is_silent(self) -> None:
        longest = at(PATIENT_TO_MS if self.yields == "held" else CALM_MS)
        if self.voice_from is None and self.now - self.voice_end > at(160) + longest:
            assert self.yields in ("", "dipped")

    @invariant()
    def silence_always_leads_somewhere(self) -> None:
        if self.voice_from is None and self.open - self.speaking:
            assert self.now - self.voice_end < at(self.waits_ms) + at(160)


TestAnyCall = AnyCall.TestCase
TestAnyCall.settings = hypothesis_settings(max_examples=150, stateful_step_count=40)
