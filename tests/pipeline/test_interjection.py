"""A short word over the bot: who is sure of it decides, who is not leaves it to its length."""

from __future__ import annotations

import pytest

from pipeline.interjection import meaning


@pytest.mark.parametrize(
    ("back_channel", "words", "noise", "meant"),
    [
        (0.01, 0.98, 0.01, "barge-in"),
        (0.05, 0.94, 0.01, "open"),
        (0.95, 0.04, 0.01, "back-channel"),
        (0.5, 0.05, 0.45, "back-channel"),  # it is one or the other, and neither wants the floor
        (0.5, 0.5, 0.0, "likely back-channel"),
        (0.3, 0.6, 0.1, "open"),
        (0.03, 0.02, 0.95, "noise"),
    ],
)
def test_what_is_made_of_it(back_channel: float, words: float, noise: float, meant: str) -> None:
    assert meaning({"back-channel": back_channel, "words": words, "noise": noise}) == meant
