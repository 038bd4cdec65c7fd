"""The bot's own voice coming back does not lower it, and a caller over that echo still stops it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from model_runtime.protocol import INPUT_RATE, OUTPUT_RATE
from model_runtime.training.augment import telephone
from pipeline import echo_guard
from pipeline.echo_guard import HEARD_BYTES, EchoGuard
from pipeline.fader import Fader
from pipeline.segmenter import Segmenter
from pipeline.turns import Action, Duck, Heard, Hold, Prompt, Resume, Stop, Tick, Turns
from tests.e2e.speakers import VOICES, say

CHUNK_MS = 20
Sound = NDArray[np.float32]


@cache
def answer() -> Sound:
    """What the bot says, 24 kHz: eight seconds."""
    sentences = (
        "Delivery is free above fifty dollars. Below that it costs five.",
        "You can park behind the shop.",
    )
    return np.concatenate([say(text, VOICES[1], OUTPUT_RATE) for text in (*sentences, *sentences)])


@cache
def interruption() -> Sound:
    return say("No, wait, stop for a moment please.", VOICES[0], INPUT_RATE)


def pcm(sound: Sound) -> bytes:
    return (np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes()


def echo_of(played: Sound, delay_ms: int, decibels: float, *, coded: bool, slower: float = 0.0) -> Sound:
    """As a loudspeaker phone sends it back, 16 kHz: a room, a delay, and a clock slower by that share."""
    count = int(len(played) * INPUT_RATE / OUTPUT_RATE)
    at = np.arange(count) * OUTPUT_RATE / INPUT_RATE * (1 + slower)
    heard = np.interp(at, np.arange(len(played)), played)
    draw = np.random.default_rng(1)
    room = np.exp(-np.arange(1600) / 300) * draw.standard_normal(1600)
    room[0] = 3.0
    heard = np.convolve(heard, room / np.sqrt((room**2).sum()))[:count] * 10 ** (decibels / 20)
    heard += draw.standard_normal(count) * 1e-4
    late = np.pad(heard, (delay_ms * INPUT_RATE // 1000, 0)).astype(np.float32)
    return telephone(late) if coded else late


def chunks(sound: Sound, rate: int) -> Iterator[bytes]:
    size = rate * CHUNK_MS // 1000
    for at in range(0, len(sound) - size + 1, size):
        yield pcm(sound[at : at + size])


@asynccontextmanager
async def started(**options: bool) -> AsyncIterator[EchoGuard]:
    guard = EchoGuard(**options)
    await guard.start(INPUT_RATE)
    try:
        yield guard
    finally:
        await guard.stop()


async def floor(heard: Sound, played: Sound, unsteady: bool = False, guarded: bool = True) -> list[Action]:
    """What the turn machine does while ``played`` is said and ``heard`` comes in.

    ``unsteady``: chunks are played two at a time, now before and now after what is heard.
    """
    turns, segmenter, actions = Turns(), Segmenter(), list[Action]()
    turns.handle(Prompt())
    turns.handle(Heard(0))
    out = list(chunks(played, OUTPUT_RATE))
    async with started() as guard:
        for number, chunk in enumerate(chunks(heard, INPUT_RATE)):
            together = (2 if number % 2 == 0 else 0) if unsteady else 1
            for one in out[number : number + together]:
                guard.played(one)
            cleaned = await guard.filter(chunk) if guarded else chunk
            for event in (*segmenter.push(cleaned), Tick(segmenter.position, segmenter.voiced)):
                actions += turns.handle(event)
    return actions


async def test_without_it_the_bot_would_stop_itself() -> None:
    assert Stop(0) in await floor(echo_of(answer(), 150, -10, coded=True), answer(), guarded=False)


@pytest.mark.parametrize("delay_ms", [20, 120, 250, 400])
@pytest.mark.parametrize("coded", [False, True])
async def test_the_bots_own_voice_does_not_stop_it(delay_ms: int, coded: bool) -> None:
    actions = await floor(echo_of(answer(), delay_ms, -10, coded=coded), answer())
    assert Stop(0) not in actions
    assert sum(isinstance(action, Duck | Hold) for action in actions) <= 2  # until it knows the room


@pytest.mark.parametrize("delay_ms", [60, 250])
async def test_a_caller_over_the_echo_does(delay_ms: int) -> None:
    heard = echo_of(answer(), delay_ms, -10, coded=True)
    at = 4 * INPUT_RATE
    heard[at : at + len(interruption())] += 0.5 * interruption()
    assert Stop(0) in await floor(heard, answer())


async def test_a_clock_that_drifts_and_playing_out_of_step_are_no_matter() -> None:
    heard = echo_of(answer(), 150, -10, coded=True, slower=200e-6)
    actions = await floor(heard, answer(), unsteady=True)
    assert Stop(0) not in actions
    assert sum(isinstance(action, Duck | Hold | Resume) for action in actions) <= 3


async def test_it_is_told_what_the_fader_lets_through() -> None:
    played: list[bytes] = []
    fader = Fader(played.append)
    loud = pcm(np.full(480, 0.5, np.float32))
    await fader.filter(loud)
    fader.duck()
    lowered = await fader.filter(loud)
    fader.discard()
    assert await fader.filter(loud) == b""
    assert played == [loud, lowered]


async def test_speech_into_silence_is_left_as_it_is() -> None:
    async with started() as guard:
        said = np.concatenate([await _cleaned(guard, chunk) for chunk in chunks(interruption(), INPUT_RATE)])
    loudness = np.std(said) / np.std(interruption())
    assert 0.8 < loudness < 1.25


async def hears(played: Sequence[tuple[Sound, Sound]]) -> list[Sound]:
    """What is left of what is heard in each part of a call, while that is played in it."""
    left = []
    async with started() as guard:
        for out, heard in played:
            cleaned, said = [], iter(chunks(out, OUTPUT_RATE))
            for chunk in chunks(heard, INPUT_RATE):
                if (one := next(said, None)) is not None:
                    guard.played(one)
                cleaned.append(await _cleaned(guard, chunk))
            left.append(np.concatenate(cleaned))
    return left


def a_question_between_two_answers() -> list[tuple[Sound, Sound]]:
    quiet, nothing = np.zeros(INPUT_RATE, np.float32), np.zeros(0, np.float32)
    first = (answer(), echo_of(answer(), 120, -10, coded=False))
    return [first, (nothing, quiet), (nothing, interruption()), (nothing, quiet[: INPUT_RATE // 3]), first]


async def test_what_is_heard_between_answers_is_not_touched_and_the_next_ones_echo_goes() -> None:
    parts = a_question_between_two_answers()
    left = await hears(parts)
    said = np.concatenate([np.frombuffer(chunk, np.int16) for chunk in chunks(interruption(), INPUT_RATE)])
    assert np.array_equal(left[2] * 32768, said)
    assert np.std(left[-1]) < 0.05 * np.std(parts[-1][1])


async def test_an_answer_begins_over_what_is_heard_then_and_not_over_what_was_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = a_question_between_two_answers()
    del parts[-2]  # the answer begins on the question's last word
    rested = await hears(parts)
    monkeypatch.setattr(echo_guard, "REST", 1 << 30)
    begin = INPUT_RATE // 10
    assert np.allclose(rested[-1][:begin], (await hears(parts))[-1][:begin], atol=2 / 32768)


async def test_steady_noise_goes_and_speech_in_it_stays() -> None:
    noise = np.random.default_rng(1).standard_normal(6 * INPUT_RATE).astype(np.float32) * 0.02
    said = noise.copy()
    at = 4 * INPUT_RATE
    said[at : at + len(interruption())] += interruption()[: len(said) - at]
    async with started(echo_cancellation=False, noise_suppression=True) as guard:
        left = np.concatenate([await _cleaned(guard, chunk) for chunk in chunks(said, INPUT_RATE)])
    assert np.std(left[2 * INPUT_RATE : at]) < 0.4 * np.std(noise)  # by then it knows it
    assert np.std(left[at:]) > 0.7 * np.std(said[at:])


async def test_only_whole_frames_come_out_and_none_is_lost() -> None:
    async with started() as guard:
        assert await guard.filter(bytes(100)) == b""
        assert len(await guard.filter(bytes(HEARD_BYTES))) == HEARD_BYTES
        assert len(await guard.filter(bytes(HEARD_BYTES - 100))) == HEARD_BYTES


async def test_another_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="16000 Hz, not 8000"):
        await EchoGuard().start(8000)


async def test_a_fault_of_the_native_part_leaves_the_ear_open(monkeypatch: pytest.MonkeyPatch) -> None:
    async with started() as guard:

        def fails(_: object) -> None:
            raise RuntimeError("no more")

        assert guard._processing is not None
        monkeypatch.setattr(guard._processing, "process_stream", fails)
        loud = pcm(np.full(HEARD_BYTES, 0.5, np.float32))
        assert await guard.filter(loud) == loud
        assert await guard.filter(loud) == loud


async def _cleaned(guard: EchoGuard, chunk: bytes) -> Sound:
    return np.frombuffer(await guard.filter(chunk), np.int16).astype(np.float32) / np.float32(32768)
