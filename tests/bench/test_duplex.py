"""What the bench of turn taking plays and reads: its own scenes, lines and recordings."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest

from bot.headset import RATE
from bot.waveform import Pcm
from pipeline.turns import Hold, Speak
from tests.bench.duplex.drawing import Label, decisions, rows, spoken_by_bot, stretches
from tests.bench.duplex.figures import summary
from tests.bench.duplex.line import BadLine, Line
from tests.bench.duplex.page import page
from tests.bench.duplex.reading import ANSWER_S, Seen, Told, look, look_after
from tests.bench.duplex.scenes import KINDS, Echo, Scene, scenes
from tests.bench.duplex.sounds import SPEECH, cough, silence
from tests.bench.duplex.virtual import play, settings

ASKED = (RATE // 2, RATE)
BEGUN_S = 1.4  # when the answer begins


def tone(seconds: float, level: float = 0.25) -> Pcm:
    return (level * np.sin(2 * np.pi * 300 * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def seen(over_s: tuple[float, float] | None, *bot: Pcm, kind: str = "back-channel") -> Seen:
    """A recording: a question, the bot's voice from 1.4 s on, and what was said over it."""
    answer = np.concatenate([silence(round(BEGUN_S * 1000)), *bot, silence(2000)])
    said = np.zeros(len(answer), np.float32)
    spans = [ASKED] + ([(round(over_s[0] * RATE), round(over_s[1] * RATE))] if over_s else [])
    for start, end in spans:
        said[start:end] = 0.3
    scene = Scene(kind, "", lambda: said)
    return look(scene, said, answer, ASKED, spans[1] if over_s else None, toned=True)


def test_an_answer_that_gave_way_and_went_on_is_read_to_ten_milliseconds() -> None:
    voice = tone(ANSWER_S)
    first, low, rest = np.split(voice, [round(1.06 * RATE), round(1.2 * RATE)])
    found = seen((BEGUN_S + 1.0, BEGUN_S + 1.4), first, low * np.float32(0.5), silence(400), rest)
    assert found.lowered_ms == pytest.approx(60, abs=10)
    assert found.silent_ms == pytest.approx(200, abs=10)
    assert found.back_ms == pytest.approx(200, abs=10)
    assert found.dimmed_ms == pytest.approx(540, abs=20)
    assert found.missing_ms == pytest.approx(0, abs=20)
    assert not found.yielded


def test_what_is_missing_of_an_answer_is_seen() -> None:
    voice = tone(ANSWER_S)
    found = seen((BEGUN_S + 1.0, BEGUN_S + 1.4), voice[:RATE], silence(300), voice[round(1.3 * RATE) :])
    assert found.missing_ms == pytest.approx(300, abs=20)


def test_an_answer_given_up_is_followed_by_another() -> None:
    over = (BEGUN_S + 1.0, BEGUN_S + 2.0)
    found = seen(over, tone(1.2), silence(1300), tone(ANSWER_S), kind="interruption")
    assert found.yielded
    assert found.silent_ms == pytest.approx(200, abs=10)
    assert found.answered_ms == pytest.approx(500, abs=10)


