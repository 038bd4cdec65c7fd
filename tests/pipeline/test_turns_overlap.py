"""The caller speaks while an answer is heard: how far the bot gives way, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace

from pipeline.segmenter import SpeechStart, SpeechStop
from pipeline.turns import Action, Dip, Duck, Finished, Heard, Hold, Resume, Speculate, Stop, Tick, Turns
from tests.pipeline.floor import INTERRUPTED, SETTINGS, Floor, answered, at


def test_the_bot_gives_way_to_speech_over_it_step_by_step() -> None:
    floor = Floor(ms=1000)
    answered(floor)
    assert floor.speak(20) == []
    assert floor.speak(20, begun=20) == [Duck(0)]
    assert floor.speak(140, begun=40) == []
    assert floor.speak(20, begun=180) == [Hold(0)]
    assert floor.speak(380, begun=200) == []
    assert floor.speak(20, begun=580) == [Stop(0)]
    assert floor.speak(400, begun=600) == []


def test_what_was_said_over_the_bot_is_a_turn_of_its_own() -> None:
    floor = Floor(ms=1000)
    answered(floor)
    assert floor.speak(700) == INTERRUPTED
    assert floor.silent(160) == [Speculate(1, ((at(2300), at(3300)),), at(3200))]


def test_a_back_channel_is_given_way_to_and_is_no_turn() -> None:
    floor = Floor(ms=1000)
    answered(floor)
    assert floor.speak(400) == [Duck(0), Hold(0)]
    assert floor.silent(580) == []
    assert floor.quiet(20) == [Resume(0)]
    assert floor.quiet(2000) == []
    assert floor.go(Finished(0)) == []
    assert floor.turns.idle


def test_the_bot_does_not_speak_into_the_pauses_of_who_cuts_in() -> None:
    floor = Floor(ms=1000)
    answered(floor)
    assert floor.speak(400) == [Duck(0), Hold(0)]  # "no, ..."
    assert floor.silent(400) == []
    assert floor.speak(200) == [Stop(0)]  # "wait"


def test_the_more_was_said_over_it_the_longer_the_bot_waits_within_bounds() -> None:
    for spoken, waits in ((200, 300), (400, 600), (560, 700)):
        floor = Floor(ms=1000)
        answered(floor)
        assert floor.speak(spoken) == [Duck(0), Hold(0)]
        assert floor.silent(waits - 20) == []
        assert floor.quiet(20) == [Resume(0)]


def test_a_noise_too_short_to_be_speech_lowers_the_voice_for_a_moment() -> None:
    floor = Floor(ms=1000)
    answered(floor)
    assert floor.speak(40) == [Duck(0)]
    assert floor.quiet(80) == []
    assert floor.quiet(20) == [Resume(0)]
    assert floor.quiet(500) == []


def test_back_channels_far_apart_never_add_up() -> None:
    floor = Floor(ms=1000)
    answered(floor)
    for _ in range(4):
        assert floor.speak(300) == [Duck(0), Hold(0)]
        assert floor.silent(460) == [Resume(0)]
        assert floor.quiet(1400) == []


def test_words_close_together_add_up_to_an_interruption_and_all_of_them_are_asked() -> None:
    floor = Floor(ms=1000)
    answered(floor)
    first = floor.ms
    floor.speak(400)
    assert floor.silent(600)[-1] == Resume(0)
    second = floor.ms
    assert floor.speak(60) == [Duck(0), Hold(0)]
    assert floor.speak(200, begun=60) == [Stop(0)]
    (begun,) = floor.silent(160)
    assert begun == Speculate(
        1, ((at(first - 200), at(first + 500)), (at(second - 200), at(second + 360))), at(second + 260)
    )


def test_the_end_of_an_answer_forgets_what_did_not_stop_it() -> None:
    floor = Floor(ms=1000)
    answered(floor)
    floor.speak(300)
    floor.silent(160)
    assert floor.go(Finished(0)) == []
    assert floor.turns.idle
    floor.speak(300)
    (begun,) = floor.silent(160)
    assert isinstance(begun, Speculate)
    assert len(begun.spans) == 1


def test_a_sentence_that_outlasts_the_answer_is_asked_from_its_beginning() -> None:
    floor = Floor(ms=1000)
    answered(floor)
    first = floor.ms
    floor.speak(300)
    floor.silent(240)
    floor.speak(100)
    assert floor.go(Finished(0)) == []
    floor.speak(300, begun=100)
    (begun,) = floor.silent(160)
    assert isinstance(begun, Speculate)
    assert begun.spans[0][0] == at(first - 200)


def test_a_cough_over_the_bot_is_nothing() -> None:
    floor = Floor(ms=1000)
    answered(floor)
    assert floor.speak(100) + floor.silent(600) == [Duck(0), Resume(0)]
    assert floor.turns.answering == 0
    assert floor.go(Finished(0)) == []
    assert floor.turns.idle


def test_silence_while_a_segment_is_still_open_does_not_stop_the_bot() -> None:
    floor = Floor(ms=1000)
    answered(floor)
    assert floor.go(SpeechStart(at(floor.ms - 60), at(floor.ms))) == [Duck(0)]
    assert floor.quiet(140) == [Resume(0)]


def test_a_radio_that_nobody_could_outwait_does_not_lower_the_answers_voice() -> None:
    floor = Floor(ms=1000)
    floor.speak(5000)
    assert floor.go(Heard(0)) == []
    assert floor.speak(1000, begun=5000) == []


def test_a_sound_that_begins_lowers_the_voice_a_little_until_it_is_known_what_it_is() -> None:
    floor = Floor(ms=1000)
    answered(floor)
    assert begins(floor) == [Dip(0)]
    assert floor.quiet(80) == []
    assert floor.quiet(20) == [Resume(0)]


def test_one_that_is_a_voice_lowers_it_more() -> None:
    floor = Floor(ms=1000)
    answered(floor)
    for _ in range(2):
        assert begins(floor) == [Dip(0)]  # again at once: the last one was a voice
        assert floor.speak(200) == [Duck(0), Hold(0)]
        assert begins(floor) == []  # it has given way already
        floor.silent(1000)
        floor.quiet(1400)


def test_sounds_that_are_no_voice_do_not_make_the_answers_voice_flutter() -> None:
    floor = Floor(ms=1000)
    answered(floor)
    assert begins(floor) == [Dip(0)]
    floor.quiet(200)
    for _ in range(4):
        assert begins(floor) == []
        assert floor.quiet(180) == []
    assert begins(floor) == [Dip(0)]  # a second later it may be somebody after all


def test_somebody_else_in_the_room_does_not_stop_the_bot() -> None:
    floor = Floor(ms=1000)
    answered(floor)
    begun = floor.ms
    assert floor.speak(220) == [Duck(0), Hold(0)]  # as soon as they are known to be far away...
    assert far(floor, 2000) == [Resume(0)]  # ... it goes on
    assert floor.silent(500) == []
    assert floor.go(SpeechStop(at(begun + 2220), at(floor.ms))) == []
    assert floor.turns.answering == 0


def test_somebody_elses_words_are_not_judged() -> None:
    floor = Floor(Turns(replace(SETTINGS, judge_ms=80)), ms=1000, midway="open")
    answered(floor)
    assert floor.speak(220) == [Duck(0), Hold(0)]
    assert far(floor, 160) == []
    assert floor.silent(40) == [Resume(0)]  # nor are they in the pause behind them


def test_a_caller_who_speaks_up_after_somebody_else_is_yielded_to() -> None:
    floor = Floor(ms=1000)
    answered(floor)
    floor.speak(80)
    far(floor, 1000)
    assert floor.speak(200, begun=1080) == [Duck(0), Hold(0)]
    assert floor.speak(340, begun=1280) == [Stop(0)]  # 600 ms of their own


def far(floor: Floor, ms: int) -> list[Action]:
    """Speech that goes on for so long, too quiet to be the caller's."""
    actions: list[Action] = []
    for _ in range(ms // 20):
        floor.ms += 20
        actions += floor.go(Tick(at(floor.ms), far=True))
    return actions


def begins(floor: Floor) -> list[Action]:
    """Something, in the next 20 ms."""
    floor.ms += 20
    return floor.go(Tick(at(floor.ms), onset=True))
