"""The phone line's two streams at the call's pace: nothing lost, nothing twice, silence for nothing."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bot.ingress.sip.messages import HEARD_BYTES
from bot.ingress.sip.pacing import BURST, FRAME_S, LATE_S, SILENCE, Intake, Outbox
from bot.ingress.sip.resampler import Resampler
from pipeline.concealment import JOIN, LONGEST, SPOILED

NOISE = bytes(range(256)) * 5


def test_audio_comes_out_in_whole_frames_and_in_order() -> None:
    intake = Intake(0.0)
    assert intake.take(NOISE[:400], 0.01) == b""
    assert intake.take(NOISE[400:1280], 0.02) == NOISE[:1280]


def test_a_line_that_falls_silent_gives_silence_in_real_time() -> None:
    intake = Intake(0.0)
    intake.take(NOISE[:HEARD_BYTES], 1.0)
    assert intake.take(b"", 1.0 + LATE_S - 0.001) == b""  # late, not silent
    silent = sum(len(intake.take(b"", 1.0 + LATE_S + tick / 100)) for tick in range(101))
    assert silent // HEARD_BYTES in (50, 51)  # of one second
    rest = SILENCE * (59 - silent // HEARD_BYTES)
    assert intake.take(NOISE[:HEARD_BYTES], 2.2) == rest + NOISE[:HEARD_BYTES]  # it is 1.2 s in all


def test_after_standing_still_there_is_no_flood() -> None:
    assert Intake(0.0).take(b"", 3600.0) == SILENCE * BURST


def frame(number: int) -> bytes:
    return number.to_bytes(2, "little") * (HEARD_BYTES // 2)


def came(piece: bytes) -> int | None:
    """Which frame it is; of one after a hole the beginning is not looked at, and a stand-in fades."""
    number = int.from_bytes(piece[-2:], "little")
    return number if piece[2 * (SPOILED + JOIN) :] == frame(number)[2 * (SPOILED + JOIN) :] else None


def heard(
    arrivals: list[tuple[float, int]], intake: Intake, sent: Sequence[bytes] | None = None
) -> list[bytes]:
    """What a line gives that is polled every 10 ms, when these frames come: at a time, and which.

    ``sent``: what they are; each a constant of its own unless given.
    """
    given = b""
    waiting = sorted(arrivals)
    for tick in range(round((waiting[-1][0] + FRAME_S) * 100)):
        now = tick / 100
        ready = [number for at, number in waiting if at <= now]
        waiting = waiting[len(ready) :]
        given += intake.take(b"".join(sent[number] if sent else frame(number) for number in ready), now)
    return [given[at : at + HEARD_BYTES] for at in range(0, len(given), HEARD_BYTES)]


def on_time(numbers: Iterable[int], phase: float = 0.003) -> list[tuple[float, int]]:
    return [(FRAME_S * number + phase, number) for number in numbers]


def tone(seconds: float) -> bytes:
    """A steady one of 173 Hz, of whose periods no whole number is in a frame."""
    at = np.arange(round(16_000 * seconds))
    return (9000 * np.sin(2 * np.pi * 173 * at / 16_000)).astype("<i2").tobytes()


def cut(pcm: bytes) -> list[bytes]:
    return [pcm[at : at + HEARD_BYTES] for at in range(0, len(pcm), HEARD_BYTES)]


def test_a_tone_goes_on_where_frames_were_lost() -> None:
    """Nothing is shifted, nothing clicks, and what came is heard as it came but for 9 ms after a hole."""
    sent, lost = cut(tone(1.2)), {20, 30, 31, 40, 41, 42}
    given = heard(on_time(number for number in range(60) if number not in lost), Intake(0.0), sent)
    assert len(given) == 60
    for number in range(60):
        same = given[number] == sent[number]
        assert same == (number not in lost and number - 1 not in lost), number
    samples = np.frombuffer(b"".join(given), np.int16).astype(int)
    assert np.abs(np.diff(samples)).max() < 1.5 * 9000 * 2 * np.pi * 173 / 16_000
    levels = [np.abs(np.frombuffer(given[number], np.int16).astype(int)).max() for number in (40, 41, 42)]
    assert 9010 > levels[0] > levels[1] > levels[2] > 9000 / 3


def test_what_was_resampled_without_the_lost_frames_does_not_click_either() -> None:
    """The stack leaves lost packets out, so the worker's resampler joins what does not belong together."""
    resampler, intake, given = Resampler(8000, 1, 16_000, 1), Intake(0.0), b""
    sent = np.frombuffer(tone(1.2), np.int16)[::2].reshape(-1, 160)
    for number in range(60):
        if number not in {20, 31, 41, 42}:
            given += intake.take(resampler(sent[number].tobytes()), 0.02 * number)
    samples = np.frombuffer(given, np.int16).astype(int)
    assert len(samples) == 60 * 320
    assert np.abs(np.diff(samples)).max() < 1.5 * 9000 * 2 * np.pi * 173 / 16_000


