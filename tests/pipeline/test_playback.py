"""Counting what the transport wrote."""

from __future__ import annotations

from pipecat.frames.frames import (
    Frame,
    InterruptionFrame,
    OutputAudioRawFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.tests.utils import SleepFrame, run_test

from pipeline.playback import PlaybackTap


class Listener:
    def __init__(self) -> None:
        self.events: list[tuple[int, int | str]] = []

    async def played(self, turn: int, samples: int) -> None:
        self.events.append((turn, samples))

    async def played_out(self, turn: int) -> None:
        self.events.append((turn, "out"))


async def heard_of(*frames: Frame) -> list[tuple[int, int | str]]:
    listener = Listener()
    down, _ = await run_test(PlaybackTap(listener), frames_to_send=frames)
    assert len([frame for frame in down if type(frame) in {type(sent) for sent in frames}]) == len(frames)
    return listener.events


def chunk(samples: int = 480, rate: int = 24_000) -> TTSAudioRawFrame:
    return TTSAudioRawFrame(bytes(2 * samples), rate, 1)


async def test_counts_between_the_start_and_the_end_of_an_answer() -> None:
    frames = [
        chunk(),
        TTSStartedFrame(context_id="3"),
        chunk(),
        OutputAudioRawFrame(bytes(960), 24_000, 1),  # somebody's music is not the answer
        chunk(),
        TTSStoppedFrame(context_id="2"),
        TTSStoppedFrame(context_id="3"),
        chunk(),
    ]
    assert await heard_of(*frames) == [(3, 480), (3, 480), (3, "out")]


async def test_counts_in_24_khz_whatever_the_line_has() -> None:
    frames = [TTSStartedFrame(context_id="0"), *(chunk(7, 44_100) for _ in range(63))]
    events = await heard_of(*frames)
    assert sum(samples for _, samples in events if isinstance(samples, int)) == 7 * 63 * 24_000 // 44_100


async def test_an_interruption_closes_the_account() -> None:
    listener = Listener()
    settled = SleepFrame()  # an interruption overtakes what it finds in a queue
    answer = [TTSStartedFrame(context_id="0"), chunk(), settled]
    frames = [*answer, InterruptionFrame(), settled, chunk(), TTSStoppedFrame(context_id="0")]
    await run_test(PlaybackTap(listener), frames_to_send=frames)
    assert listener.events == [(0, 480)]
