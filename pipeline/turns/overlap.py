"""The caller speaks over an answer that is being heard: how far it gives way to them."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.segmenter import FRAME_MS
from pipeline.turns.clock import Span, length, samples
from pipeline.turns.events import Action, Dip, Duck, Hold, Judge, Meaning, Resume, Stop, Tick
from pipeline.turns.settings import TurnSettings

DIP_MS = 100  # for a sound that has begun to turn out to be a voice, or the bot raises its own again
DIP_AGAIN_MS = 1000  # after one that did not: who types, or sits in a street, would make its voice flutter
CALM_MS = 100  # without voice, after which the bot raises its voice that it has only lowered
# Once it holds still it waits for half as long again as was spoken over it, within these bounds. Who cuts in
# pauses as well, and longer after more ("no, ... wait"); a cough is soon over.
PATIENCE, PATIENT_FROM_MS, PATIENT_TO_MS = 1.5, 200, 700


Yield = type[Dip] | type[Duck] | type[Hold]
STEPS: tuple[Yield | None, ...] = (None, Dip, Duck, Hold)


@dataclass
class Voice:
    """The caller's, as far as it has been heard, in samples."""

    since: int | None = None  # where the speech going on began
    ended: int = 0  # where the last one did
    voiced_at: int = 0  # the last tick with voice
    silent_at: int = 0  # and without


@dataclass
class Overlap:
    """What is said over the answer to ``turn``.

    An answer that is given up has a ``Stop`` among the actions; ``spans`` then begin a turn.
    """

    turn: int
    settings: TurnSettings
    spans: list[Span] = field(default_factory=list)  # speech over it that has not stopped it
    _yields: Yield | None = None  # how far it has given way
    _dipped_at: int = -samples(DIP_AGAIN_MS)  # for the last sound that was not known to be a voice
    _far: int = 0  # samples of all that speech that are somebody else's
    _judged_at: int = -1  # the last voice that was judged with what came before it

    def begins(self, at: int) -> None:
        """The caller begins to speak with sample ``at``."""
        if self.spans and at - self.spans[-1][1] > samples(self.settings.again_ms):
            self._forget()

    def tick(self, tick: Tick, voice: Voice) -> list[Action]:
        """The caller's audio has come further: give way as far as they seem to want it."""
        settings, now, voiced = self.settings, tick.now, tick.voiced
        if tick.far:
            self._far += samples(FRAME_MS)
        if voiced and voice.since is not None:
            # The silence in which a segment is still open is no part of what must last.
            lasted = now - voice.since + length(self.spans) - self._far
            if lasted >= samples(settings.barge_in_ms):
                return [Stop(self.turn)]
            if lasted >= samples(settings.hold_ms):
                return self._give_way(Hold)
        if voiced:
            # (Voice that has long gone on and is no segment is what nobody was left a turn for.)
            begins = samples(settings.duck_ms) <= now - voice.silent_at < samples(settings.hold_ms)
            if begins or voice.since is not None:
                self._dipped_at = -samples(DIP_AGAIN_MS)
                return self._give_way(Duck)
        if tick.onset and self._yields is None and now - self._dipped_at >= samples(DIP_AGAIN_MS):
            self._dipped_at = now
            return self._give_way(Dip)
        if self._yields is Dip:
            return self._resume() if now - self._dipped_at >= samples(DIP_MS) else []
        if voiced:
            return []
        calm = samples(CALM_MS) if self._yields is Duck else self._patience(voice)
        if now - voice.voiced_at >= calm:
            return self._resume()
        return self._ask(now, voice) if self._yields is Hold and not tick.far else []

    def judged(self, meaning: Meaning, voice: Voice) -> list[Action]:
        """Somebody says what the sound of it means."""
        if self._yields is not Hold or voice.voiced_at != self._judged_at:  # too late: they have gone on
            return []
        if meaning == "barge-in":
            return [Stop(self.turn)]
        if meaning == "likely back-channel":
            return self._resume()  # what was said counts together with what may follow
        if meaning == "back-channel":
            # It does not count together with what is said next.
            self._forget()
            if voice.since is not None:
                voice.since = voice.voiced_at
            return self._resume()
        return []

    def _forget(self) -> None:
        self.spans.clear()
        self._far = 0

    def _ask(self, now: int, voice: Voice) -> list[Action]:
        """Have what the answer holds still for judged, once in each pause."""
        judge = samples(self.settings.judge_ms)
        if voice.since is None or self._judged_at == voice.voiced_at:
            return []
        if 2 * self._far > voice.voiced_at - voice.since:  # these are somebody else's words
            return []
        if not judge or now - voice.voiced_at < judge:
            return []
        self._judged_at = voice.voiced_at
        return [Judge(self.turn, (voice.since, voice.voiced_at))]

    def _patience(self, voice: Voice) -> int:
        """Samples of silence after which an answer held still goes on."""
        going_on = 0 if voice.since is None else voice.voiced_at - voice.since
        lasted = int(PATIENCE * (length(self.spans) + going_on - self._far))
        return min(max(lasted, samples(PATIENT_FROM_MS)), samples(PATIENT_TO_MS))

    def _give_way(self, how: Yield) -> list[Action]:
        if STEPS.index(self._yields) >= STEPS.index(how):
            return []
        self._yields = how
        return [how(self.turn)]

    def _resume(self) -> list[Action]:
        if self._yields is None:
            return []
        self._yields = None
        return [Resume(self.turn)]
