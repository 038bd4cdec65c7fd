"""Whether the caller has agreed, out loud, to what they were asked. Pure.

The model has no say in it. Whatever it may have been talked into, by a caller or by a page it read, it cannot
make up either of the two things that count: the question as the caller heard it, and the caller's own words
as the transcription task wrote them down.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.conversation import Exchange


@dataclass(frozen=True)
class AgreeingWords:
    """What a "yes" is made of, in one language: one of ``yes``, and besides only ``filler``.

    Any of ``no`` is a "no" where that need not be told from no answer at all.
    """

    yes: frozenset[str]
    filler: frozenset[str] = frozenset()
    no: frozenset[str] = frozenset()


def words_of(yes: str, filler: str = "", no: str = "") -> AgreeingWords:
    """From words parted by spaces."""
    return AgreeingWords(frozenset(yes.split()), frozenset(filler.split()), frozenset(no.split()))


ENGLISH = words_of(
    "yes yeah yep yup sure okay ok right correct certainly absolutely definitely course ahead",
    "please thanks thank you um uh oh well do it that so go of i would like the me",
    "no nope not cannot cant busy sorry later",
)


def consented(exchanges: Sequence[Exchange], turn: int, question: str, words: AgreeingWords) -> bool:
    """Whether ``turn`` is the caller's yes to ``question``.

    It is if the last thing they heard before was the whole question, word for word, and what they said then
    holds a word of agreement and nothing that could limit it ("yes, but ..."): only words of ``words`` and of
    the question itself.
    """
    here = _place(exchanges, turn)
    if here == 0:
        return False
    asked, said = _plain(question), _plain(exchanges[here].caller or "").split()
    if not asked or not f" {_plain(exchanges[here - 1].bot)}".endswith(f" {asked}"):
        return False
    allowed = words.yes | words.filler | set(asked.split())
    return any(word in words.yes for word in said) and all(word in allowed for word in said)


def refused(exchanges: Sequence[Exchange], turn: int, words: AgreeingWords) -> bool:
    """Whether ``turn``, which answers something they were told, holds a "no"."""
    here = _place(exchanges, turn)
    said = _plain(exchanges[here].caller or "").split() if here else ()
    return any(word in words.no for word in said)


def _place(exchanges: Sequence[Exchange], turn: int) -> int:
    """Where the caller's ``turn`` stands; 0 if it is not there, or nothing came before it."""
    return max(
        (n for n, exchange in enumerate(exchanges) if exchange.turn == turn and exchange.spoken), default=0
    )


def _plain(text: str) -> str:
    """Words alone: how they are written depends on who wrote them down."""
    return " ".join(re.findall(r"[^\W_]+", re.sub(r"['’]", "", text.casefold())))
