"""A turn machine driven in milliseconds, as segmenter and stage would."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.segmenter import RATE, SpeechStart, SpeechStop
from pipeline.turns import (
    Action,
    Duck,
    Event,
    Heard,
    Hold,
    Judge,
    Judged,
    Meaning,
    Speak,
    Stop,
    Tick,
    Turns,
    TurnSettings,
)

STOP_MS = 160  # when a segmenter knows
START_MS = 60
SETTINGS = TurnSettings(
    end_ms=400,
    finished_ms=260,
    unfinished_ms=800,
    duck_ms=40,
    hold_ms=200,
    barge_in_ms=600,
    again_ms=1200,
    min_speech_ms=140,
    max_turn_ms=5000,
)
INTERRUPTED = [Duck(0), Hold(0), Stop(0)]


def at(ms: int) -> int:
    return RATE * ms // 1000


@dataclass
class Floor:
    """Drives a machine in milliseconds, as segmenter and stage would.

    ``midway``: what is told of speech that goes on, at once and whenever it is asked; else that stays open.
    """

    turns: Turns = field(default_factory=lambda: Turns(SETTINGS))
    ms: int = 0
    midway: Meaning | None = None

    def go(self, event: Event) -> list[Action]:
        actions = self.turns.handle(event)
        if self.midway is None:
            return actions
        told: list[Action] = []
        for action in actions:
            if isinstance(action, Judge) and action.span[1] == at(self.ms):
                told += self.turns.handle(Judged(action.turn, self.midway))
            else:
                told.append(action)
        return told

    def speak(self, ms: int, begun: int = 0) -> list[Action]:
        """Speech for ``ms``, noticed after ``START_MS``; ends without the silence that says so.

        ``begun``: so many ms of it have been already.
        """
        actions: list[Action] = []
        begun = self.ms - begun
        for _ in range(ms // 20):
            self.ms += 20
            if self.ms - begun == START_MS:
                actions += self.go(SpeechStart(at(begun), at(self.ms)))
            actions += self.go(Tick(at(self.ms), voiced=True))
        return actions

    def silent(self, ms: int, begun: int = 0) -> list[Action]:
        """Silence for ``ms``, noticed after ``STOP_MS``. ``begun``: so many ms of it have been already."""
        actions: list[Action] = []
        begun = self.ms - begun
        for _ in range(ms // 20):
            self.ms += 20
            if self.ms - begun == STOP_MS:
                actions += self.go(SpeechStop(at(begun), at(self.ms)))
            actions += self.go(Tick(at(self.ms)))
        return actions

    def quiet(self, ms: int) -> list[Action]:
        """Silence that began long ago."""
        actions = []
        for _ in range(ms // 20):
            self.ms += 20
            actions += self.go(Tick(at(self.ms)))
        return actions


def answered(floor: Floor, heard: bool = True) -> None:
    floor.speak(1000)
    assert floor.silent(500)[-1] == Speak(0)
    if heard:
        assert floor.go(Heard(0)) == []
