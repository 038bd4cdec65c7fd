from __future__ import annotations

import pytest

from model_runtime.speaking.schedule import Schedule


def test_the_ramp_ends_in_its_last_size() -> None:
    schedule = Schedule(chunks=(7, 15, 25))
    assert [schedule.size(i) for i in range(5)] == [7, 15, 25, 25, 25]


@pytest.mark.parametrize(
    "wrong",
    [
        {"chunks": ()},
        {"chunks": (8, 0)},
        {"tail_frames": 3},
        {"tail_frames": 0},
        {"hold_frames": 0},
        {"context_frames": -1},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, tuple[int, ...] | int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Schedule(**wrong)  # type: ignore[arg-type]  # wrong on purpose, and of several types
