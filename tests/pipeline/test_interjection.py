"""A short word over the bot: who is sure of it decides, who is not leaves it to its length."""

from __future__ import annotations

import pytest

from pipeline.interjection import meaning


@pytest.mark.parametrize(
    ("back_channel", "words", "noise", "midway", "over"),
    [
        (0.01, 0.98, 0.01, "barge-in", "barge-in"),
        (0.08, 0.91, 0.01, "open", "likely back-channel"),
        (0.96, 0.03, 0.01, "back-channel", "back-channel"),
        (0.91, 0.08, 0.01, "likely back-channel", "back-channel"),
        (0.5, 0.04, 0.46, "back-channel", "back-channel"),  # one or the other, and neither wants the floor
        (0.5, 0.5, 0.0, "likely back-channel", "likely back-channel"),
        (0.3, 0.6, 0.1, "open", "likely back-channel"),
        (0.03, 0.02, 0.95, "noise", "noise"),
    ],
)
def test_what_is_made_of_it(back_channel: float, words: float, noise: float, midway: str, over: str) -> None:
    kinds = {"back-channel": back_channel, "words": words, "noise": noise}
    assert meaning(kinds, over=False) == midway
    assert meaning(kinds, over=True) == over
