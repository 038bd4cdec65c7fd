"""When the floor changes hands."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TurnSettings:
    """When the floor changes hands."""

    end_ms: int = (
        360  # silence after which the caller's turn is over (the segmenter's stop_ms lies within it)
    )
    finished_ms: int = 240  # the same if they sound as if they had finished
    unfinished_ms: int = 700  # and as if they had not, or have cut in with a word or two
    duck_ms: int = 20  # speech over the bot that lowers its voice
    hold_ms: int = 120  # that makes it hold still
    barge_in_ms: int = 800  # that stops it for good: back-channels ("mm-hm", "yeah, right") are shorter
    judge_ms: int = 0  # silence after which the sound of what was said is judged, as it is midway; 0: never
    again_ms: int = 1200  # speech over the bot counts together with what was said over it so long before
    min_speech_ms: int = 140  # less than this in a whole turn is a noise, not a turn
    max_turn_ms: int = 30_000  # speech that leaves nobody a turn is answered after this: it may be a radio
    silence_ms: int = 0  # of both, after which the caller has fallen silent; 0: they may
    pre_roll_ms: int = 200  # audio kept before speech was noticed: soft onsets are noticed late
    tail_ms: int = 100  # audio kept after the last voiced sample: final consonants are unvoiced
