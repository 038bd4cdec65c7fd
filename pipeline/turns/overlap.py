"""The caller speaks over an answer that is being heard: how far it gives way to them.

By length alone it would hold still at every word and find out afterwards. Who knows sounds is asked as soon
as it would hold, and again while the sound goes on: a back-channel or a noise that is known for one never
makes it fall silent, and it raises its voice again without waiting for its end. At the first pause they are
asked once more, when all of it can be heard.
"""

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
ASK_AGAIN_MS = 40  # of speech that goes on, until what it means is asked again
LIKELY_MS = 40  # for which it puts off holding still for what is likely a back-channel, to hear more of it
# Times in a row that what goes on must be known for a back-channel before the bot raises its voice over it,
# and for words before they stop it: the beginning of the one may sound like the other.
NODS, WORDS = 2, 4
BACK_CHANNEL = 1.5  # times as long as what stops it a back-channel may last, or what is likely one
LOOK_BACK_MS = 600  # of a noise that goes on, in which somebody may have begun to speak


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
    _asked_at: int = -1  # when its sound was last to be judged
    _answered: bool = True  # and whether somebody did
    _noise_from: int | None = None  # where the noise that goes on began
    _nods: int = 0  # how often in a row what goes on was judged a back-channel,
    _words: int = 0  # and words

    def begins(self, at: int) -> None:
        """The caller begins to speak with sample ``at``."""
        self._noise_from, self._nods, self._words = None, 0, 0
        if self.spans and at - self.spans[-1][1] > samples(self.settings.again_ms):
            self._forget()

    def tick(self, tick: Tick, voice: Voice) -> list[Action]:
        """The caller's audio has come further: give way as far as they seem to want it."""
        settings, now, voiced = self.settings, tick.now, tick.voiced
        if tick.far:
            self._far += samples(FRAME_MS)
        # (The silence in which a segment is still open is no part of what must last.)
        if voiced and voice.since is not None and self._lasted(voice) >= samples(settings.hold_ms):
            return self._goes_on(voice)
        if voiced and (self._noise_from is None or voice.since is None):
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
        return [] if tick.far else self._ask_in_pause(now, voice)

    def judged(self, meaning: Meaning, voice: Voice) -> list[Action]:
        """Somebody says what the sound of it means."""
        if self._answered or self._asked_at < voice.voiced_at:  # too late: they have gone on
            return []
        self._answered = True
        midway = self._asked_at == voice.voiced_at
        if meaning == "noise":
            if midway and self._noise_from is None:
                self._noise_from = voice.since
            return self._went_on(voice)
        if midway:
            return self._judged_midway(meaning, voice)
        if meaning == "barge-in":
            return [Stop(self.turn)]
        if meaning == "back-channel":
            return self._went_on(voice)
        if meaning == "likely back-channel" and self._yields is Hold:
            return self._resume()  # what was said counts together with what may follow
        return []  # a voice that is only lowered can wait for more than a stop consonant's pause

    def _judged_midway(self, meaning: Meaning, voice: Voice) -> list[Action]:
        """... while it goes on."""
        lasted = self._lasted(voice)
        short = lasted < BACK_CHANNEL * samples(self.settings.barge_in_ms)
        self._words = self._words + 1 if meaning == "barge-in" else 0
        self._nods = self._nods + 1 if meaning == "back-channel" and short else 0
        if self._words >= WORDS:
            return [Stop(self.turn)]
        if self._nods >= NODS:
            return self._resume()
        if self._nods:
            if self._yields is not Hold:
                return []
            self._yields = Duck
            return [Duck(self.turn)]
        if meaning == "likely back-channel" and short:
            return self._give_way(Hold) if lasted >= samples(self.settings.hold_ms + LIKELY_MS) else []
        return self._by_length(lasted)

    def _went_on(self, voice: Voice) -> list[Action]:
        """The answer does, as if nothing had been said: it does not count with what is said next."""
        self._forget()
        if voice.since is not None:
            voice.since = voice.voiced_at
        return self._resume()

    def _forget(self) -> None:
        self.spans.clear()
        self._far = 0

    def _lasted(self, voice: Voice) -> int:
        """Samples of the caller's own speech, with what was said shortly before."""
        going_on = 0 if voice.since is None else voice.voiced_at - voice.since
        return length(self.spans) + going_on - self._far

    def _goes_on(self, voice: Voice) -> list[Action]:
        """Speech long enough to hold still for."""
        assert voice.since is not None
        now, lasted = voice.voiced_at, self._lasted(voice)
        if not self.settings.judge_ms:
            return self._by_length(lasted)
        if not self._answered:  # there was time for it
            self._answered = True
            return self._by_length(lasted)
        if now - self._asked_at < samples(ASK_AGAIN_MS):
            return []
        self._asked_at, self._answered = now, False
        since = voice.since
        if self._noise_from is not None:
            since = max(self._noise_from, now - samples(LOOK_BACK_MS))
        return [Judge(self.turn, (since, now))]

    def _by_length(self, lasted: int) -> list[Action]:
        if lasted >= samples(self.settings.barge_in_ms):
            return [Stop(self.turn)]
        return self._give_way(Hold)

    def _ask_in_pause(self, now: int, voice: Voice) -> list[Action]:
        """Have all that was said judged, once in each pause."""
        judge = samples(self.settings.judge_ms)
        if voice.since is None or self._asked_at > voice.voiced_at:
            return []
        if self._yields is None and self._noise_from is not None:
            return []
        if 2 * self._far > voice.voiced_at - voice.since:  # these are somebody else's words
            return []
        if not judge or now - voice.voiced_at < judge:
            return []
        self._asked_at, self._answered = now, False
        return [Judge(self.turn, (voice.since, voice.voiced_at))]

    def _patience(self, voice: Voice) -> int:
        """Samples of silence after which an answer held still goes on."""
        lasted = int(PATIENCE * self._lasted(voice))
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
