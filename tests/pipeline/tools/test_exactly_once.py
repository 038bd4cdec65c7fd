"""However calls are interrupted, speculated, resumed and retried: each effect once, each result once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from loguru import logger

from tests.pipeline.tools.virtual import VirtualCall, in_virtual_time


@contextmanager
def quiet() -> Iterator[None]:
    logger.disable("pipeline")
    try:
        yield
    finally:
        logger.enable("pipeline")


def lived(seed: int) -> VirtualCall:
    """One conversation by this seed, and what must be true of every one."""
    call = VirtualCall(seed)
    in_virtual_time(call.live())
    fate = call.fate
    assert not fate.faults, seed
    assert max(Counter(fate.effects).values(), default=1) == 1, seed  # nothing is done twice
    assert call.owed == 0, seed  # nothing is kept back for ever
    assert call.results.keys() == fate.given, seed  # no result is lost
    assert max(call.results.values(), default=1) == 1, seed  # and none is told twice
    for key in fate.finished:
        assert call.contents[f"booked {key}"] <= 1, seed
    return call


def test_in_any_order_of_events() -> None:
    with quiet():
        calls = [lived(seed) for seed in range(100)]
    # The dice do reach what is tested: turns that asked for tools, and results of all kinds.
    assert sum(len(call.fate.effects) for call in calls) > 100
    assert sum(call.fate.asides for call in calls) > 60
    told = Counter(content.split(" ")[0] for call in calls for content in call.contents)
    assert told["booked"] > 60
    assert told["Error:"] > 20


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_in_ten_thousand_orders_of_events(part: int) -> None:
    with quiet():
        for seed in range(1000 * part, 1000 * (part + 1)):
            lived(seed)
