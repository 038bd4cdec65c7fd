"""What a bad line does to what is heard: loss, jitter, packets out of order and a sender that starts anew.

The worker alone, between packets sent by hand and what it passes on: no engine, no pipeline.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from bot.ingress.sip.messages import Quality
from bot.ingress.sip.phone import WorkerLeg
from bot.waveform import Pcm
from model_runtime.protocol import INPUT_RATE
from tests.e2e.raw_call import raw_call
from tests.e2e.sipp import mu_law
from tests.e2e.test_phone_leg import Caller, own_phone
from tests.torture import CLIENT, RawLine

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SECONDS = 6
HZ = 300
SEED = 3550
TONE = (0.3 * np.sin(2 * np.pi * HZ * np.arange(8000 * SECONDS) / 8000)).astype(np.float32)
PACKETS = [mu_law(TONE[start : start + 160]) for start in range(0, len(TONE), 160)]


def bad_line(loss: float, jitter_s: float) -> list[tuple[float, int]]:
    """When each packet arrives, in s, and which: the later ones may overtake."""
    dice = random.Random(SEED)
    sent = [number for number in range(len(PACKETS)) if dice.random() >= loss]
    return sorted((0.02 * number + dice.uniform(0, jitter_s), number) for number in sent)


async def heard_of(
    arrivals: list[tuple[float, int]], source: Callable[[int], bytes] = lambda n: b"raw1"
) -> tuple[Pcm, Quality]:
    """What the worker passes on of packets that arrive like that, and what it counts."""
    calls: asyncio.Queue[WorkerLeg] = asyncio.Queue()
    async with own_phone(calls.put_nowait) as phone:
        assert phone.listening is not None
        port = phone.listening.port

        def call(hang_up: threading.Event) -> None:
            with RawLine(("127.0.0.1", port), CLIENT) as raw, raw_call(raw) as made:
                began = time.monotonic()
                for due, number in arrivals:
                    time.sleep(max(0.0, began + due - time.monotonic()))
                    made.speak(PACKETS[number], number, source=source(number))
                hang_up.wait(20)

        over = threading.Event()
        calling = asyncio.create_task(asyncio.to_thread(call, over))
        leg = await asyncio.wait_for(calls.get(), 20)
        leg.answer()
        caller = Caller(leg)
        listening = asyncio.create_task(caller.listen())
        await caller.until(lambda: loud(caller.pcm()).sum() > 0.02 * 50, "the tone")
        await caller.until(lambda: not loud(caller.pcm())[-25:].any(), "the end of the tone")
        over.set()
        await calling
        await asyncio.wait_for(listening, 20)
        return caller.pcm(), (await leg.ended()).quality


def loud(heard: Pcm) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which blocks of 20 ms are the tone's."""
    size = INPUT_RATE // 50
    blocks = heard[: len(heard) // size * size].reshape(-1, size)
    level = np.abs(blocks @ np.exp(-2j * np.pi * HZ * np.arange(size) / INPUT_RATE)) * 2 / size
    found: np.ndarray[tuple[int], np.dtype[np.bool_]] = level > 0.05
    return found


def longest_gap_ms(heard: Pcm) -> int:
    """Within the tone."""
    at = np.flatnonzero(loud(heard))
    return int(20 * (np.diff(at).max() - 1))


@pytest.mark.parametrize(("loss", "jitter_s"), [(0.0, 0.0), (0.01, 0.04), (0.05, 0.0), (0.05, 0.04)])
async def test_loss_and_jitter_make_no_long_hole_and_no_lag(loss: float, jitter_s: float) -> None:
    """What is lost is stood in for: the tone lasts as long as it was, with no lag behind it.

    A sender that is held up by a busy machine makes holes of its own, so little is asked of them; what was
    measured is printed.
    """
    arrivals = bad_line(loss, jitter_s)
    lost = len(PACKETS) - len(arrivals)
    heard, quality = await heard_of(arrivals)
    at = np.flatnonzero(loud(heard))
    lasted = (at[-1] - at[0] + 1) / 50
    line = f"loss {loss:.0%}, jitter {jitter_s * 1000:.0f} ms"
    print(
        f"{line}: {lasted:.2f} s of {SECONDS}, holes up to {longest_gap_ms(heard)} ms, {lost} lost, {quality}"
    )
    assert longest_gap_ms(heard) <= 500
    assert SECONDS - 0.25 < lasted < SECONDS + 0.5
    assert quality.concealed_frames >= lost * 2 // 3
    assert quality.lost_packets >= lost * 2 // 3


async def test_a_sender_that_starts_anew_is_heard_on() -> None:
    """Another SSRC in the middle of a call (RFC 3550, 8.2), as when the far end is put through."""
    heard, _ = await heard_of(
        bad_line(0, 0), lambda number: b"raw1" if number < len(PACKETS) // 2 else b"raw2"
    )
    assert loud(heard).sum() / 50 > SECONDS / 2 + 0.5
