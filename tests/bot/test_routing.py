"""Which agent's a call by phone is: by number, trunk and header; and that no call is two agents'."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bot.routing import CALLED, EXTENSION, SOURCE, TRUNK, Answers, Called, called, choose, clash, rank


def answers(**said: object) -> Answers:
    return Answers.model_validate(said)


AGENTS = {
    "main": answers(numbers=["*"]),
    "sales": answers(numbers=["100", "+49 30 123-0"]),
    "support": answers(numbers=["2*"]),
    "nights": answers(numbers=["2*"], headers={"X-Time": "night"}),
    "berlin": answers(numbers=["+4930*"]),
    "office": answers(trunks=["Office"]),
    "vip": answers(trunks=["office"], headers={"X-Line": "1"}),
}


@pytest.mark.parametrize(
    ("call", "agent"),
    [
        (Called("100"), "sales"),
        (Called("1000"), "main"),
        (Called("+49301230"), "sales"),
        (Called("+49301231"), "berlin"),
        (Called("2"), "support"),
        (Called("299"), "support"),
        (Called("299", headers={"x-time": "night"}), "nights"),
        (Called("299", headers={"x-time": "day"}), "support"),
        (Called("299", "office"), "support"),  # the number is said first
        (Called("", ""), "main"),
        (Called("bot", "elsewhere"), "main"),
    ],
)
def test_the_agent_that_says_most_about_a_call_answers_it(call: Called, agent: str) -> None:
    assert choose(AGENTS, call) == agent


def test_without_a_number_the_trunk_decides_and_then_the_headers() -> None:
    agents = {name: AGENTS[name] for name in ("sales", "office", "vip")}
    assert choose(agents, Called("7", "OFFICE")) == "office"
    assert choose(agents, Called("7", "office", {"x-line": "1"})) == "vip"
    assert choose(agents, Called("7", "home", {"x-line": "1"})) is None
    assert choose({}, Called("7")) is None


@pytest.mark.parametrize(
    ("to", "number"),
    [
        ("sip:100@127.0.0.1:5060", "100"),
        ("<sip:+49-30-1230@h;user=phone>;tag=x", "+49301230"),
        ('"A <b> \\" c" <sips:bot%20x:pw@h>', "bot x"),
        ("Sales <sip:2*@h>", "2*"),
        ("tel:+49(30)123;phone-context=x", "+4930123"),
        ("SIP:*98;x=y@h", "*98"),
        ("sip:h", ""),
        ("<mailto:a@b>", ""),
        ("", ""),
        ("<", ""),
    ],
)
def test_who_is_called_is_the_user_of_the_address(to: str, number: str) -> None:
    assert called(to, "", {}).number == number


@pytest.mark.parametrize(
    ("caller", "trunk"),
    [
        ("sip:a@PBX.example.org:5070;transport=tcp", "pbx.example.org"),
        ("<sip:pbx>", "pbx"),
        ("sip:a@[2001:DB8::1]:5060", "2001:db8::1"),
        ("tel:+49301", ""),
    ],
)
def test_without_an_edge_the_trunk_is_the_callers_host(caller: str, trunk: str) -> None:
    assert called("sip:1@h", caller, {}).trunk == trunk


def test_behind_an_edge_the_trunk_is_what_the_edge_says_and_not_what_callers_say() -> None:
    assert called("sip:1@h", "sip:a@office", {TRUNK: " carrier "}).trunk == "carrier"
    assert called("sip:1@h", "sip:a@office", {SOURCE: "192.0.2.1"}).trunk == ""
    assert called("sip:1@h", "sip:a@office", {EXTENSION.upper(): "7"}).trunk == ""
    assert called("sip:1@h", "sip:a@office", {"X-Other": "7"}).headers == {"x-other": "7"}


def test_behind_an_edge_the_number_is_the_one_the_call_was_sent_to() -> None:
    assert called("sip:1@h", "sip:a@office", {CALLED: "+49 30 2"}).number == "+49302"
    assert called("sip:1@h", "sip:a@office", {CALLED: "%2B4930"}).number == "+4930"
    assert called("sip:1@h", "sip:a@office", {CALLED: "", SOURCE: "192.0.2.1"}).number == "1"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({}, "should say which calls"),
        ({"numbers": [100]}, "in quotes"),
        ({"numbers": [1.5]}, "in quotes"),
        ({"numbers": [""]}, "at least 1"),
        ({"headers": {"X-A": 7}}, "in quotes"),
        ({"headers": {"X A": "7"}}, "pattern"),
        ({"headers": {"X-A": "7", "x-a": "8"}}, "is there twice"),
        ({"number": ["1"]}, "Extra"),
    ],
)
def test_what_cannot_be_meant_is_refused(said: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        answers(**said)


def test_it_is_said_on_one_line() -> None:
    both = answers(numbers=["1", "2*"], trunks=["a", "b"], headers={"X-A": "7"})
    assert both.said() == "1, 2*; from a or b; X-A: 7"
    assert answers(trunks=["a"]).said() == "from a"


@pytest.mark.parametrize(
    ("one", "other", "places"),
    [
        ({"numbers": ["1", "2*"]}, {"numbers": ["3", "2*"]}, (("numbers", 1), ("numbers", 1))),
        ({"numbers": ["+49 1"]}, {"numbers": ["+491"]}, (("numbers", 0), ("numbers", 0))),
        ({"numbers": ["2*"]}, {"numbers": ["20*", "2"]}, None),
        ({"numbers": ["1"]}, {"numbers": ["1"], "trunks": ["a"]}, None),
        ({"numbers": ["1"], "trunks": ["a"]}, {"numbers": ["1"], "trunks": ["b"]}, None),
        ({"trunks": ["x", "A"]}, {"trunks": ["a"]}, (("trunks", 1), ("trunks", 0))),
        ({"headers": {"X-A": "1"}}, {"headers": {"X-A": "2"}}, None),
        ({"headers": {"X-A": "1"}}, {"headers": {"X-B": "2"}}, (("headers", "X-A"), ("headers", "X-B"))),
        ({"headers": {"X-A": "1"}}, {"headers": {"x-a": "1", "X-B": "2"}}, None),
    ],
)
def test_two_agents_for_the_same_call_are_found_and_where_they_say_it(
    one: dict[str, object], other: dict[str, object], places: object
) -> None:
    assert clash(answers(**one), answers(**other)) == places
    turned = clash(answers(**other), answers(**one))
    assert (turned is None) == (places is None)


NUMBERS = ["1", "12", "1*", "12*", "*", "2"]
ANSWERS = st.builds(
    lambda numbers, trunks, headers: Answers(numbers=tuple(numbers), trunks=tuple(trunks), headers=headers),
    st.lists(st.sampled_from(NUMBERS), max_size=3),
    st.lists(st.sampled_from(["a", "b"]), max_size=2),
    st.dictionaries(st.sampled_from(["X-A", "X-B"]), st.sampled_from(["1", "2"]), min_size=1),
)
CALLS = [
    Called(number, trunk, {name: value for name, value in (("x-a", a), ("x-b", b)) if value})
    for number in ("", "1", "12", "123", "13", "2", "3")
    for trunk in ("", "a", "b")
    for a in ("", "1", "2")
    for b in ("", "1", "2")
]


@given(ANSWERS, ANSWERS)
def test_there_is_a_clash_exactly_if_some_call_fits_both_equally_well(one: Answers, other: Answers) -> None:
    tied = [call for call in CALLS if rank(one, call) is not None and rank(one, call) == rank(other, call)]
    assert bool(tied) == (clash(one, other) is not None)
