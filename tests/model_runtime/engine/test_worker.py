"""The thread that decides: what it does for a session, unit by unit, and when it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from model_runtime.engine.job import Purpose
from model_runtime.engine.ops import Decode, Hear, Op, Prefill, Vocode
from model_runtime.engine.worker import Piece, Worker
from model_runtime.protocol import Audio, Cancel, Done, Drop, EngineMessage, Open, Respond, Sampling
from tests.model_runtime.engine.live import PATIENCE, working
from tests.model_runtime.engine.rig import settings


@dataclass(eq=False)
class Line:
    """The other end of a session, which keeps what it is told."""

    said: list[EngineMessage] = field(default_factory=list)
    stalled: bool = False
    finished: bool = False

    def deliver(self, message: EngineMessage) -> None:
        self.said.append(message)

    def finish(self) -> None:
        self.finished = True

    async def done(self, turn: int) -> Done:
        """The end of that response."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for message in list(self.said):
                    if isinstance(message, Done) and message.turn == turn:
                        return message
                await asyncio.sleep(0.001)


def opened(worker: Worker, seed: int) -> Line:
    """A call that has heard a second of noise."""
    line = Line()
    noise = np.random.default_rng(seed).integers(-8000, 8000, 16_000, dtype=np.int16)
    worker.open(line, Open(f"call{seed}", instructions="Hi.", sampling=Sampling(temperature=1.0, seed=seed)))
    worker.message(line, Audio(noise.tobytes()))
    return line


@pytest.mark.parametrize(
    ("others", "units_before"), [(0, [*range(5), *range(14, 19)]), (1, [2, 3, 9, 16, 17])]
)
async def test_a_cancelled_answer_costs_no_more_than_the_unit_of_work_it_meets(
    others: int, units_before: Sequence[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever that is: the cancel comes when the messages before it have just been taken."""
    chosen = settings(slot_masking=True, max_reply_s=0.64, max_text_tokens=5)
    async with working(chosen) as (worker, _):
        call, *rest = (opened(worker, seed) for seed in range(1 + others))
        work = worker._work
        units: list[Op | None] = []  # of the call's answer
        together: list[int] = []

        def counted(pieces: list[Piece]) -> None:
            mine = [p.job.op for p in pieces if p.port is call and p.job.purpose is Purpose.RESPONSE]
            if mine:
                units.extend(mine)
                together.append(len(pieces))
                if len(units) == before + 1:
                    worker.message(call, Cancel(turn))
            work(pieces)

        monkeypatch.setattr(worker, "_work", counted)
        met: set[type] = set()
        for turn, before in enumerate(units_before):
            units.clear()
            for line in (call, *rest):  # something else each time: what was heard is not encoded again
                worker.message(line, Respond(turn, spans=[(turn, 16_000)]))
            end = await call.done(turn)
            for line in rest:
                await line.done(turn)  # all the while there was time for one who was not to be served
                worker.message(line, Drop(turn))
            for _ in range(3):  # each is told after one more look at what there is to do
                await asyncio.wrap_future(worker.figures())
            if end.reason == "cancelled":
                assert len(units) == before + 1
                assert call.said[-1] == end
                met.add(type(units[-1]))
            worker.message(call, Drop(turn))
        assert met >= ({Prefill, Decode, Vocode} if others else {Hear, Prefill, Decode, Vocode})
        assert max(together) > 1 or not others
        for line in (call, *rest):
            worker.leave(line)
        await asyncio.wrap_future(worker.figures())
        assert all(line.finished for line in (call, *rest))
