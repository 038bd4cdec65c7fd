"""What is said and what is written become the same terms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.knowledge.words import Query, Token, ask, terms

ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("forty liters", "40 l"),
        ("forty litre", "40l"),
        ("a forty-litre", "40-liter"),
        ("twelve river street", "12 River Street"),
        ("ninety dollars", "$90"),
        ("ninety bucks", "90 USD"),
        ("ten percent", "10 %"),
        ("minus fifteen degrees", "Minus 15 °C"),
        ("one point nine kilos", "1.9 kg"),
        ("twelve dollars", "12.00 $"),
        ("two hundred and five meters", "205 m"),
        ("one thousand two hundred", "1,200"),
        ("two million", "2000000"),
        ("three hundred thousand", "300,000"),
        ("twenty five", "25"),
        ("zero", "0"),
        ("oh eight", "oh 08"),
        ("tents", "Tent"),
        ("repairing", "repairs"),
        ("uber", "Über"),
        ("cafe", "CAFÉ"),
        ("ＡＢＣ", "abc"),
        ("the shop’s", "shop"),
        ("email", "e-mail"),
    ],
)
def test_what_is_said_is_among_the_terms_of_what_is_written(said: str, written: str) -> None:
    assert set(terms(said)) <= set(terms(written))
    assert terms(said)


def terms_of(text: str) -> set[str]:
    return {token.text for token in ask(text).tokens}


def test_numbers_end_where_a_speaker_ends_them() -> None:
    assert terms("hundred and one tents") == ["hundr", "1", "tent"]
    assert terms("twenty and") == ["20"]
    assert terms("two hundred and tents") == ["200", "tent"]
    assert terms("five hundred two thousand") == ["502000"]
    assert terms("three point tents") == ["3", "point", "tent"]


def test_article_numbers_are_found_whole_and_by_their_parts_however_they_are_said() -> None:
    assert terms("BB-1042") == ["bb1042", "bb", "1042"]
    for said in ("b b one zero four two", "BB-1042", "bb1042", "B B 10 42"):
        assert ask(said).tokens[0].text == "bb1042"
    assert ask("0800-123-456").tokens == (Token("0800123456", ("0800", "123", "456")),)
    assert ask("twenty twenty six").tokens == (Token("2026", ("20", "26")),)
    assert "1042" in ask("b b one zero four two").tokens[0].parts


def test_two_numbers_in_a_row_may_be_two() -> None:
    assert ask("for two, four people").tokens[0] == Token("24", ("2", "4"))


def test_a_letter_that_is_a_word_begins_no_name() -> None:
    assert terms("a 2 person tent") == ["2", "person", "tent"]


def test_questions_lose_what_leads_up_to_them() -> None:
    asked = ask("um hello, I was wondering, can you tell me how long the small one's warranty is please")
    assert [token.plain for token in asked.tokens] == ["small", "one's", "warranty"]
    assert terms_of("a long rope") == {"long", "rope"}
    assert ask("which one").tokens == ask("one").tokens  # nothing else is left to look for
    assert ask("um, the, of") == Query()
    assert terms_of("tent tents") == {"tent"}


def test_scripts_without_spaces_are_cut_into_pairs() -> None:
    assert terms("帐篷出租 2天") == ["帐篷", "篷出", "出租", "2", "天"]
    assert set(terms("帐篷")) <= set(terms("我们有帐篷"))
    assert terms("Größe帐") == ["gross", "帐"]


@given(st.text(max_size=200))
def test_any_text_has_terms_without_spaces(text: str) -> None:
    assert all(term and not set(term) & set(' "\n') for term in terms(text))
    ask(text)


@given(st.integers(0, 99), st.sampled_from(["", "hundred", "thousand"]), st.integers(0, 99))
def test_a_number_is_the_same_in_words(low: int, scale: str, more: int) -> None:
    def words(n: int) -> str:
        return ONES[n] if n < 20 else TENS[n // 10 - 2] + ("" if n % 10 == 0 else " " + ONES[n % 10])

    if not scale:
        assert terms(words(low)) == [str(low)]
    elif low and more:
        value = low * (100 if scale == "hundred" else 1000) + more
        assert terms(f"{words(low)} {scale} and {words(more)}") == [str(value)]
