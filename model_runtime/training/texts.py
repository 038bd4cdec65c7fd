"""What callers say to nano.

Wordings by intent, the phrases around them, and speech of other worlds to be refused.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

DATA = Path(__file__).with_name("data")
SHOP = Path(__file__).with_name("shop.yaml")
WORDNET = Path("/usr/share/wordnet")  # Debian's wordnet-base: example sentences in quotation marks
REFUSE = "refuse"  # the label of everything nano does not know
REFUSAL_WEIGHT = 0.4  # refused speech is far commoner than any intent: what is doubtful would all go there
REPEAT = "repeat"  # the one intent whose answer depends on the turn before
FRAMED = 0.45  # share of questions that are said with a phrase before or after them
_NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@dataclass(frozen=True)
class Question:
    """One thing a caller says.

    ``words`` are lower case and spelled out; ``intent`` is a name of shop.yaml or ``refuse``.
    """

    words: str
    intent: str


@dataclass(frozen=True)
class Request:
    """What is asked of a tool: its call, what is said ``before``, and ``after`` its result (or nothing)."""

    tool: str
    arguments: dict[str, Any]
    before: str
    after: str = ""


@dataclass(frozen=True)
class Shop:
    """What nano says: ``answers`` by intent (``repeat`` has none of its own), and what it does by tools."""

    greeting: str
    refuse: str
    answers: dict[str, str]
    requests: dict[str, Request]

    @property
    def spoken(self) -> list[str]:
        """What a question can be answered with: greeting, refusal, then the answers in the file's order."""
        return [self.greeting, self.refuse, *self.answers.values()]

    def answer(self, intent: str, previous: str = "", tools: Collection[str] = ()) -> str:
        """The answer to an intent, ``previous`` being what nano said last.

        Nothing yet means that it greets again. What a tool does that is not among ``tools`` is refused.
        """
        if intent in self.requests:
            request = self.requests[intent]
            return request.before if request.tool in tools else self.refuse
        if intent == REFUSE:
            return self.refuse
        if intent == REPEAT:
            return previous or self.greeting
        return self.answers[intent]


@lru_cache(maxsize=1)
def shop() -> Shop:
    """The shop's greeting, refusal and fixed answers."""
    read = yaml.safe_load(SHOP.read_text())
    answers = {name: text for name, text in read["intents"].items() if name != REPEAT}
    requests = {
        name: Request(
            **what, **{when: read["tools"][what["tool"]].get(when, "") for when in ("before", "after")}
        )
        for name, what in yaml.safe_load((DATA / "requests.yaml").read_text()).items()
    }
    return Shop(read["greeting"], read["refuse"], answers, requests)


def expand(pattern: str) -> list[str]:
    """All ways to say a pattern.

    ``(a|b)`` is one of several, ``[a]`` may be left out; one may stand in the other.
    """
    inner = re.search(r"\(([^()\[\]]*)\)|\[([^()\[\]]*)\]", pattern)
    if inner is None:
        return [" ".join(pattern.split())]
    ways = inner[1].split("|") if inner[1] is not None else [*inner[2].split("|"), ""]
    spread = [
        said for way in ways for said in expand(pattern[: inner.start()] + way + pattern[inner.end() :])
    ]
    return list(dict.fromkeys(spread))


@lru_cache(maxsize=1)
def intents() -> list[str]:
    """The names of the intents, in the order of shop.yaml."""
    return list(yaml.safe_load(SHOP.read_text())["intents"])


@lru_cache(maxsize=1)
def labels() -> list[str]:
    """All that the ears tell apart: the intents, what is to be refused, and what a tool does."""
    return [*intents(), REFUSE, *shop().requests]


@lru_cache(maxsize=3)
def wordings(kind: str = "known") -> dict[str, list[list[str]]]:
    """By intent, the patterns and what each expands to.

    ``kind`` is ``known`` (trained on), ``new`` (never) or ``later`` (not yet).
    """
    read = yaml.safe_load((DATA / "wordings.yaml").read_text())
    return {name: [expand(pattern) for pattern in read[name].get(kind, ())] for name in read}


