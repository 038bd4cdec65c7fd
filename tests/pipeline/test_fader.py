"""The fader: every level is reached within a chunk, nothing clicks, and what is held is not lost."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from numpy.typing import NDArray
from pipecat.frames.frames import FilterEnableFrame

from pipeline.fader import AnswerBegins, Fader
from pipeline.volume import DIPPED, DUCKED

LOUD = 10_000
CHUNK = np.full(480, LOUD, dtype=np.int16).tobytes()  # 20 ms at 24 kHz


async def heard(fader: Fader) -> NDArray[np.float64]:
    """The next chunk, as a share of what went in."""
    async with asyncio.timeout(5):
        return np.frombuffer(await fader.filter(CHUNK), dtype=np.int16) / LOUD


async def held() -> tuple[Fader, asyncio.Task[bytes]]:
    """A fader that holds, and the chunk that waits in it."""
    fader = Fader()
    fader.hold()
    await heard(fader)
    waiting = asyncio.create_task(fader.filter(CHUNK))
    await asyncio.sleep(0)
    return fader, waiting


async def test_leaves_the_sound_alone() -> None:
    assert await Fader().filter(CHUNK) == CHUNK


async def test_lowers_and_raises_the_voice_within_a_chunk_without_a_step() -> None:
    fader = Fader()
    fader.duck()
    down = await heard(fader)
    assert (down[0], down[-1]) == pytest.approx((1.0, DUCKED), abs=0.01)
    assert np.abs(np.diff(down)).max() < 0.01  # of full scale, from sample to sample
    assert (await heard(fader)) == pytest.approx(DUCKED, abs=0.001)
    fader.resume()
    up = await heard(fader)
    assert (up[0], up[-1]) == pytest.approx((DUCKED, 1.0), abs=0.01)
    assert await fader.filter(CHUNK) == CHUNK


async def test_dips_less_than_it_ducks() -> None:
    fader = Fader()
    fader.dip()
    assert (await heard(fader))[-1] == pytest.approx(DIPPED, abs=0.001)
    fader.duck()
    assert (await heard(fader))[-1] == pytest.approx(DUCKED, abs=0.001)


async def test_a_line_that_lowers_the_voice_itself_gets_it_whole() -> None:
    fader = Fader()
    fader.at_line = True
    fader.duck()
    assert await fader.filter(CHUNK) == CHUNK
    at_line = fader.lower(np.frombuffer(CHUNK, np.int16), 24_000) / LOUD
    assert at_line[-1] == pytest.approx(DUCKED, abs=0.001)
    fader.discard()  # what is under way of an answer that is over is silenced
    assert fader.lower(np.frombuffer(CHUNK, np.int16), 24_000)[-1] == 0
    await fader.process_frame(AnswerBegins())
    assert fader.lower(np.frombuffer(CHUNK, np.int16), 24_000)[-1] == LOUD


async def test_fades_out_and_holds_the_next_chunk_until_it_may_be_heard() -> None:
    fader = Fader()
    fader.hold()
    assert (await heard(fader))[-1] == 0.0
    waiting = asyncio.create_task(heard(fader))
    await asyncio.sleep(0)
    assert not waiting.done()
    fader.resume()
    fader.hold()  # before the chunk had time to wake: it is neither let through nor lost
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    fader.resume()
    up = await waiting
    assert (up[0], up[-1]) == (0.0, 1.0)


async def test_of_an_answer_that_is_over_nothing_more_is_heard_and_the_next_is_whole() -> None:
    fader, waiting = await held()
    fader.discard()
    assert await waiting == b""
    assert await fader.filter(CHUNK) == b""  # was in the queue behind it
    await fader.process_frame(AnswerBegins())
    assert await fader.filter(CHUNK) == CHUNK


async def test_an_answer_that_ends_while_nothing_is_held_is_silent_at_once_too() -> None:
    fader = Fader()
    fader.duck()
    await heard(fader)
    fader.discard()
    assert await fader.filter(CHUNK) == b""
    await fader.process_frame(FilterEnableFrame(enable=True))  # somebody else's
    assert await fader.filter(CHUNK) == b""


async def test_the_end_of_a_call_does_not_wait_for_what_is_held() -> None:
    _, waiting = await held()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
