"""A reply that goes round in circles is noticed; an ordinary one is not."""

import itertools
import random

from model_runtime.engine.guards import MUTE_GROUPS, LoopGuard


def fed(groups: list[tuple[str, list[int]]]) -> str:
    guard = LoopGuard()
    for text, codes in groups:
        guard.push(text, codes)
        if guard.problem:
            break
    return guard.problem


def sound(seed: int, groups: int) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(6561) for _ in range(4)] for _ in range(groups)]


def test_an_ordinary_minute_passes() -> None:
    words = [f" word{n}" if n % 5 < 3 else "" for n in range(375)]
    assert not fed(list(zip(words, sound(1, 375), strict=True)))


def test_the_same_words_over_and_over_are_noticed() -> None:
    words = itertools.cycle(["嗯", "，"])
    assert fed([(next(words), codes) for codes in sound(2, 60)]) == "the text repeats itself"


def test_saying_no_eight_times_is_not_a_loop() -> None:
    words = [" no,"] * 8 + [f" w{n}" for n in range(20)]
    assert not fed(list(zip(words, sound(3, 28), strict=True)))


def test_a_stuck_sound_is_noticed_and_a_pause_is_not() -> None:
    silence = [("", [7, 7, 7, 7])]
    words = [(f" w{n}", codes) for n, codes in enumerate(sound(4, 10))]
    assert not fed(words + silence * 12 + words)  # 2 s
    assert fed(words + silence * 50) == "the sound repeats itself"


def test_sound_long_after_the_words_is_noticed() -> None:
    words = [(f" w{n}", codes) for n, codes in enumerate(sound(5, 6))]
    assert fed(words + [("", codes) for codes in sound(6, 100)]) == "the words ended long ago"


def test_words_without_sound_are_noticed_early_and_sound_that_comes_late_is_not_lost() -> None:
    guard = LoopGuard()
    for n in range(MUTE_GROUPS - 1):
        guard.push(f" w{n}", [])
    assert not guard.mute
    guard.push(" w", [7])
    for n in range(MUTE_GROUPS):
        guard.push(f" w{n}", [])
    assert not guard.mute
