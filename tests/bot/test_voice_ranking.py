"""Finding voices: what a person would expect to be found first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.voices.ranking import ATTRIBUTES, GENDERS, Known, Ranking, UnknownVoice, understand


def direction(*values: float) -> tuple[float, ...]:
    return tuple((np.array(values) / np.linalg.norm(values)).tolist())


ANNA = Known("anna", "A woman from Vienna, calm and friendly.", 210, 1300, 4.0, direction(1, 0.2, 0))
BERT = Known("bert", "An old man with a beard.", 85, 900, 3.6, direction(-1, 0.3, 0))
CARL = Known("carl", "A young man, cheerful.", 125, 1500, 5.5, direction(-0.8, -0.6, 0))
DORA = Known("dora", "Warm contralto, for stories.", 165, 950, 4.1, direction(0.9, 0, 0.3))
EVAN = Known("evan", "Newsreader", 118, 1250, 6.2, direction(-0.3, 0, 1))
VOICES = [ANNA, BERT, CARL, DORA, EVAN]


def first(text: str, like: str = "", voices: list[Known] = VOICES) -> str:
    return Ranking(voices).search(text, like)[0].name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("somebody friendly from Vienna", "anna"),
        ("beard", "bert"),
        ("newsreaders", "evan"),
        ("dora", "dora"),
        ("a deep voice", "bert"),
        ("high", "anna"),
        ("the brightest", "carl"),
        ("fast", "evan"),
        ("slow and deep", "bert"),
        ("not slow, not bright", "evan"),
        ("a dark female voice", "dora"),
        ("a bright male-like voice", "carl"),
        ("female-like and slow", "anna"),
        ("a warm voice for a story", "dora"),
    ],
)
def test_words_find_what_is_written_of_a_voice_and_what_was_measured(text: str, name: str) -> None:
    assert first(text) == name


@pytest.mark.parametrize(
    ("like", "text", "name"),
    [
        ("anna", "", "dora"),
        ("anna", "deeper", "dora"),
        ("evan", "deeper", "bert"),
        ("carl", "higher", "evan"),
    ],
)
def test_like_another_voice_but_different(like: str, text: str, name: str) -> None:
    others = [*VOICES, Known("fred", "", 140, 1200, 4.5, direction(-0.2, 0, 1))] if like == "carl" else VOICES
    found = Ranking(others).search(text, like)
    assert like not in [hit.name for hit in found]
    if like == "carl":  # deeper voices are more like him, and do not come first all the same
        assert found[0].name in ("fred", "dora")
    else:
        assert found[0].name == name


def test_to_be_deeper_than_a_voice_is_not_to_be_deep() -> None:
    """Against anna, dora is deeper; against the library, she is not deep."""
    deeper = {hit.name: hit.why["measured"] for hit in Ranking(VOICES).search("deeper", "anna")}
    deep = {hit.name: hit.why["measured"] for hit in Ranking(VOICES).search("deep")}
    assert deeper["dora"] > 0 > deep["dora"]


def test_the_like_of_a_voice_but_deeper_is_not_its_twin() -> None:
    twin = Known("twin", "", 208, 1300, 4.0, ANNA.speaker)
    assert first("", "anna", [*VOICES, twin]) == "twin"
    assert first("deeper", "anna", [*VOICES, twin]) == "dora"


def test_a_measure_that_is_missing_neither_helps_nor_harms() -> None:
    unknown = Known("unknown", "Nothing was measured.")
    found = {hit.name: hit.score for hit in Ranking([*VOICES, unknown]).search("high")}
    assert found["unknown"] == 0
    assert found["bert"] < 0 < found["anna"]


def test_chinese_is_found_by_its_characters() -> None:
    assert first("温柔", voices=[*VOICES, Known("mei", "一个温柔的声音")]) == "mei"


def test_a_voice_that_is_not_there_is_named() -> None:
    with pytest.raises(UnknownVoice, match="no voice 'gina'; there are: anna, bert"):
        Ranking(VOICES).search("deeper", "gina")
    assert Ranking([]).search("deep") == []


def test_words_that_say_nothing_are_no_search_for_them() -> None:
    assert understand("I want a voice that sounds like this").words == ()
    assert understand("not too fast").ways == ((2, -1.0),)
    assert understand("no women please").gender == -1.0


@given(st.text(max_size=60), st.sampled_from(["", "anna"]))
def test_whatever_is_asked_every_voice_has_a_place(text: str, like: str) -> None:
    found = Ranking(VOICES).search(text, like)
    assert len(found) == len(VOICES) - bool(like)
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)


def test_no_word_has_two_meanings() -> None:
    assert not set(ATTRIBUTES) & set(GENDERS)