def test_a_bot_that_speaks_in_a_pause_has_taken_over() -> None:
    answer = np.concatenate([silence(800), tone(1.0)])
    said = np.concatenate([silence(500), np.full(RATE // 2, 0.3, np.float32), silence(800)])
    assert look(Scene("pause", "", lambda: said), said, answer, ASKED, None, toned=True).taken_over


def test_figures_carry_the_names_of_others() -> None:
    over = (BEGUN_S + 1.0, BEGUN_S + 2.0)
    stopped = seen(over, tone(1.2), silence(1300), tone(ANSWER_S), kind="interruption")
    metrics, goals = summary([stopped, seen(over, tone(ANSWER_S)), seen(None, tone(1.0), kind="turn end")])
    assert metrics["full_duplex_bench_v1"]["user_interruption"]["TOR"] == 1
    assert metrics["tau_voice"]["selectivity"]["backchannel"] == 1
    assert metrics["tau_voice"]["L_R_ms"]["p50"] == pytest.approx(400, abs=10)
    met = {goal.name: goal.met for goal in goals}
    assert met["interruptions not yielded to"]
    assert "pause taken over" not in met  # nothing was played of it


def answered_after(*ms: int) -> tuple[Pcm, Pcm, list[tuple[int, int]]]:
    """Both sides of a call in which the same is asked again and again, and where; 0: without an answer."""
    asked = [(n * 4 * RATE + RATE // 2, n * 4 * RATE + RATE) for n in range(len(ms))]
    said = silence(4000 * len(ms))
    bot = said.copy()
    for (start, end), late in zip(asked, ms, strict=True):
        said[start:end] = 0.3
        if late:
            bot[end + late * RATE // 1000 :][:RATE] = tone(1.0)
    return said, bot, asked


def test_a_bot_that_never_answers_is_none_that_failed() -> None:
    said, bot, (asked,) = answered_after(0)
    scenes_of = (
        Scene("turn end", "", lambda: said),
        Scene("interruption", "", lambda: said, lambda: said),
        Scene("back-channel", "", lambda: said, lambda: said),
    )
    never = [look(scene, said, bot, asked, None, toned=True) for scene in scenes_of]
    assert [one.unanswered for one in never] == [True] * 3
    metrics, goals = summary([*never, seen(None, tone(1.0), kind="turn end")])
    assert metrics["full_duplex_bench_v1"]["smooth_turn_taking"]["TOR"] == 0.5
    assert metrics["full_duplex_bench_v1"]["user_interruption"]["TOR"] == 0
    assert metrics["tau_voice"]["R_R"] == 0.5
    assert metrics["kinds"]["turn end"]["unanswered"] == 1
    told = {goal.name: goal for goal in goals}
    assert told["ends of turns not taken"].value == 50
    assert told["questions not answered"].value == 75
    assert told["scenes that failed"].met
    assert "back-channels that stopped it" not in told  # there was nothing to stop


def test_a_scene_that_could_not_be_played_is_in_no_figure_and_told_of() -> None:
    broken = Seen("turn end", "one", failed="CallFailed: No connection came about.")
    metrics, goals = summary([broken, seen(None, tone(1.0), kind="turn end")])
    assert metrics["kinds"]["turn end"]["scenes"] == 1
    assert metrics["tau_voice"]["R_R"] == 1
    assert not next(goal for goal in goals if goal.name == "scenes that failed").met
    assert "1 of 1 scenes could not be played" in page([broken], goals)


def test_a_question_asked_over_and_done_with_is_not_answered_by_a_late_voice() -> None:
    """Nothing was said over it, since nothing sounded in time: who answers then answers nobody."""
    said, bot, (asked,) = answered_after(1800)
    found = look(Scene("interruption", "", lambda: said, lambda: said), said, bot, asked, None, toned=True)
    assert found.unanswered
    assert not found.answered


@pytest.mark.parametrize(("after", "met"), [(460, True), (700, False)])
def test_what_an_outage_leaves_behind_is_read_against_the_same_question(after: int, met: bool) -> None:
    said, bot, (before, again) = answered_after(400, after)
    gone = (3 * RATE, 3 * RATE + 2 * RATE // 5)
    found = look_after(Scene("outage", "", lambda: said), said, bot, before, gone, again)
    assert found.later_ms == pytest.approx(after - 400, abs=2)
    assert found.outage_s == (3.0, 3.4)
    metrics, goals = summary([found])
    assert metrics["kinds"]["outage"]["later_ms"]["p95"] == pytest.approx(after - 400, abs=2)
    told = {goal.name: goal.met for goal in goals}
    assert told["answer after an outage later than before it, p95"] == met


def test_an_outage_after_which_nobody_answers_is_seen() -> None:
    said, bot, (before, again) = answered_after(400, 0)
    found = look_after(Scene("outage", "", lambda: said), said, bot, before, (0, 1), again)
    assert found.unanswered
    assert not {goal.name: goal.met for goal in summary([found])[1]}["questions not answered"]


def test_a_caller_over_an_echo_must_be_yielded_to() -> None:
    over = (BEGUN_S + 1.0, BEGUN_S + 2.0)
    gave_up = seen(over, tone(1.2), silence(1300), tone(ANSWER_S), kind="echo interruption")
    went_on = seen(over, tone(ANSWER_S), kind="echo interruption")
    metrics, goals = summary([gave_up, went_on])
    assert metrics["tau_voice"]["R_Y"] == 0.5
    told = {goal.name: goal.value for goal in goals}
    assert told["interruptions over an echo not yielded to"] == 50


def test_an_echo_among_what_was_said_does_not_move_where_it_was_said() -> None:
    answer = np.concatenate([silence(round(BEGUN_S * 1000)), tone(1.2), silence(1300), tone(ANSWER_S)])
    said = np.roll(answer, RATE // 5) * np.float32(0.3)  # from beginning to end it comes back
    span = (round(2.4 * RATE), round(3.4 * RATE))
    said[slice(*span)] += 0.3
    scene = Scene("echo interruption", "", lambda: said, lambda: said, echo=Echo(200, -10))
    found = look(scene, said, answer, ASKED, span, toned=True)
    assert found.over_s == pytest.approx((2.4, 3.4), abs=0.02)
    assert found.silent_ms == pytest.approx(200, abs=20)


TOLD: list[Told] = [
    (0.5, "decided", 0, "speculate"),
    (0.6, "decided", 0, "speak"),
    (0.9, "bot-text", 0, "Delivery takes"),
    (1.2, "bot-text", 0, " two"),
    (1.21, "decided", 0, "duck"),
    (1.3, "decided", 0, "barge-in"),
    (1.34, "decided", 0, "barge-in"),
    (1.35, "decided", 0, "hold"),
    (1.4, "decided", 0, "stop"),
    (1.41, "interrupted", 0, ""),
]


def test_what_the_bot_told_is_read_from_its_messages() -> None:
    (words,) = spoken_by_bot(TOLD)
    assert (words.text, words.ended) == ("Delivery takes two", "interrupted")
    assert (words.start_s, words.end_s) == pytest.approx((0.74, 1.2))
    labels = decisions(TOLD)
    assert [label.what for label in labels] == ["speculate", "speak", "duck", "barge-in", "hold", "stop"]
    assert labels[3].text == "words ×2"
    assert list(stretches(TOLD, 5.0)) == [("duck", 1.21, 1.35), ("hold", 1.35, 1.4)]


def test_no_label_lies_on_another() -> None:
    """What is close together goes down like stairs, so that every line to above is free."""
    assert rows([Label(0.0, "duck"), Label(0.05, "hold"), Label(0.1, "stop"), Label(9.0, "speak")]) == [
        2, 1, 0, 0,
    ]  # fmt: skip


def test_the_page_has_words_and_decisions_of_every_call() -> None:
    over = (BEGUN_S + 1.0, BEGUN_S + 2.0)
    found = seen(over, tone(1.2), silence(1300), tone(ANSWER_S), kind="interruption")
    said = [(0.5, 1.0, "Is <this> it?"), (*over, "No, wait.")]
    told = [*TOLD, (5.0, "notice", -1, "The engine stopped.")]
    found = replace(found, caller=[0.1, 0.2] * 300, bot=[0.2, 0.1] * 300, said=said, told=told)
    drawn = page([found], summary([found])[1])
    for text in ("Is &lt;this&gt; it?", "No, wait.", "Delivery takes", "holds still", "words ×2", "stops"):
        assert drawn.count(text) >= 2, text  # drawn, and told in the list
    assert "The engine stopped." in drawn


async def test_a_line_that_is_cut_loses_all_for_a_while() -> None:
    line = BadLine(Line(), random.Random(1))
    sent: list[bytes] = []

    class Transport:
        async def _send_rtp(self, data: bytes) -> None:
            sent.append(data)

    class Sender:
        transport = Transport()

    class Peer:
        def getSenders(self) -> list[Sender]:  # noqa: N802  as W3C has it
            return [Sender()]

    line.install(Peer())  # type: ignore[arg-type] # of a peer it asks no more than this
    speech, report = b"\x80\x6f" + bytes(10), b"\x80\xc8" + bytes(10)
    line.lose_all(60)
    for packet in (speech, report):
        await Sender.transport._send_rtp(packet)
    line.lose_all(-1)
    await Sender.transport._send_rtp(speech)
    await asyncio.gather(*line._under_way)
    assert sent == [report, speech]  # what is no sound gets through


def test_scenes_are_the_same_from_the_same_seed() -> None:
    def told(seed: int) -> list[tuple[str, str, float, int]]:
        return [(scene.kind, scene.name, scene.after_s, scene.seed) for scene in scenes(3, seed, "tuning")]

    assert told(1) == told(1) != told(2)
    assert [kind for kind, *_ in told(1)] == [*KINDS] * 3


def test_nothing_is_tuned_on_what_the_figures_are_of() -> None:
    tuning, figures = SPEECH["tuning"], SPEECH["figures"]
    for name in (
        "voices", "questions", "turns", "halves", "back_channels", "commands", "few_words", "interruptions",
        "background",
    ):  # fmt: skip
        assert not set(getattr(tuning, name)) & set(getattr(figures, name)), name
    assert not np.array_equal(cough(random.Random(1)), cough(random.Random(2)))


@pytest.mark.parametrize(("loss", "burst"), [(0.05, 1.0), (0.2, 1.0), (0.1, 4.0)])
def test_a_bad_line_loses_what_it_says(loss: float, burst: float) -> None:
    line = BadLine(Line(loss=loss, burst=burst), random.Random(1))
    lost = [line._lost() for _ in range(50_000)]
    assert np.mean(lost) == pytest.approx(loss, rel=0.1)
    runs = [len(list(run)) for gone, run in groupby(lost) if gone]
    assert np.mean(runs) == pytest.approx(burst if burst > 1 else 1 / (1 - loss), rel=0.1)


async def test_jitter_keeps_the_order_and_reordering_does_not() -> None:
    late = BadLine(Line(jitter_ms=100), random.Random(1))
    now = asyncio.get_running_loop().time()
    arrivals = [now + late._delay() for _ in range(200)]  # all sent at once, so to say
    assert arrivals == pytest.approx(sorted(arrivals), abs=0.005)
    assert 0.05 < arrivals[-1] - now < 0.11
    overtaken = BadLine(Line(overtaken=0.1), random.Random(1))
    assert np.mean([overtaken._delay() > 0.02 for _ in range(2000)]) == pytest.approx(0.1, rel=0.25)


@pytest.fixture
def told() -> Callable[[str], Callable[[bytes], dict[str, float]]]:
    """A judge who is sure that all is of one kind."""

    def of(kind: str) -> Callable[[bytes], dict[str, float]]:
        return lambda _: {name: float(name == kind) for name in ("back-channel", "words", "noise")}

    return of


def buzz(seconds: float) -> Pcm:
    """Something that webrtcvad takes for a voice: a pulse train through two formants."""
    time = np.arange(round(seconds * RATE)) / RATE
    sound = np.zeros(len(time))
    for hertz in range(120, 3000, 120):
        gain = np.exp(-(((hertz - 600) / 300) ** 2)) + 0.3 * np.exp(-(((hertz - 1800) / 300) ** 2))
        sound += gain * np.sin(2 * np.pi * hertz * time)
    buzzing: Pcm = (0.4 * sound / np.abs(sound).max()).astype(np.float32)
    return buzzing


def over(seconds: float) -> Scene:
    return Scene("one word", "", lambda: buzz(1.2), lambda: buzz(seconds), 1.0, seed=4)


async def test_a_virtual_call_shows_a_word_that_stops_the_bot(
    told: Callable[[str], Callable[[bytes], dict[str, float]]],
) -> None:
    """Its silence is heard some 60 ms after it was decided, and another answer follows."""
    seen, decided = await play(over(0.4), settings(), told("words"))
    held = next(one.at for one in decided if isinstance(one.action, Hold)) / 16
    assert seen.yielded
    assert seen.lowered_ms == pytest.approx(50, abs=30)
    assert seen.silent_ms == pytest.approx(held + 55, abs=35)
    assert any(isinstance(one.action, Speak) for one in decided)


async def test_a_virtual_call_loses_nothing_to_a_back_channel(
    told: Callable[[str], Callable[[bytes], dict[str, float]]],
) -> None:
    seen, _ = await play(over(0.4), settings(), told("back-channel"))
    assert not seen.yielded
    assert seen.missing_ms <= 20
    assert seen.silent_ms is None  # it was known while it was said
    assert seen.back_ms == 0


async def test_a_virtual_call_is_the_same_every_time() -> None:
    first, again = [await play(over(0.3), settings(False), None, hiss_db=-50.0) for _ in range(2)]
    assert first == again
