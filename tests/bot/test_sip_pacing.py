"""The phone line's two streams at the call's pace: nothing lost, nothing twice, silence for nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bot.ingress.sip.messages import HEARD_BYTES
from bot.ingress.sip.pacing import BURST, FRAME_S, LATE_S, SILENCE, Intake, Outbox

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
    assert intake.take(NOISE[:HEARD_BYTES], 2.2) == NOISE[:HEARD_BYTES]


def test_after_standing_still_there_is_no_flood() -> None:
    assert Intake(0.0).take(b"", 3600.0) == SILENCE * BURST


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