@lru_cache(maxsize=1)
def _frames() -> dict[str, list[str]]:
    read: dict[str, list[str]] = yaml.safe_load((DATA / "frames.yaml").read_text())
    return read


@lru_cache(maxsize=2)
def negatives(kind: str = "known") -> list[list[str]]:
    """Patterns of other worlds, each expanded."""
    return [expand(pattern) for pattern in yaml.safe_load((DATA / "negatives.yaml").read_text())[kind]]


@lru_cache(maxsize=2)
def open_sentences(kind: str = "known") -> list[str]:
    """WordNet's example sentences of 2 to 12 plain words.

    One in five, by hash, is ``new``: kept for tests.
    """
    found: dict[str, None] = {}
    for part in ("noun", "verb", "adj", "adv"):
        path = WORDNET / f"data.{part}"
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: install Debian's wordnet-base")
        for quoted in re.findall(r'"([^"]+)"', path.read_text(encoding="latin-1")):
            words = quoted.lower().replace(";", "").strip(" .,!?")
            if re.fullmatch(r"[a-z' ,]+", words) and 2 <= len(words.split()) <= 12:
                found[" ".join(words.replace(",", " ").split())] = None
    return [words for words in found if (zlib.crc32(words.encode()) % 5 == 0) == (kind == "new")]


def framed(words: str, draw: random.Random) -> str:
    """The question with what people say around it."""
    frames = _frames()
    opening = draw.choice([*frames["before"], ""]) if draw.random() < 0.8 else ""
    asks = words.split()[0] in _ASKING
    if opening in frames["only_before_question"] and not asks:
        opening = draw.choice(["hi", "um", "hello"])
    closing = (
        draw.choice(frames["after"])
        if draw.random() < 0.35 and not words.endswith(("please", "thank you"))
        else ""
    )
    return " ".join(part for part in (opening, words, closing) if part)


_ASKING = frozenset(
    [
        "what",
        "when",
        "where",
        "who",
        "how",
        "which",
        "can",
        "could",
        "do",
        "does",
        "is",
        "are",
        "may",
        "why",
        "will",
        "would",
        "until",
    ]
)


def question(intent: str, draw: random.Random, kind: str = "known", frame: float = FRAMED) -> Question:
    """A question of that intent: every pattern as often, long or short."""
    words = draw.choice(draw.choice(wordings(kind)[intent]))
    if intent not in ("thanks", "bye", REPEAT, "wait", "how_are_you") and draw.random() < frame:
        words = framed(words, draw)
    return Question(words, intent)


def negative(draw: random.Random, kind: str = "known") -> Question:
    """Something said that nano knows nothing of.

    Open sentences, other questions, digits, names and word salad.
    """
    roll = draw.random()
    if roll < 0.45:
        words = draw.choice(open_sentences(kind))
    elif roll < 0.8:
        words = draw.choice(draw.choice(negatives(kind)))
        words = framed(words, draw) if draw.random() < 0.3 else words
    elif roll < 0.88:
        words = " ".join(draw.choices(_NUMBERS, k=draw.randint(1, 8)))
    else:
        pool = " ".join(draw.sample(open_sentences(kind), 4)).split()
        words = " ".join(draw.choices(pool, k=draw.randint(1, 7)))
    return Question(words, REFUSE)


def questions(count: int, seed: int, kind: str = "known", refused: float = 0.15) -> Sequence[Question]:
    """``count`` questions: every intent as often, ``refused`` of them of other worlds."""
    draw = random.Random(seed)
    names = [name for name in labels() if name != REFUSE]
    asked: list[Question] = []
    while len(asked) < count:
        if draw.random() < refused:
            asked.append(negative(draw, kind))
        else:
            asked.append(question(names[len(asked) % len(names)], draw, kind))
    return asked
