from __future__ import annotations

import numpy as np
import pytest

from model_runtime.errors import VoiceError
from model_runtime.speaking.schedule import Schedule
from model_runtime.speaking.token2wav import CODE_SAMPLES, Token2Wav, Token2WavStream, push_each
from tests.model_runtime.speaking.golden import TOKEN2WAV, needs_golden, tiny_token2wav, tiny_voice

CODES = [(7 * i) % 50 for i in range(70)]
SCHEDULES = [
    Schedule(),
    Schedule(chunks=(1, 2, 3)),
    Schedule(chunks=(4,), first_hold_frames=1, hold_frames=1, context_frames=0),
    Schedule(chunks=(9, 25), first_hold_frames=2, hold_frames=30, context_frames=50),
    Schedule.reference(),
]


def speak(model: Token2Wav, codes: list[int], schedule: Schedule | None = None, step: int = 1) -> np.ndarray:
    stream = model.stream(tiny_voice(), schedule=schedule, seed=3)
    parts = [stream.push(codes[at : at + step]) for at in range(0, len(codes), step)]
    return np.concatenate([*parts, stream.push([], last=True)])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("count", [1, 2, 11, 12, 70])
def test_every_code_becomes_40_ms_whatever_the_schedule(schedule: Schedule, count: int) -> None:
    audio = speak(tiny_token2wav(), CODES[:count], schedule)
    assert audio.dtype == np.float32
    assert len(audio) == count * CODE_SAMPLES
    assert np.isfinite(audio).all()
    assert np.abs(audio).max() <= 1.08  # hamming's bump included


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_how_the_codes_arrive_makes_no_difference(schedule: Schedule) -> None:
    model = tiny_token2wav()
    one_by_one = speak(model, CODES, schedule)
    assert np.array_equal(one_by_one, speak(model, CODES, schedule, step=7))
    stream = model.stream(tiny_voice(), schedule=schedule, seed=3)
    assert np.array_equal(one_by_one, stream.push(CODES, last=True))


def test_two_streams_at_once_give_what_each_gives_alone() -> None:
    model = tiny_token2wav(cfg=0.7)
    voices = [tiny_voice(8, seed=0), tiny_voice(13, seed=1)]
    said = [CODES, CODES[::-1]]

    def alone(i: int) -> np.ndarray:
        return tiny_token2wav(cfg=0.7).stream(voices[i], seed=i).push(said[i], last=True)

    streams = [model.stream(voice, seed=i) for i, voice in enumerate(voices)]
    parts: list[list[np.ndarray]] = [[], []]
    for at in range(0, len(CODES), 4):
        for i, stream in enumerate(streams):
            parts[i].append(stream.push(said[i][at : at + 4]))
    for i, stream in enumerate(streams):
        together = np.concatenate([*parts[i], stream.push([], last=True)])
        assert np.array_equal(together, alone(i))


@pytest.mark.parametrize("cfg", [0.0, 0.7])
@pytest.mark.parametrize("schedule", [Schedule(), Schedule(chunks=(1, 2, 3)), Schedule.reference()])
def test_streams_rendered_in_one_pass_give_what_each_gives_alone(cfg: float, schedule: Schedule) -> None:
    """Two voices, three calls, of which the last begins later and ends earlier than the others."""
    model = tiny_token2wav(cfg=cfg)
    voices = [tiny_voice(8, seed=0), tiny_voice(13, seed=1), tiny_voice(8, seed=0)]
    said = [CODES, CODES[::-1], CODES[5:30]]

    def streams() -> list[Token2WavStream]:
        return [model.stream(v, schedule=schedule, seed=i) for i, v in enumerate(voices)]

    alone = [stream.push(codes, last=True) for stream, codes in zip(streams(), said, strict=True)]
    parts: list[list[np.ndarray]] = [[], [], []]
    speaking = streams()
    for at in range(0, len(CODES) + 5, 5):
        now = [i for i in range(3) if (begin := at - 10 * (i == 2)) >= 0 and begin - 5 < len(said[i])]
        pushes = [
            (speaking[i], said[i][at - 10 * (i == 2) :][:5], at - 10 * (i == 2) >= len(said[i])) for i in now
        ]
        for i, audio in zip(now, push_each(pushes), strict=True):
            parts[i].append(audio)
    for i in range(3):
        assert speaking[i].ended
        np.testing.assert_allclose(np.concatenate(parts[i]), alone[i], atol=2e-4)


def test_one_that_cannot_go_on_leaves_the_others_as_they_were() -> None:
    model = tiny_token2wav()
    good, bad = model.stream(tiny_voice(), seed=3), model.stream(tiny_voice(), seed=4)
    with pytest.raises(ValueError, match="speech code"):
        push_each([(good, CODES, False), (bad, [7000], False)])
    assert good.codes == bad.codes == 0
    assert np.array_equal(good.push(CODES, last=True), speak(model, CODES))


