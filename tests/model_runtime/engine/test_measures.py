"""What an engine counts of its own work, on a clock that moves when told to."""

from __future__ import annotations

import math
from contextlib import suppress

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.engine.figures import Figures, Work
from model_runtime.engine.measures import Measures, stored
from model_runtime.engine.ops import Decode, Vocode
from model_runtime.interleave import InterleaveParser
from model_runtime.protocol import Done, Respond, Sampling
from tests.model_runtime.engine.rig import Clock, Rig, model


def test_a_percentile_is_the_time_of_one_of_the_units_up_to_two_percent() -> None:
    work = Work()
    for milliseconds in range(1, 101):
        work.add(milliseconds / 1000, items=3)
    assert (work.units, work.items) == (100, 300)
    assert work.seconds == pytest.approx(5.05)
    for percent in (1, 50, 95, 100):
        assert percent / 1000 <= work.percentile(percent) <= 1.02 * percent / 1000
    assert math.isnan(Work().percentile(50))


times = st.lists(st.floats(0, 1000), max_size=20)


@given(times, times)
def test_what_lies_between_two_answers_is_what_was_done_between(
    first: list[float], second: list[float]
) -> None:
    def after(seconds: list[float]) -> Work:
        work = Work()
        for one in seconds:
            work.add(one, 1, read=7)
        return work

    between, alone = after(first + second).since(after(first)), after(second)
    assert (between.units, between.items, between.read) == (alone.units, alone.items, alone.read)
    assert between.times == alone.times
    assert between.seconds == pytest.approx(alone.seconds, abs=1e-6)


def test_figures_survive_the_wire() -> None:
    work = Work()
    work.add(0.5, 2, 99)
    told = Figures("cpu", "float32", 1.0, {"decode": work})
    assert msgspec.json.decode(msgspec.json.encode(told), type=Figures) == told


def test_each_second_goes_to_the_work_it_was_spent_on() -> None:
    clock = Clock()
    rig = Rig()
    measures = Measures(model(), rig.kit.memory, clock)
    cache = rig.kit.model.new_cache(512)
    step = Decode(cache, 0, rig.kit.best)
    chunk = Vocode(rig.kit.stream(next(iter(rig.kit.model.voices.values()))), [], False)
    with measures.waiting():
        clock.now += 0.5
        assert measures.told().waited == 0.5  # whoever asks while nothing is done
        clock.now += 0.5
    with measures.unit([step, step]):
        clock.now += 2
        with measures.rendering([chunk]):  # on the other thread, meanwhile
            clock.now += 4
    with measures.unit([chunk]):  # handed over
        clock.now += 8
    with suppress(RuntimeError), measures.unit([None]):
        clock.now += 16
        raise RuntimeError
    told = measures.told()
    assert told.waited == 1
    spent = {kind: (work.units, work.items, work.seconds) for kind, work in told.work.items() if work.units}
    assert spent == {"decode": (1, 2, 6), "vocode": (1, 1, 4), "other": (2, 2, 24)}


def test_a_step_must_read_the_layers_the_rows_it_scores_and_the_pasts() -> None:
    rig = Rig()
    kit, backbone = rig.kit, rig.kit.model.backbone
    hidden, layers = backbone.config.hidden_size, backbone.config.num_hidden_layers
    body = sum(
        part.nbytes for part in [*backbone.model.layers.parameters(), *backbone.model.norm.parameters()]
    )
    position = 2 * 4 * layers * backbone.config.num_key_value_heads * backbone.config.head_dim

    def read(*parsers: InterleaveParser) -> int:
        steps = []
        for parser in parsers:
            cache = kit.model.new_cache(512)
            kit.model.prefill(cache, [1, 2, 3])
            draw = kit.draws(
                Sampling(),
            ).speaking([], parser)
            steps.append(Decode(cache, 0, draw))
        measures = Measures(kit.model, kit.memory, Clock())
        with measures.unit(steps):
            pass
        return measures.told().work["decode"].read

    kit.masked = True
    text, audio = kit.parser(speaking=True), kit.parser(speaking=True)
    audio.push([kit.tokens.tts_pad])
    whole, codes = 4 * hidden * backbone.config.vocab_size, 4 * hidden * 6562
    assert read(text) == body + whole + 3 * position
    assert read(audio) == body + codes + 3 * position
    assert read(audio, audio) == body + codes + 6 * position  # the weights once for both
    assert read(text, audio) == body + whole + 6 * position


def test_memory_is_counted_while_somebody_holds_it() -> None:
    rig = Rig(slot_masking=True, max_reply_s=3.2, max_text_tokens=20)
    rig.kit.script = [*rig.kit.spoken(20), rig.tokens.tts_end, rig.tokens.eot]
    empty = rig.kit.measures.told().memory
    rig.send(Respond(0, text="Say something."))
    rig.run(until=lambda: len(rig.kit.script) < 20)  # four chunks are made, and one is being waited for
    speaking = rig.kit.measures.told().memory
    rig.run()
    assert rig.last(Done).groups == 20
    rig.session.close()
    left = rig.kit.measures.told().memory
    assert speaking.kv_cache > 0
    assert speaking.flow > empty.flow
    assert (left.kv_cache, left.weights) == (0, empty.weights)
    for memory in (empty, speaking, left):
        assert memory.used == memory.weights + memory.kv_cache + memory.flow + memory.rest


def test_memory_that_several_tensors_lie_in_is_counted_once() -> None:
    whole = torch.zeros(10, 4)
    assert stored([whole[:5], whole[5:], whole.t(), torch.zeros(2)]) == 160 + 8
