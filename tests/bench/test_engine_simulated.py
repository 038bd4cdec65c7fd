"""The real scheduling on a device that is only reckoned: what callers would get of it."""

import random
from typing import Any

import pytest
import torch

from model_runtime.engine.ops import Decode
from model_runtime.model import SpeechModel
from model_runtime.protocol import Commit, Done, EngineMessage, Open, Respond, Speech
from tests.bench.cost_model import CostModel
from tests.bench.engine import NANO
from tests.bench.engine_simulated import RECORDED, Crowd, SimulatedKit, Simulation
from tests.bench.report import percentile

FLOOR = CostModel(beyond=1.0, launch=0.0, host=0.0)


@pytest.fixture(scope="module")
def model() -> SpeechModel:
    """Lends its tokens and its template."""
    torch.set_num_threads(1)
    return SpeechModel.load(NANO)


def crowd(model: SpeechModel, callers: int, seconds: float) -> Crowd:
    """What came of so many callers."""
    one = Crowd(Simulation(SimulatedKit(model, CostModel(speech_launches=RECORDED))), callers, seconds)
    one.run()
    return one


def first_ms(one: Crowd, percent: float) -> float:
    """Time to first audio."""
    return percentile([1000 * turn.first_s for turn in one.turns if turn.spoken_s], percent)


def test_the_cost_model_is_that_of_the_specification() -> None:
    """Step-Audio-2-mini on an H200: its table of decode steps, of hearing 2 to 25 s and of reading them."""
    told = {(1, 1000): 3.3, (16, 1000): 3.5, (128, 1000): 5.0, (64, 3000): 5.9, (128, 3000): 8.4}
    for (calls, past), milliseconds in told.items():
        assert 1000 * FLOOR.decode([past] * calls, True) == pytest.approx(milliseconds, abs=0.06)
    for seconds, milliseconds in {2: 0.3, 5: 0.4, 10: 0.85, 25: 2.3}.items():
        assert 1000 * FLOOR.hear(seconds) == pytest.approx(milliseconds, abs=0.05)
    for tokens, milliseconds in {26: 3.3, 126: 3.3, 313: 5.2}.items():
        assert 1000 * FLOOR.prefill(tokens, 0, True) == pytest.approx(milliseconds, abs=0.06)


def test_one_caller_is_answered_within_a_tenth_of_a_second(model: SpeechModel) -> None:
    alone = crowd(model, 1, 30.0)
    assert first_ms(alone, 50) <= 100
    assert not any(turn.late_s for turn in alone.turns)


def test_a_crowd_is_answered_soon_and_never_interrupted_by_silence(model: SpeechModel) -> None:
    """64 callers who have come within four seconds, which is harder than what follows."""
    many = crowd(model, 64, 6.0)
    assert not any(caller.failed for caller in many.callers)
    assert sum(turn.spoken_s > 0 for turn in many.turns) > 64
    assert not [late for turn in many.turns for late in turn.late_s]
    assert first_ms(many, 95) <= 250
    assert many.simulation.stalled_s < 0.24  # the shortest chunk of audio there is
    # Nobody waits for their turn because they said much, or because others are given long answers.
    long = [1000 * turn.first_s for turn in many.turns if turn.spoken_s and turn.talk_s > 15]
    short = [1000 * turn.first_s for turn in many.turns if turn.spoken_s and turn.talk_s < 10]
    assert percentile(long, 95) <= percentile(short, 95) + 60
    assert max(*long, *short) <= 400


class Listener:
    """Asks once, at a given moment, and notes when there was sound."""

    stalled = False

    def __init__(self, simulation: Simulation, asks: float) -> None:
        self._simulation = simulation
        self.asks, self.first, self.until, self.late = asks, 0.0, 0.0, 0.0
        simulation.worker.open(self, Open("listener"))
        simulation.at(asks, lambda: simulation.worker.message(self, Respond(0, text="Hello.")))

    def deliver(self, message: EngineMessage) -> None:
        now = self._simulation.now
        if isinstance(message, Speech) and message.pcm:
            self.first = self.first or now
            self.late = max(self.late, now - self.until if self.until else 0.0)
            self.until = max(self.until, now) + len(message.pcm) / 48_000
        elif isinstance(message, Done):
            self._simulation.worker.message(self, Commit(0))

    def finish(self) -> None:
        pass


def test_many_who_ask_at_one_moment_do_not_silence_those_who_are_heard(model: SpeechModel) -> None:
    simulation = Simulation(SimulatedKit(model, CostModel(speech_launches=RECORDED)))
    heard = [Listener(simulation, random.Random(at).uniform(0, 1.0)) for at in range(32)]
    together = [Listener(simulation, 1.2) for _ in range(32)]
    with torch.inference_mode():
        simulation.run(10.0)
    assert max(one.late for one in (*heard, *together)) == 0
    assert max(one.first - one.asks for one in together) < 0.6


def test_a_chunk_is_rendered_while_others_are_written(model: SpeechModel) -> None:
    """Whose chunk is complete does not wait for somebody more urgent who is being written."""
    simulation = Simulation(SimulatedKit(model, CostModel(speech_launches=RECORDED)))
    for at in range(16):
        Listener(simulation, 0.05 * at)
    waited = 0
    work = simulation._work

    def watch(pieces: list[Any]) -> None:
        nonlocal waited
        ready = any(
            not job.away and type(job.op).__name__ == "Vocode"
            for session in simulation.worker._sessions.values()
            for job in session._jobs
        )
        waited += ready and isinstance(pieces[0].job.op, Decode) and not simulation.device.busy
        work(pieces)

    simulation._work = watch  # type: ignore[method-assign] # to see what is done together
    with torch.inference_mode():
        simulation.run(10.0)
    assert waited == 0
