"""Which passages to look at, in which order, and whether any of them is near what was asked. Pure.

Two searches are put together: one by words, one by meaning where there is an encoder. Each has an order of
its own and numbers that cannot be compared, so only the places in those orders count (reciprocal rank fusion,
Cormack, Clarke and Buettcher, SIGIR 2009). Whether a passage is near at all is asked apart from its place,
since some passage is always the best.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bot.knowledge.words import Query

BUDGET = 5_000  # passages that the index is asked for by rare terms: some milliseconds
CANDIDATES = 50  # of each search that are put together
MOST_TERMS = 16  # of a question, the rarest: who talks at length is not to wait longer
LOOKED_AT = 100  # passages that BM25 is computed for
_SATURATION, _LENGTH = (
    1.2,
    0.5,
)  # BM25's k1, and a b for passages that are of one length by the way they are made
HEADING_WEIGHT = 2.0  # of a term in a heading against one in the text
_FUSION = 60  # the paper's k: how little the first place counts more than the second
LEAST_SHARE = 0.3  # of what was asked, by weight, that a passage has to have to be near by words
LEAST_OF_BEST = 0.5  # of the best passage's share: others tell of something else that shares a word


@dataclass(frozen=True)
class Wanted:
    """A query as a base knows it: what each term weighs, and which terms it has, the rarest first."""

    weights: Mapping[str, float]
    known: tuple[str, ...]


def wanted(query: Query, frequencies: Mapping[str, int], passages: int) -> Wanted:
    """Weigh what is asked by how rare it is in a base of so many passages.

    A name such as an article number is asked for as a whole if any passage has it, else by those of its parts
    that are there. What no passage has weighs most, so it keeps others from seeming near.
    """
    chosen: dict[str, None] = {}
    for token in query.tokens:
        parts = [part for part in token.parts if part in frequencies]
        chosen |= dict.fromkeys([token.text] if token.text in frequencies or not parts else parts)
    weights = {term: rarity(frequencies.get(term, 0), passages) for term in chosen}
    known = sorted((term for term in chosen if term in frequencies), key=lambda term: frequencies[term])
    return Wanted(weights, tuple(known))


def rarity(found: int, of: int) -> float:
    """BM25's inverse document frequency, which is never negative."""
    return math.log(1 + (of - found + 0.5) / (found + 0.5))


@dataclass(frozen=True)
class Look:
    """A look into the index: an FTS5 expression, and what it weighs for a passage to be found by it."""

    expression: str
    weight: float


def looks(asked: Wanted, frequencies: Mapping[str, int], budget: int = BUDGET) -> list[Look]:
    """Looks that together find few passages, and among them the best.

    For each rare term, as long as not more passages than ``budget`` have them. A passage that has none of
    those can still be good by having all the frequent ones; where there is nothing rare, by having some of
    them.
    """
    known = asked.known[:MOST_TERMS]
    rare: list[str] = []
    spent = 0
    for term in known:
        spent += frequencies[term]
        if spent > budget:
            break
        rare.append(term)
    frequent = known[len(rare) :]
    together = [frequent] if len(frequent) > 1 else []
    if frequent and not rare:
        together = [
            frequent[:many] for many in sorted({len(frequent), min(2, len(frequent)), 1}, reverse=True)
        ]
    found = [Look(_quoted(term), asked.weights[term]) for term in rare]
    found += [
        Look(" AND ".join(map(_quoted, some)), sum(asked.weights[one] for one in some)) for some in together
    ]
    # What stands in a heading is what the passage is about.
    headings = rare or frequent[:1]
    return found + [Look(f"heading_terms : {_quoted(term)}", asked.weights[term]) for term in headings]


def _quoted(term: str) -> str:
    """As FTS5 takes it for text, whatever is in it."""
    return '"' + term.replace('"', '""') + '"'


def gathered(found: Sequence[tuple[float, Sequence[int]]], limit: int) -> list[int]:
    """The passages that weigh most, given the weight of each look and the passages it found."""
    if not found:
        return []
    ids = np.concatenate([np.asarray(some, np.int64) for _, some in found])
    weights = np.concatenate([np.full(len(some), weight) for weight, some in found])
    each, at = np.unique(ids, return_inverse=True)
    order = np.argsort(-np.bincount(at, weights, len(each)), kind="stable")
    best: list[int] = each[order[:limit]].tolist()
    return best


@dataclass(frozen=True)
class Scored:
    """How a passage answers: ``score`` to order by, and which share of the query it has, 0 to 1."""

    score: float
    share: float


def score(asked: Wanted, heading: str, text: str, usual: float) -> Scored:
    """BM25 of a passage, given its terms with spaces between; ``usual`` is how many one of the base has."""
    heading, text = f" {heading} ", f" {text} "  # so that counting is one search through a string
    long = 1 - _LENGTH + _LENGTH * (text.count(" ") + heading.count(" ") - 2) / max(usual, 1.0)
    total = has = 0.0
    for term, weight in asked.weights.items():
        word = f" {term} "
        times = text.count(word) + HEADING_WEIGHT * heading.count(word)
        if times:
            has += weight
            total += weight * times * (1 + _SATURATION) / (times + _SATURATION * long)
    return Scored(total, has / (sum(asked.weights.values()) or 1.0))


def fused(*orders: Sequence[int]) -> list[int]:
    """Orders of ids put together, best first."""
    marks: dict[int, float] = {}
    for order in orders:
        for place, one in enumerate(order, 1):
            marks[one] = marks.get(one, 0.0) + 1 / (_FUSION + place)
    return sorted(marks, key=lambda one: -marks[one])


def near(
    order: Iterable[int], shares: Mapping[int, float], likeness: Mapping[int, float], least_likeness: float
) -> list[tuple[int, float]]:
    """Those of ``order`` that are near what was asked, and how near: 0 to 1.

    By words: it has enough of them, and not much less than the best one has. By meaning: its cosine to the
    query is at least ``least_likeness``.
    """
    best = max(shares.values(), default=0.0)
    least = max(LEAST_SHARE, LEAST_OF_BEST * best)
    found = []
    for one in order:
        share, like = shares.get(one, 0.0), likeness.get(one, 0.0)
        if share >= least or like >= least_likeness:
            found.append((one, min(1.0, max(share, like))))
    return found