def test_a_dropped_stream_leaves_no_trace() -> None:
    model = tiny_token2wav()
    before = speak(model, CODES)
    cancelled = model.stream(tiny_voice(), seed=9)
    cancelled.push(CODES[:40])
    del cancelled
    assert np.array_equal(speak(model, CODES), before)


def test_the_seed_decides_the_noise() -> None:
    model, voice = tiny_token2wav(), tiny_voice()
    first, same, other = (model.stream(voice, seed=seed).push(CODES, last=True) for seed in (1, 1, 2))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
    assert np.array_equal(model.offline(CODES, voice, seed=1), model.offline(CODES, voice, seed=1))


def test_audio_comes_when_the_stream_said_it_would() -> None:
    model = tiny_token2wav()
    stream = model.stream(tiny_voice(), schedule=Schedule(chunks=(2, 5)))
    assert stream.needed == 2 + 3
    heard = []
    for code in CODES[:15]:
        due = stream.needed == 1
        audio = stream.push([code])
        assert (len(audio) > 0) == due
        heard.append(len(audio))
        assert stream.needed > 0
    assert stream.codes == 15
    assert stream.emitted == sum(heard)


def test_the_first_chunk_holds_less_back() -> None:
    model = tiny_token2wav()
    schedule = Schedule(chunks=(8, 25), first_hold_frames=2, hold_frames=6)
    first = model.stream(tiny_voice(), schedule=schedule).push(CODES[:11])
    assert len(first) == (16 - 2) * 480


def test_a_prompt_is_taken_in_once_a_voice() -> None:
    model, voice = tiny_token2wav(), tiny_voice()
    model.warm(voice)
    kept = model.prompt(voice)
    model.stream(voice).push(CODES, last=True)
    assert model.prompt(voice) is kept
    assert model.prompt(tiny_voice()) is not kept


def test_a_reply_of_two_minutes_costs_no_more_at_its_end() -> None:
    """The reference's encoder cache grows without end and its position table runs out after 100 s."""
    model = tiny_token2wav(steps=1)
    stream = model.stream(tiny_voice(), schedule=Schedule(tail_frames=20))
    lengths = set()
    for at in range(0, 3000, 25):
        audio = stream.push(CODES[:25])
        if at >= 500:
            memory = stream._flow.memory
            assert memory is not None
            lengths.add((memory.frames, *(keys.shape[2] for keys, _ in memory.encoder_own)))
            assert np.abs(audio).max() > 0
    assert lengths == {
        (36, 10, 10, 20)
    }  # prompt and tail for the estimator; tails for the encoder's two stacks
    assert stream.push([], last=True).size + stream.emitted >= 3000 * CODE_SAMPLES


@pytest.mark.parametrize("code", [50, -1, 6561])
def test_what_is_no_code_is_refused_and_the_stream_goes_on(code: int) -> None:
    model = tiny_token2wav()
    stream = model.stream(tiny_voice(), seed=3)
    stream.push(CODES[:20])
    with pytest.raises(ValueError, match=f"{code} is not a speech code"):
        stream.push([1, code])
    rest = stream.push(CODES[20:], last=True)
    assert np.array_equal(rest, speak(model, CODES)[-len(rest) :])
    with pytest.raises(ValueError, match="not a speech code"):
        model.offline([code], tiny_voice())


def test_after_its_end_a_stream_takes_nothing() -> None:
    stream = tiny_token2wav().stream(tiny_voice())
    assert stream.push([], last=True).size == 0
    assert stream.ended
    with pytest.raises(ValueError, match="ended"):
        stream.push([1])


def test_offline_is_as_long_as_the_stream() -> None:
    model = tiny_token2wav()
    assert model.offline(CODES, tiny_voice()).shape == (len(CODES) * CODE_SAMPLES,)
    assert model.offline([], tiny_voice()).shape == (0,)


def test_steps_must_make_sense() -> None:
    with pytest.raises(ValueError, match="steps"):
        tiny_token2wav(steps=0)


def test_a_model_from_memory_prepares_no_voices() -> None:
    with pytest.raises(ValueError, match="folder"):
        tiny_token2wav().prepare_voice(np.zeros(24000, np.float32), 24000)


@needs_golden
def test_a_loaded_model_prepares_voices_at_any_rate() -> None:
    model = Token2Wav.load(TOKEN2WAV, steps=2, cfg=0.0)
    time = np.arange(int(1.5 * 44100)) / 44100
    wav = (0.3 * np.sin(2 * np.pi * 150 * time)).astype(np.float32)
    voice = model.prepare_voice(np.stack([wav, wav], 1), 44100, description="a hum", licence="CC0-1.0")
    assert 36 <= len(voice.tokens) <= 38
    assert voice.mel.shape == (2 * len(voice.tokens), 80)
    assert (voice.description, voice.licence) == ("a hum", "CC0-1.0")
    assert model.offline([1, 2, 3], voice).shape == (3 * CODE_SAMPLES,)
    with pytest.raises(VoiceError, match=r"1 to 30 seconds, this one lasts 0\.5"):
        model.prepare_voice(wav[:22050], 44100)
