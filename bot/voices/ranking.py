"""Finding a voice by words: those of its description, what was measured of it, and another voice it is like.

Pure: no clock, no I/O. A search of thousands of voices takes a few milliseconds.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

# Of a score: what the description's words say, what was measured, and how like the other voice it is. One
# attribute asked for and missed outweighs a word found: people forget to write of a voice that it is deep.
WORDS, MEASURED, LIKE = 1.0, 1.2, 1.5
_HEARD = 0.4  # of a word for what was measured, too: a description that keeps silent of it is no worse
_SATURATION, _LENGTH = 1.2, 0.5  # BM25's k1 and b; descriptions are short and of one length
_MIDDLE_PITCH = 155.0  # Hz: between men's and women's usual pitch
_LEAST_SPREAD = np.array([0.08, 0.06, 0.08])  # of log measures: voices closer than that sound the same
_PITCH, _BRIGHTNESS, _RATE = range(3)


@dataclass(frozen=True)
class Known:
    """A voice as far as it is searched. Unknown measures are 0; ``speaker`` is of length 1, or empty."""

    name: str
    description: str = ""
    pitch_hz: float = 0.0
    brightness_hz: float = 0.0
    rate_hz: float = 0.0
    speaker: Sequence[float] = ()


@dataclass(frozen=True)
class Hit:
    """A voice found; ``why`` are the parts of its score: words, measured, like."""

    name: str
    score: float
    why: dict[str, float] = field(default_factory=dict)


class UnknownVoice(ValueError):  # noqa: N818 - it reads as what it is
    """There is no voice of that name to be like."""


def _forms(axis: int, way: float, *words: str) -> dict[str, tuple[int, float]]:
    return dict.fromkeys(words, (axis, way))


# Words for what was measured: which measure, and whether more or less of it is meant.
ATTRIBUTES = {
    **_forms(_PITCH, -1, "deep", "deeper", "deepest", "low", "lower", "lowest", "bass", "baritone"),
    **_forms(_PITCH, 1, "high", "higher", "highest", "squeaky", "soprano", "childlike"),
    **_forms(_BRIGHTNESS, 1, "bright", "brighter", "brightest", "sharp", "sharper", "crisp", "crisper"),
    **_forms(_BRIGHTNESS, 1, "thin", "thinner", "tinny"),
    **_forms(_BRIGHTNESS, -1, "dark", "darker", "darkest", "warm", "warmer", "warmest", "mellow", "soft"),
    **_forms(_BRIGHTNESS, -1, "softer", "muffled", "dull", "duller"),
    **_forms(_RATE, 1, "fast", "faster", "fastest", "quick", "quicker", "quickest", "brisk", "hurried"),
    **_forms(_RATE, -1, "slow", "slower", "slowest", "relaxed", "unhurried"),
}
# These are of the pitch too, but against people's at large and not against this library's.
GENDERS = {
    **dict.fromkeys(("male", "man", "men", "masculine", "boy", "he", "gentleman"), -1.0),
    **dict.fromkeys(("female", "woman", "women", "feminine", "girl", "she", "lady"), 1.0),
}
_GENDER_WORDS = {-1.0: "man", 1.0: "woman"}
_OTHER = {"another", "other", "different", "else", "change", "new"}  # than the voice that is heard
_NOT = {"not", "no", "less", "without", "never"}
_FILLERS = set(
    re.findall(
        r"\w+",
        """a an and are as at be bit but by can for from i in is it like little more much of on or please
        rather so some someone something sound sounding speaker speaking than that the this to too very voice
        want which who with you your""",
    )
)
_WORD = re.compile(r"[a-z0-9']+|[^\W\d_]")  # Latin words; of scripts without spaces each character


def words(text: str) -> list[str]:
    """The words of a text, in lower case, without a plural's s; those for one gender are one word."""
    return [_word(word) for word in _WORD.findall(text.lower())]


def _word(word: str) -> str:
    if len(word) > 3 and word.endswith("s") and word[-2] not in "isu":
        word = word[:-1]
    return _GENDER_WORDS.get(GENDERS.get(word, 0.0), word)


@dataclass(frozen=True)
class Query:
    """A search understood: words to find, ways in which each measure should differ, and the gender meant.

    ``other``: what is wanted is said to be another voice.
    """

    words: tuple[str, ...] = ()
    ways: tuple[tuple[int, float], ...] = ()
    gender: float = 0.0
    other: bool = False

    @property
    def anything(self) -> bool:
        """Any voice will do: nothing is said of how it should sound."""
        return not (self.words or self.ways or self.gender)


def understand(text: str) -> Query:
    """Take a text apart. "not", "less" and the like turn the next word that describes a sound around."""
    said, ways, gender, turned, other = [], {}, 0.0, False, False
    for word in words(text):
        if word in _OTHER:
            other = True
            continue
        if word in _NOT:
            turned = True
            continue
        if word in _FILLERS:
            continue
        sign = -1.0 if turned else 1.0
        if word in ATTRIBUTES:
            axis, way = ATTRIBUTES[word]
            ways[axis] = sign * way
        elif word in GENDERS:
            gender = sign * GENDERS[word]
        if not turned:  # what is not wanted is not to be found either
            said.append(word)
        turned = False
    return Query(tuple(dict.fromkeys(said)), tuple(ways.items()), gender, other)


