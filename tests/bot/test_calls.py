"""Admission and the lives of calls."""

from __future__ import annotations

import asyncio

import pytest

from bot.calls import Calls, Refused


class Line:
    """A call that lasts until it is asked to end, or, if stubborn, until it is cancelled."""

    def __init__(self, stubborn: bool = False) -> None:
        self.asked = asyncio.Event()
        self.over = False
        self._stubborn = stubborn

    async def run(self) -> None:
        try:
            await (asyncio.Event() if self._stubborn else self.asked).wait()
        finally:
            self.over = True

    async def end(self) -> None:
        self.asked.set()


async def test_one_more_than_the_limit_is_refused_and_admitted_when_a_place_is_free() -> None:
    calls = Calls(2)
    first, _ = calls.admit(), calls.admit()
    with pytest.raises(Refused, match="busy") as caught:
        calls.admit()
    assert caught.value.code == "full"
    assert caught.value.retry_s > 0
    first.release()
    first.release()
    calls.admit()
    assert calls.full


async def test_the_end_of_a_call_frees_its_place_however_it_ends() -> None:
    calls = Calls(1)

    async def breaks() -> None:
        raise RuntimeError("a fault")

    for run in (breaks, _nothing):
        calls.start(calls.admit(), "call", run, _nothing)
        await _until_free(calls)


async def test_drain_asks_live_calls_to_end_and_takes_no_more() -> None:
    calls = Calls(3)
    polite, stubborn = Line(), Line(stubborn=True)
    calls.start(calls.admit(), "polite", polite.run, polite.end)
    calls.start(calls.admit(), "stubborn", stubborn.run, stubborn.end)
    await asyncio.sleep(0)
    await calls.drain(0.05)
    assert polite.over
    assert stubborn.over
    assert calls.taken == 0
    with pytest.raises(Refused, match="stopped"):
        calls.admit()


async def test_drain_of_nothing_is_done_at_once() -> None:
    await Calls(1).drain(1000)


async def _nothing() -> None:
    pass


async def _until_free(calls: Calls) -> None:
    for _ in range(100):
        await asyncio.sleep(0)
    assert calls.taken == 0
