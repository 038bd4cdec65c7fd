"""A person with a browser calls Parley: real Chromium, real WebRTC, real speech in and out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from playwright.sync_api import Page, expect

from bot.waveform import Pcm, first_loud, last_loud
from model_runtime.training.judge import nearest, recognise
from tests.e2e.browser import LONG_S, RATE, Recording, browser_page, hear, speak, take_recording
from tests.e2e.measure import utterances
from tests.e2e.server import Server
from tests.e2e.shop import ANSWERS, GREETING, QUESTIONS
from tests.e2e.speakers import VOICES, say
from tests.e2e.standstill import steadily

pytestmark = pytest.mark.e2e

QUIET_S = 1.2  # within an answer there are shorter pauses only


@contextmanager
def calling(server: Server) -> Iterator[Page]:
    """Press Call, and hear the greeting out; hang up at the end."""
    with browser_page(server.url) as page:
        page.get_by_role("button", name="Call", exact=True).click()
        hear(page, quiet_s=QUIET_S)
        yield page
        page.get_by_role("button", name="Hang up").click()
        expect(page.get_by_role("button", name="Call", exact=True)).to_be_visible(timeout=LONG_S * 1000)


def ask(server: Server, questions: list[Pcm]) -> tuple[Recording, str]:
    """One call in which the questions are asked one after another: its sound, and the captions' text."""
    with calling(server) as page:
        for question in questions:
            hear(page, speak(page, question), QUIET_S)
        return take_recording(page), page.get_by_role("log").inner_text()


def heard_answers(recording: Recording) -> list[str]:
    """What the recogniser hears of the bot after each question, the greeting first."""
    turns = utterances(recording.caller, RATE)
    bounds = [0, *[end for _, end in turns], len(recording.bot)]
    return [recognise(recording.bot[start:end], RATE) for start, end in itertools.pairwise(bounds)]


# By voice. Each question once, the voices taking turns, so that the test takes one minute and not four.
EACH_ONCE = {voice: list(QUESTIONS)[at :: len(VOICES)] for at, voice in enumerate(VOICES)}
EVERY = {voice: list(QUESTIONS) for voice in VOICES}


@pytest.mark.parametrize(
    ("asked", "least"),
    [
        pytest.param(EACH_ONCE, 4, id="each-question-once"),
        pytest.param(EVERY, 6, id="each-question-in-each-voice", marks=pytest.mark.slow),
    ],
)
def test_questions_are_answered_in_speech(server: Server, asked: dict[str, list[str]], least: int) -> None:
    """Questions in voices never heard in training, those of a voice in one call.

    This nano mishears one in ten or so, so not all are held here; how many it gets right is the gate's to
    measure (``model_runtime.training.gate``).
    """
    right = []
    for voice, questions in asked.items():
        recording, captions = ask(server, [say(question, voice) for question in questions])
        greeting, *answers = heard_answers(recording)
        assert nearest(greeting, ANSWERS) == GREETING
        assert GREETING in captions
        for question, answer in zip(questions, answers, strict=True):
            wanted = QUESTIONS[question]
            right.append(nearest(answer, ANSWERS) == wanted and wanted in captions)
    assert sum(right) >= least, right


def test_two_calls_at_once_are_each_answered(server: Server) -> None:
    def one(question: str, voice: str) -> tuple[str, str, str]:
        """What is heard of the bot, and which answer the page shows."""
        recording, captions = ask(server, [say(question, voice)])
        greeting, answer = heard_answers(recording)
        assert GREETING in captions
        (shown,) = [known for known in ANSWERS if known in captions and known != GREETING]
        return greeting, answer, shown

    # Two whose answers the recogniser cannot take for others: it has to tell them from each other.
    with ThreadPoolExecutor(2) as pool:
        calls = list(pool.map(one, ("can i order online", "do you have tents"), VOICES))
    shown = [answer for _, _, answer in calls]
    for greeting, heard, own in calls:
        assert nearest(greeting, ANSWERS) == GREETING
        assert nearest(heard, shown) == own  # what is heard in a call is what its own page shows


def test_speaking_over_the_answer_silences_it(server: Server) -> None:
    question, interruption = (
        say(next(iter(QUESTIONS)), VOICES[0]),
        say("No, wait, stop for a moment.", VOICES[0]),
    )

    def attempt(_: int) -> None:
        with calling(server) as page:
            for _ in range(2):
                hear(page, speak(page, question))
                page.wait_for_timeout(300)  # into the answer, which lasts three seconds
                hear(page, speak(page, interruption), QUIET_S)
            recording = take_recording(page)
        spoken = utterances(recording.caller, RATE)
        assert len(spoken) == 4
        delays = []
        for start, end in spoken[1::2]:
            assert first_loud(recording.bot, start - RATE // 2, start) is not None, "it was not speaking"
            delays.append(((last_loud(recording.bot, start, end) or start) - start) / RATE * 1000)
        # Far less than the interruption lasts; how soon it is on a quiet machine the benchmark holds.
        assert max(delays) <= 1000, f"ms until silence: {delays}"

    steadily(attempt, tries=2)


def test_refused_microphone_is_said_in_words(server: Server) -> None:
    with browser_page(server.url, allow=False) as page:
        page.context.clear_permissions()
        page.get_by_role("button", name="Call", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text(
            "microphone", ignore_case=True, timeout=LONG_S * 1000
        )
        expect(page.get_by_role("button", name="Call", exact=True)).to_be_enabled()


def test_the_page_names_its_model_a_demo_and_says_what_to_ask(server: Server) -> None:
    with browser_page(server.url) as page:
        _says(page, "demo model")
        _says(page, next(iter(QUESTIONS)))


def _says(page: Page, text: str) -> None:
    expect(page.locator("body")).to_contain_text(text, ignore_case=True, timeout=LONG_S * 1000)
