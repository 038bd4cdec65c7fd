"""Text as it is searched: the terms of a passage, and of what a caller asks. Pure.

A caller speaks: "um, the forty liter one", "b b one zero four two". A document is written: "40 l", "BB-1042".
Both become the same terms here. Numbers are digits, units have one name, English words their stem (Snowball's
English, which is Porter's second), Chinese, Japanese and Korean are cut into pairs of characters, since they
are written without spaces.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, pairwise
from typing import NamedTuple

import snowballstemmer

VERSION = 1  # of what is made of a text: a base that was made by another one is refused


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that say nothing of what a passage is about. They are in no index, so asking for them costs nothing.
STOP_WORDS = _words(
    """
    a about above after again against all also am an and any are aren't as at be because been before being
    below between both but by can can't cannot could couldn't did didn't do does doesn't doing don't down
    during each either else er few for from further had hadn't has hasn't have haven't having he her here
    hers herself him himself his how i i'd i'll i'm i've if in into is isn't it it'd it'll it's its itself
    just let let's may me might mm more most much must my myself no nor not of off on once only or other our
    ours out over own same shall she should shouldn't so some such than that that's the their theirs them
    themselves then there there's these they they'd they'll they're they've this those through to too uh um
    under until up upon us very was wasn't we we'd we'll we're we've were weren't what what's when where
    where's which while who whom whose why will with won't would wouldn't you you'd you'll you're you've
    your yours yourself yes hm hmm ah oh
    """
)
# Words that lead up to a question. In a document they mean something: only questions lose them.
FILLERS = _words(
    """
    actually anything bye come find get give going good got guess hello help hey hi know like look looking
    maybe mean need okay ok please possible
    question really right say something sorry sort sure tell thank thanks
    thing think want wanted well wonder wondering
    """
)
# "How long", "how much" ask for a number, not for what is long: only after "how" they are passed over.
AFTER_HOW = _words("big fast far heavy large long many much often old quick quickly soon tall well")
_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = (
    "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
)  # fmt: skip
SMALL = {word: n for n, word in enumerate(_ONES)} | {word: 10 * n for n, word in enumerate(_TENS, 2)}
LARGE = {"hundred": 100, "thousand": 1000, "million": 1_000_000}
# After a number only: elsewhere "l" is a letter and "pound" what one does to a door.
UNITS = {
    **dict.fromkeys(("l", "liter", "liters", "litre", "litres"), "liter"),
    **dict.fromkeys(("ml", "milliliter", "milliliters", "millilitre", "millilitres"), "milliliter"),
    **dict.fromkeys(("kg", "kgs", "kilo", "kilos", "kilogram", "kilograms", "kilogrammes"), "kilogram"),
    **dict.fromkeys(("g", "gram", "grams", "grammes"), "gram"),
    **dict.fromkeys(("lb", "lbs", "pound", "pounds"), "pound"),
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), "millimeter"),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), "centimeter"),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), "meter"),
    **dict.fromkeys(("km", "kilometer", "kilometers", "kilometre", "kilometres"), "kilometer"),
    **dict.fromkeys(("in", "inch", "inches", '"'), "inch"),
    **dict.fromkeys(("ft", "foot", "feet"), "foot"),
    **dict.fromkeys(("$", "usd", "dollar", "dollars", "bucks"), "dollar"),
    **dict.fromkeys(("€", "eur", "euro", "euros"), "euro"),
    **dict.fromkeys(("£", "gbp"), "pound"),
    **dict.fromkeys(("%", "percent"), "percent"),
    **dict.fromkeys(("°", "°c", "degree", "degrees"), "degree"),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), "hour"),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), "minute"),
}  # fmt: skip
_PIECE = re.compile(r"[^\W_]+(?:[-./,'’][^\W_]+)*|[$€£%]|°[Cc]?")
_THOUSANDS = re.compile(r"\d{1,3}(,\d{3})+(\.\d+)?")
_DECIMAL = re.compile(r"\d+[.,]\d{1,2}")
_MEASURE = re.compile(r"(\d+(?:[.,]\d+)?)([a-z]+)")
_IDEOGRAPHS = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"  # kana, Han, Hangul
_IDEOGRAPH = re.compile(f"[{_IDEOGRAPHS}]")
_SCRIPTS = re.compile(f"[{_IDEOGRAPHS}]+|[^{_IDEOGRAPHS}]+")
_PARTS = re.compile(r"\d+|\D+")
_stemmer = snowballstemmer.stemmer("english")


class Token(NamedTuple):
    """One thing said: a word, a number, or several written as one, such as an article number.

    ``text`` is the term; ``parts`` are what else to look for where that is nowhere; ``plain`` is the word as
    it was written, if it is one.
    """

    text: str
    parts: tuple[str, ...] = ()
    plain: str = ""


@dataclass(frozen=True)
class Query:
    """What is asked."""

    tokens: tuple[Token, ...] = ()


def terms(text: str) -> list[str]:
    """The terms of a passage, in its order. No term has a space in it."""
    found = []
    for token in _tokens(text):
        if token.plain not in STOP_WORDS:
            found.append(token.text)
            found += token.parts
    return found


def ask(text: str) -> Query:
    """What a caller asks for."""
    every = list(_tokens(text))
    how = {at + 1 for at, token in enumerate(every) if token.plain == "how"}
    said = [
        token
        for at, token in enumerate(every)
        if token.plain not in STOP_WORDS and not (at in how and token.plain in AFTER_HOW)
    ]
    # "one" alone is rarely a number: "the small one".
    wanted = [token for token in said if token.plain not in FILLERS and token.plain != "one"]
    return Query(tuple({token.text: token for token in wanted or said}.values()))


def _folded(text: str) -> str:
    """Lower case, without accents, full-width forms as usual ones."""
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFKD", text.casefold())
    return unicodedata.normalize("NFC", "".join(c for c in plain if not unicodedata.combining(c)))


def stem(word: str) -> str:
    """The stem of an English word in lower case."""
    return str(_stemmer.stemWord(word))


def _tokens(text: str) -> Iterator[Token]:
    return _joined(_measured(_counted(_pieces(_folded(text)))))


def _pieces(text: str) -> Iterator[Token]:
    for piece in _PIECE.findall(text):
        if piece.isascii():
            if piece.isalpha():  # nearly all there is, so quickly
                yield _word(piece)
            else:
                yield from _piece(piece)
            continue
        for part in _SCRIPTS.findall(piece):
            yield from _ideographs(part) if _IDEOGRAPH.match(part) else _piece(part)


def _ideographs(run: str) -> Iterator[Token]:
    yield from (Token(a + b) for a, b in pairwise(run)) if len(run) > 1 else (Token(run),)


def _piece(piece: str) -> Iterator[Token]:
    """What stands without a space between: a word, a number, "e-mail", "bb-1042", "40l", "1,000"."""
    piece = piece.replace("’", "'")
    if piece.isalpha() or piece in STOP_WORDS:
        yield _word(piece)
        return
    if _THOUSANDS.fullmatch(piece):
        piece = piece.replace(",", "")
    if piece.isdigit():
        yield _number(piece)
    elif _DECIMAL.fullmatch(piece):
        yield _number(piece.replace(",", "."))
    elif (measure := _MEASURE.fullmatch(piece)) and measure[2] in UNITS:
        yield _number(measure[1].replace(",", "."))
        yield Token(measure[2], plain=measure[2])
    elif any(c.isdigit() for c in piece):
        yield _compound(re.split(r"\W+", piece))
    else:
        parts = re.split(r"[-./,]", piece)
        if any(len(part) == 1 for part in parts):  # "e-mail" is "email", too
            yield _word("".join(parts).replace("'", ""))
        yield from (_word(part) for part in parts if len(part) > 1)


@lru_cache(maxsize=1 << 16)
def _word(word: str) -> Token:
    word = word.strip("'")
    return Token(stem(word), plain=word)


def _number(digits: str) -> Token:
    whole, point, rest = digits.partition(".")
    rest = rest.rstrip("0")
    return Token((whole.lstrip("0") or "0") + (point + rest if rest else "") if len(whole) < 5 else digits)


def _compound(parts: Iterable[str]) -> Token:
    """Letters and digits that are one name: as one, or by its letters and its digits."""
    told = [part for part in parts if part]
    whole = "".join(told)
    pieces = [piece for _, piece in _runs(whole)] if len(told) < 2 or not whole.isdigit() else told
    return Token(whole, tuple(dict.fromkeys(piece for piece in pieces if piece != whole)))


def _runs(text: str) -> Iterator[tuple[bool, str]]:
    for digits, run in groupby(text, str.isdigit):
        yield digits, "".join(run)


def _counted(tokens: Iterable[Token]) -> Iterator[Token]:
    """Number words become digits: "two hundred and five" 205, "twelve point five" 12.5."""
    waiting: list[Token] = []
    for token in tokens:
        if token.plain in SMALL or (waiting and token.plain in (*LARGE, "and", "point")):
            waiting.append(token)
            continue
        if waiting:
            yield from _numbers(waiting)
            waiting = []
        yield token
    yield from _numbers(waiting)


def _numbers(words: list[Token]) -> Iterator[Token]:
    """The numbers that words from ``SMALL``, ``LARGE``, "and" and "point" say."""
    at = 0
    while at < len(words):
        word = words[at].plain
        if word not in SMALL:
            yield words[at]
            at += 1
            continue
        total, value, begun, scaled = 0, SMALL[word], at, False
        at += 1
        while at < len(words):
            word = words[at].plain
            if word in LARGE:
                factor = LARGE[word]
                total, value = (total, value * factor) if factor == 100 else (total + value * factor, 0)
                scaled = True
            elif word in SMALL and _continues(value, SMALL[word], scaled):
                value += SMALL[word]
            elif not (word == "and" and scaled and at + 1 < len(words) and words[at + 1].plain in SMALL):
                break
            at += 1
        number = str(total + value)
        if at + 1 < len(words) and words[at].plain == "point" and words[at + 1].plain in SMALL:
            number = f"{number}.{SMALL[words[at + 1].plain]}"
            at += 2
        yield Token(number, plain="one" if number == "1" and at - begun == 1 else "")


def _continues(value: int, more: int, scaled: bool) -> bool:
    """Whether a small number goes on with the one before it: "twenty" "five", "two hundred" "twenty"."""
    if value % 100 == 0:
        return scaled and more > 0
    return value % 10 == 0 and value % 100 >= 20 and 0 < more < 10


def _measured(tokens: Iterable[Token]) -> Iterator[Token]:
    """Units by one name after a number, and before one if it is a currency: "$50", "50 dollars"."""
    before: Token | None = None
    for token in tokens:
        shown = token.plain or token.text
        unit = UNITS.get(shown)
        is_unit = unit is not None and (shown in "$€£%°" or (before is not None and before.text[0].isdigit()))
        before = _word(unit) if is_unit and unit else token
        yield before


def _joined(tokens: Iterable[Token]) -> Iterator[Token]:
    """Numbers and letters said one after another are one: "b b one zero four two", "twenty twenty six"."""
    run: list[Token] = []
    for token in tokens:
        letter = len(token.text) == 1 and token.text.isascii() and token.text.isalpha()
        if (letter or token.text.isdigit()) and (run or token.plain not in ("a", "i")):
            run.append(token)
            continue
        if run:
            yield from _spelt(run)
            run = []
        yield token
    yield from _spelt(run)


def _spelt(run: list[Token]) -> Iterator[Token]:
    if len(run) < 2:
        yield from run
        return
    whole = "".join(token.text for token in run)
    parts = [piece for _, piece in _runs(whole)] + [token.text for token in run if len(token.text) > 1]
    few = (
        [token.text for token in run] if len(run) == 2 else []
    )  # "tents for two, four people" are two numbers
    yield Token(whole, tuple(dict.fromkeys(part for part in (*parts, *few) if part != whole)))
