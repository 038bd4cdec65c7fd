"""A person with a browser calls Parley: real Chromium, real WebRTC, real speech in and out."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from bot.waveform import Pcm, first_loud, last_loud, write_wav
from model_runtime.training.judge import nearest, recognise
from tests.e2e.browser import RATE, Recording, browser_page, take_recording
from tests.e2e.measure import utterances
from tests.e2e.server import Server
from tests.e2e.shop import ANSWERS, GREETING, QUESTIONS
from tests.e2e.speakers import VOICES, say, silence

pytestmark = pytest.mark.e2e

GREETING_SECONDS = 7.0  # the microphone file's first silence: connecting, and the greeting
ANSWER_SECONDS = 6.5  # the longest answer is 5 s


def call(server: Server, microphone: Path, seconds: float) -> tuple[Recording, str]:
    """Press Call, let the microphone file play, hang up; both sides' sound and the captions' text."""
    with browser_page(server.url, microphone) as page:
        page.get_by_role("button", name="Call", exact=True).click()
        expect(page.get_by_role("button", name="Hang up")).to_be_visible(timeout=15_000)
        page.wait_for_timeout(seconds * 1000)
        recording = take_recording(page)
        captions = page.get_by_role("log").inner_text()
        page.get_by_role("button", name="Hang up").click()
        expect(page.get_by_role("button", name="Call", exact=True)).to_be_visible(timeout=5000)
        return recording, captions


def ask(server: Server, folder: Path, questions: list[Pcm]) -> tuple[Recording, str]:
    """One call in which the questions are asked one after another, with time for each answer."""
    pieces = [silence(GREETING_SECONDS)]
    for question in questions:
        pieces += [question, silence(ANSWER_SECONDS)]
    microphone = np.concatenate(pieces)
    path = folder / "microphone.wav"
    write_wav(path, [microphone], RATE)
    return call(server, path, len(microphone) / RATE + 0.5)


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
def test_questions_are_answered_in_speech(
    server: Server, tmp_path: Path, asked: dict[str, list[str]], least: int
) -> None:
    """Questions in voices never heard in training, those of a voice in one call.

    This nano mishears one in ten or so, so not all are held here; how many it gets right is the gate's to
    measure (``model_runtime.training.gate``).
    """
    right = []
    for voice, questions in asked.items():
        folder = tmp_path / voice
        folder.mkdir()
        recording, captions = ask(server, folder, [say(question, voice) for question in questions])
        greeting, *answers = heard_answers(recording)
        assert nearest(greeting, ANSWERS) == GREETING
        assert GREETING in captions
        for question, answer in zip(questions, answers, strict=True):
            wanted = QUESTIONS[question]
            right.append(nearest(answer, ANSWERS) == wanted and wanted in captions)
    assert sum(right) >= least, right


def test_two_calls_at_once_are_each_answered(server: Server, tmp_path: Path) -> None:
    def one(question: str, voice: str) -> tuple[str, str, str]:
        folder = tmp_path / voice
        folder.mkdir()
        recording, captions = ask(server, folder, [say(question, voice)])
        greeting, answer = heard_answers(recording)
        return nearest(greeting, ANSWERS), nearest(answer, ANSWERS), captions

    # Two whose answers the recogniser cannot take for others: it has to tell them from each other.
    with ThreadPoolExecutor(2) as pool:
        calls = list(pool.map(one, ("can i order online", "do you have tents"), VOICES))
    for greeting, answer, captions in calls:
        assert greeting == GREETING
        assert answer in captions  # what is heard in a call is what its own page shows


def test_speaking_over_the_answer_silences_it(server: Server, tmp_path: Path) -> None:
    question, interruption = (
        say(next(iter(QUESTIONS)), VOICES[0]),
        say("No, wait, stop for a moment.", VOICES[0]),
    )
    microphone = [silence(GREETING_SECONDS)]
    for seconds in (1.4, 2.2, 3.0):  # into the answer, which lasts three: a busy machine begins it later
        microphone += [question, silence(seconds), interruption, silence(ANSWER_SECONDS)]
    path = tmp_path / "microphone.wav"
    write_wav(path, [np.concatenate(microphone)], RATE)
    recording, _ = call(server, path, sum(map(len, microphone)) / RATE + 0.5)
    spoken = utterances(recording.caller, RATE)
    assert len(spoken) == 6
    spoken_over = [
        (start, end)
        for start, end in spoken[1::2]
        if first_loud(recording.bot, start - RATE // 5, start) is not None
    ]
    assert spoken_over, "the bot was never speaking when it was interrupted"
    delays = [
        ((last_loud(recording.bot, start, end) or start) - start) / RATE * 1000 for start, end in spoken_over
    ]
    assert median(delays) <= 300, f"ms until silence: {delays}"


def test_refused_microphone_is_said_in_words(server: Server) -> None:
    with browser_page(server.url, None, allow=False) as page:
        page.context.clear_permissions()
        page.get_by_role("button", name="Call", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("microphone", ignore_case=True, timeout=10_000)
        expect(page.get_by_role("button", name="Call", exact=True)).to_be_enabled()


def test_the_page_names_its_model_a_demo_and_says_what_to_ask(server: Server) -> None:
    with browser_page(server.url, None) as page:
        _says(page, "demo model")
        _says(page, next(iter(QUESTIONS)))


def _says(page: Page, text: str) -> None:
    expect(page.locator("body")).to_contain_text(text, ignore_case=True, timeout=10_000)
