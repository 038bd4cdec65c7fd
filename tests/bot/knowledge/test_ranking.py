"""What comes first, and what is not near at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.knowledge.ranking import Look, fused, gathered, looks, near, rarity, score, wanted
from bot.knowledge.words import ask


def test_the_rare_weighs_more_and_what_nobody_wrote_most() -> None:
    asked = wanted(ask("warm winter unicorns"), {"warm": 40, "winter": 2}, 100)
    assert asked.known == ("winter", "warm")
    assert asked.weights["warm"] < asked.weights["winter"] < asked.weights["unicorn"]
    assert rarity(100, 100) > 0


@pytest.mark.parametrize(
    ("there", "chosen"),
    [
        ({"bb1042": 1, "bb": 9, "1042": 1}, {"bb1042"}),
        ({"bb": 9, "1042": 1}, {"bb", "1042"}),
        ({"bb": 9}, {"bb"}),
        ({}, {"bb1042"}),
    ],
)
def test_a_name_is_asked_for_whole_or_by_the_parts_that_are_there(
    there: dict[str, int], chosen: set[str]
) -> None:
    assert set(wanted(ask("b b one zero four two"), there, 10).weights) == chosen


def test_only_the_rare_words_are_looked_up_each_and_the_frequent_ones_together() -> None:
    there = {"rare": 10, "odd": 60, "usual": 5_000, "common": 9_000}
    asked = wanted(ask("rare odd usual common"), there, 10_000)
    told = looks(asked, there, budget=100)
    assert [look.expression for look in told] == [
        '"rare"', '"odd"', '"usual" AND "common"', 'heading_terms : "rare"', 'heading_terms : "odd"'
    ]  # fmt: skip
    assert told[0].weight > told[1].weight
    assert told[2].weight == pytest.approx(asked.weights["usual"] + asked.weights["common"])


def test_without_a_rare_word_ever_fewer_frequent_ones_have_to_do() -> None:
    there = {"big": 3_000, "usual": 5_000, "common": 9_000}
    told = looks(wanted(ask("common usual big"), there, 10_000), there, budget=100)
    assert [look.expression for look in told] == [
        '"big" AND "usual" AND "common"', '"big" AND "usual"', '"big"', 'heading_terms : "big"'
    ]  # fmt: skip
    alone = looks(wanted(ask("common"), there, 10_000), there, budget=100)
    assert [look.expression for look in alone] == ['"common"', 'heading_terms : "common"']


def test_one_frequent_word_beside_rare_ones_is_not_looked_up() -> None:
    there = {"rare": 10, "common": 9_000}
    told = looks(wanted(ask("rare common"), there, 10_000), there, budget=100)
    assert [look.expression for look in told] == ['"rare"', 'heading_terms : "rare"']
    assert looks(wanted(ask("unknown"), {}, 5), {}) == []


def test_a_long_question_is_not_looked_up_word_by_word() -> None:
    there = {f"t{at}": at for at in range(1, 100)}
    told = looks(wanted(ask(" ".join(there)), there, 10_000), there)
    assert [look.expression for look in told[:3]] == ['"t1"', '"t2"', '"t3"']
    assert len(told) == 32


def test_what_more_looks_found_is_looked_at_first() -> None:
    assert gathered([(2.0, [1, 2, 3]), (1.5, [3, 4]), (1.0, [4])], 3) == [3, 4, 1]
    assert gathered([], 3) == []
    assert gathered([(1.0, [])], 3) == []


def test_a_heading_counts_more_and_a_short_passage_is_about_it() -> None:
    asked = wanted(ask("tent"), {"tent": 2}, 10)
    here = score(asked, "", "tent pole", 20)
    assert score(asked, "tent", "pole", 20).score > here.score
    assert score(asked, "", "tent pole" + " other" * 40, 20).score < here.score
    assert score(asked, "", "tents pole", 20).share == 0
    assert here.share == 1.0
    assert score(wanted(ask(""), {}, 0), "", "tent", 0).share == 0


def test_half_of_what_was_asked_is_half_a_share() -> None:
    asked = wanted(ask("winter boots"), {"winter": 1, "boot": 1}, 10)
    assert score(asked, "", "boot", 10).share == pytest.approx(0.5)


def test_orders_are_put_together_by_places_alone() -> None:
    assert fused([1, 2, 3], [3, 1, 4]) == [1, 3, 2, 4]
    assert fused([5, 6], []) == [5, 6]
    assert fused() == []


@given(st.lists(st.integers(0, 30), unique=True), st.lists(st.integers(0, 30), unique=True))
def test_nothing_is_lost_and_two_firsts_stay_first(a: list[int], b: list[int]) -> None:
    together = fused(a, b)
    assert sorted(together) == sorted(set(a) | set(b))
    if a and b and a[0] == b[0]:
        assert together[0] == a[0]


def test_near_is_by_words_or_by_meaning_and_never_for_being_the_best() -> None:
    assert near([1, 2, 3], {1: 0.9, 2: 0.5, 3: 0.4}, {}, 0.4) == [(1, 0.9), (2, 0.5)]
    assert near([1, 2], {1: 0.1}, {2: 0.6}, 0.4) == [(2, 0.6)]
    assert near([1, 2], {1: 0.2}, {2: 0.3}, 0.4) == []
    assert near([1], {}, {1: 1.0001}, 0.4) == [(1, 1.0)]
    assert near([], {}, {}, 0.4) == []


def test_a_look_is_text_whatever_is_in_it() -> None:
    asked = wanted(ask("tent"), {"tent": 1}, 1)
    assert looks(asked, {"tent": 1})[0] == Look('"tent"', asked.weights["tent"])