class Ranking:
    """Voices ready to be searched. Building costs a pass over them, a search a few numpy operations."""

    def __init__(self, voices: Sequence[Known]) -> None:
        """``voices`` in any order; of two of one name the last is the one to be like."""
        self._names = [voice.name for voice in voices]
        self._at = {name: at for at, name in enumerate(self._names)}
        self._postings = _postings([f"{voice.name} {voice.description}" for voice in voices])
        self._rarest = _rarity(0, len(voices))  # a word that no description has
        hertz = np.array(
            [(v.pitch_hz, v.brightness_hz, v.rate_hz) for v in voices], dtype=np.float64
        ).reshape(-1, 3)
        # Steps are heard as ratios, so measures are compared by their logarithms. NaN: not known.
        self._logs = np.log(np.where(hertz > 0, hertz, np.nan))
        self._middle, self._spread = _middle_and_spread(self._logs)
        width = max((len(voice.speaker) for voice in voices), default=0)
        nothing = [0.0] * width
        self._speakers = np.array(
            [voice.speaker if len(voice.speaker) == width else nothing for voice in voices], dtype=np.float32
        ).reshape(len(voices), width)

    def search(self, text: str, like: str = "", limit: int = 10) -> list[Hit]:
        """The best ``limit`` voices, best first; with ``like`` others that sound like it, never itself.

        Against ``like``, "deeper" and the like mean deeper than that voice, else than most. Raises
        ``UnknownVoice``.
        """
        if like and like not in self._at:
            raise UnknownVoice(f"There is no voice {like!r}; there are: {', '.join(sorted(self._at))}.")
        if not self._names:
            return []
        query = understand(text)
        model = self._at[like] if like else None
        parts: dict[str, Vector] = {}
        if query.words:
            parts["words"] = WORDS * self._words(query.words)
        if query.ways or query.gender:
            parts["measured"] = MEASURED * self._measured(query, model)
        if model is not None:
            parts["like"] = LIKE * np.einsum("nd,d->n", self._speakers, self._speakers[model])
        scores = np.sum(list(parts.values()), axis=0) if parts else np.zeros(len(self._names))
        best = np.argsort(-scores, kind="stable")[: limit + 1].tolist()
        order = [at for at in best if at != model][:limit]
        return [
            Hit(self._names[at], float(scores[at]), {name: float(part[at]) for name, part in parts.items()})
            for at in order
        ]

    def _words(self, asked: Sequence[str]) -> Vector:
        """BM25 [N], divided by what a description of all these words would have: 0 to about 1."""
        scores = np.zeros(len(self._names))
        best = 0.0
        for word in asked:
            rarity, at, weights = self._postings.get(word, (self._rarest, *_NOWHERE))
            scores[at] += rarity * weights * (_HEARD if word in ATTRIBUTES or word in GENDERS else 1.0)
            best += rarity
        return scores / best if best else scores

    def _measured(self, query: Query, model: int | None) -> Vector:
        """How far [N] each voice goes the ways that were asked for: -1 the other way, 0 unknown, to 1.

        Who asks for the like of a voice, but deeper, is not served by one that is just as deep: so against
        ``model`` half a spread is asked for before it counts as gone at all.
        """
        gone = []
        for axis, way in query.ways:
            middle = self._middle[axis] if model is None else self._logs[model, axis]
            steps = way * (self._logs[:, axis] - middle) / self._spread[axis]
            gone.append(np.tanh(steps if model is None else 2 * steps - 1))
        if query.gender:
            octaves = (self._logs[:, _PITCH] - math.log(_MIDDLE_PITCH)) / math.log(2)
            gone.append(query.gender * np.tanh(3 * octaves))  # a third of an octave is clear enough
        return np.asarray(np.nan_to_num(gone).mean(axis=0))


_NOWHERE = (np.zeros(0, np.intp), np.zeros(0))


def _postings(texts: Sequence[str]) -> dict[str, tuple[float, NDArray[np.intp], Vector]]:
    """Of each word: how rare it is, the texts that have it, and BM25's weight of it in each (at most 1)."""
    counts = [Counter(words(text)) for text in texts]
    usual = sum(map(Counter.total, counts)) / max(1, len(counts)) or 1.0
    where: dict[str, list[tuple[int, float]]] = {}
    for at, count in enumerate(counts):
        long = 1 - _LENGTH + _LENGTH * count.total() / usual
        for word, times in count.items():
            where.setdefault(word, []).append((at, times / (times + _SATURATION * long) * (1 + _SATURATION)))
    return {
        word: (
            _rarity(len(found), len(texts)),
            np.array([at for at, _ in found], np.intp),
            np.array([weight for _, weight in found]),
        )
        for word, found in where.items()
    }


def _rarity(found: int, of: int) -> float:
    """BM25's inverse document frequency, which is never negative."""
    return math.log(1 + (of - found + 0.5) / (found + 0.5))


def _middle_and_spread(logs: Vector) -> tuple[Vector, Vector]:
    """Median and standard deviation of each measure over the voices where it is known."""
    middle, spread = np.zeros(3), _LEAST_SPREAD.copy()
    for axis in range(3):
        known = logs[:, axis][~np.isnan(logs[:, axis])]
        if len(known):
            middle[axis] = np.median(known)
            spread[axis] = max(spread[axis], known.std())
    return middle, spread
