"""What callers are taught to say: complete, disjoint and spelled as it is spoken."""

from __future__ import annotations

import random
import re

import pytest

from model_runtime.training import texts


def every(kind: str) -> dict[str, set[str]]:
    return {
        intent: {words for pattern in patterns for words in pattern}
        for intent, patterns in texts.wordings(kind).items()
    }


def test_patterns_expand_to_every_way_of_saying_them() -> None:
    assert texts.expand("(can|could) i [please] pay") == [
        "can i please pay",
        "can i pay",
        "could i please pay",
        "could i pay",
    ]
    assert texts.expand("pay") == ["pay"]


def test_every_intent_has_an_answer_and_many_wordings() -> None:
    known = every("known")
    assert set(known) == {*texts.shop().answers, texts.REPEAT, *texts.shop().requests}
    assert len(known) == 44 + len(texts.shop().requests)
    assert min(len(said) for said in known.values()) >= 6
    assert sum(len(said) for said in known.values()) > 1000
    assert min(len(said) for said in every("new").values()) >= 5


def test_no_wording_is_both_known_and_new_or_of_two_intents() -> None:
    known, new, later = every("known"), every("new"), every("later")
    owners: dict[str, str] = {}
    for intent in known:
        assert not (known[intent] | later[intent]) & new[intent]
        for words in known[intent] | new[intent] | later[intent]:
            assert owners.setdefault(words, intent) == intent, words


@pytest.mark.parametrize("kind", ["known", "new", "later"])
def test_wordings_are_words_alone(kind: str) -> None:
    said = [words for of_intent in every(kind).values() for words in of_intent]
    said += [words for pattern in texts.negatives("new" if kind == "new" else "known") for words in pattern]
    assert [words for words in said if not re.fullmatch(r"[a-z']+( [a-z']+)*", words)] == []


def test_refused_speech_for_tests_was_never_trained_on() -> None:
    known = {words for pattern in texts.negatives("known") for words in pattern}
    new = {words for pattern in texts.negatives("new") for words in pattern}
    assert not known & new
    wordings = {words for of_intent in every("known").values() for words in of_intent}
    assert not wordings & (known | new)


def test_repeat_says_the_previous_answer_and_greets_when_there_is_none() -> None:
    shop = texts.shop()
    assert shop.answer("repeat", "We are closed on Sundays.") == "We are closed on Sundays."
    assert shop.answer("repeat") == shop.greeting
    assert shop.answer("refuse", "Anything.") == shop.refuse
    assert shop.answer("sunday") == "We are closed on Sundays."


@pytest.mark.skipif(not texts.WORDNET.exists(), reason="Debian's wordnet-base is not installed")
def test_questions_are_the_same_for_the_same_seed_and_even_over_intents() -> None:
    asked = texts.questions(900, seed=4)
    assert list(asked) == list(texts.questions(900, seed=4))
    assert list(asked) != list(texts.questions(900, seed=5))
    counts = {intent: sum(q.intent == intent for q in asked) for intent in texts.intents()}
    assert min(counts.values()) >= 5
    refused = sum(q.intent == texts.REFUSE for q in asked) / len(asked)
    assert 0.15 < refused < 0.3


def test_what_a_tool_does_is_refused_where_there_is_none() -> None:
    shop = texts.shop()
    assert shop.answer("voice_woman", tools=["hang_up", "search_voice"]) == "Sure."
    assert shop.answer("voice_woman", tools=["hang_up"]) == shop.refuse
    assert shop.answer("person", tools=["transfer"]) == "I will put you through."
    assert {"voice_woman", texts.REFUSE, "hours"} < set(texts.labels())


def test_what_stands_around_a_question_leaves_it_whole() -> None:
    draw = random.Random(0)
    for _ in range(200):
        assert "where can i park" in texts.framed("where can i park", draw)
