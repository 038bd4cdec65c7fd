"""Who has the floor, as far as it can be set: ``PARLEY_TURNS__*``."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from bot.setting_group import Group
from pipeline import segmenter, turns

_TURNS = turns.TurnSettings()  # the defaults are the pipeline's own
_SPEECH = segmenter.SegmenterSettings()


class TurnSettings(Group):
    """When the caller is taken to have begun, paused and finished."""

    # Longer than the pipeline's, which asks nobody: whole turns are mostly known for such, and end sooner.
    end_ms: int = Field(default=480, ge=0, description="Silence in ms after which the caller's turn is over.")
    judge_ends: bool = Field(
        default=True,
        description="Whether who pauses has finished is judged by their sound, too (English agents only), "
        "and not by silence alone.",
    )
    smart_turn: bool = Field(
        default=True,
        description="Whether Smart Turn v3 judges that, too (23 languages), unless `judge_ends` is sure that "
        "it is over, as far as there is time: it takes up to half a core.",
    )
    finished_ms: int = Field(
        default=_TURNS.finished_ms,
        ge=0,
        description="Silence in ms after which a turn is over that sounds finished.",
    )
    unfinished_ms: int = Field(
        default=900,
        ge=0,
        description="Silence in ms after which a turn is over that does not sound finished, or is but a word "
        "or two that stopped the bot.",
    )
    hold_ms: int = Field(
        default=_TURNS.hold_ms,
        ge=0,
        description="Speech over the bot, in ms, that makes it hold still, to go on or to stop.",
    )
    barge_in_ms: int = Field(
        default=_TURNS.barge_in_ms, ge=0, description="Speech over the bot, in ms, that stops it for good."
    )
    judge_ms: int = Field(
        default=40,
        ge=0,
        description="Silence in ms after a short word over the bot, after which it is judged by its sound, "
        'as it is while it goes on: a back-channel ("mm-hm"), words or a noise. English agents only. 0: '
        "never, by its length alone.",
    )
    min_speech_ms: int = Field(
        default=_TURNS.min_speech_ms,
        ge=0,
        description="Less speech than this, in ms, is a noise and not a turn.",
    )
    max_turn_ms: int = Field(
        default=_TURNS.max_turn_ms,
        gt=0,
        description="Speech that leaves nobody a turn is answered after this many ms of it.",
    )
    pause_ms: int = Field(
        default=_SPEECH.stop_ms,
        ge=0,
        description="Silence in ms after which an answer is begun, unheard; below `end_ms`.",
    )
    aggressiveness: int = Field(
        default=_SPEECH.aggressiveness,
        ge=0,
        le=3,
        description="How readily sound is taken for noise (webrtcvad's 0 to 3).",
    )
    tell: bool = Field(
        default=False,
        description="Whether pages are told what is decided of who has the floor, and when "
        "(`decided` messages), to look at.",
    )

    @field_validator("pause_ms")
    @classmethod
    def _within_the_end(cls, pause_ms: int, info: ValidationInfo) -> int:
        end_ms = info.data.get("end_ms", _TURNS.end_ms)
        if pause_ms > end_ms:
            raise ValueError(f"at most `end_ms`, which is {end_ms}")
        return pause_ms