def test_a_line_that_loses_nothing_conceals_nothing() -> None:
    """Neither for a clock that runs off by 200 ppm, nor for frames that are a little late."""
    intake, dice = Intake(0.0), random.Random(1)
    arrivals = [(FRAME_S * 0.9998 * number + dice.uniform(0, 0.002), number) for number in range(1, 3000)]
    assert heard(arrivals, intake) == [frame(number) for number in range(1, 3000)]
    assert intake.concealed == 0


def test_a_worker_that_stood_still_finds_all_that_came() -> None:
    intake = Intake(0.0)
    heard(on_time(range(1, 10)), intake)
    burst = b"".join(map(frame, range(10, 14)))
    assert intake.take(burst, 13 * FRAME_S + 0.005) == burst


def test_what_was_late_only_is_given_back_at_the_next_hole() -> None:
    """A frame that comes after its stand-in is heard all the same; the call's clock runs no farther ahead."""
    intake = Intake(0.0)
    frames = {number: at for at, number in on_time(range(1, 60))}
    frames[20] += 0.03
    frames[21] += 0.03
    del frames[22]
    given = heard([(at, number) for number, at in frames.items()], intake)
    assert [*map(came, given)] == [*range(1, 20), None, 20, 21, *range(23, 60)]
    assert intake.concealed == 1


def test_a_pause_of_the_sender_is_silence_of_its_length() -> None:
    """Silence suppression (RFC 3389) is not loss."""
    intake = Intake(0.0)
    given = heard(on_time([*range(1, 20), *range(50, 60)]), intake)
    assert given == [*map(frame, range(1, 20)), *[SILENCE] * 30, *map(frame, range(50, 60))]
    assert intake.concealed == 0


def test_of_a_long_standstill_only_a_part_is_made_up_for() -> None:
    intake = Intake(0.0)
    intake.take(frame(1), 0.0)
    given = cut(intake.take(frame(2), 3600.0))
    assert len(given) == LONGEST + 1
    assert came(given[-1]) == 2
    assert intake.take(frame(3), 3600.02) == frame(3)


@given(st.sets(st.integers(1, 150)), st.floats(0, 0.019))
def test_whatever_is_lost_the_clock_of_the_call_is_the_line_s(lost: set[int], phase: float) -> None:
    kept = [number for number in range(200) if number not in lost]
    given = heard(on_time(kept, phase), Intake(0.0), [frame(100 * number) for number in range(200)])
    assert abs(len(given) - 200) <= 1
    numbers = [number for number in map(came, given) if number]
    assert numbers == [100 * number for number in kept if number]


def test_music_on_hold_is_not_heard_and_time_goes_on() -> None:
    intake = Intake(0.0)
    intake.take(NOISE[:100], 0.0)
    intake.held = True
    given = b"".join(intake.take(NOISE[:HEARD_BYTES], tick * FRAME_S) for tick in range(100))
    assert set(given) == {0}
    assert abs(len(given) // HEARD_BYTES - 95) <= 1
    intake.held = False
    assert intake.take(NOISE[:HEARD_BYTES], 2.01) == NOISE[:HEARD_BYTES]  # nothing from before


def test_a_frame_is_taken_when_the_line_has_sent_it() -> None:
    outbox = Outbox()
    for number in range(3):
        outbox.put(bytes([number]))
    while outbox.next() is not None:
        outbox.wrote(320)
    for left, taken in ((960, 0), (700, 0), (640, 1), (1, 2), (0, 3), (0, 3)):
        outbox.left(left)
        assert outbox.taken == taken


@given(st.lists(st.sampled_from(["put", "write", "send", "lose"]), max_size=60))
def test_every_frame_is_sent_in_order_however_often_the_line_loses_its_buffer(steps: list[str]) -> None:
    outbox, line, sent, count = Outbox(), list[bytes](), list[bytes](), 0
    for step in [*steps, "lose", *["write"] * 60, *["send"] * 60]:
        if step == "put":
            outbox.put(bytes([count]))
            count += 1
        elif step == "write" and (frame := outbox.next()) is not None:
            outbox.wrote(320)
            line.append(frame)
        elif step == "send" and line:
            sent.append(line.pop(0))
            outbox.left(320 * len(line))
        elif step == "lose":
            line.clear()
            outbox.again()
        assert outbox.taken == len(sent)
    assert sent == [bytes([number]) for number in range(count)]
