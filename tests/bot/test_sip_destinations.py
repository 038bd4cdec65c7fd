"""Whom we may call, and with which headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.ingress.sip.destinations import NotCallable, check_headers, check_listed, parsed


@pytest.mark.parametrize(
    ("uri", "called"),
    [
        ("sip:1000@pbx.example", "sip:1000@pbx.example"),
        ("1000@PBX.example", "sip:1000@pbx.example"),
        ("sip:+4930123@gw.example:5070;transport=tcp", "sip:+4930123@gw.example:5070;transport=tcp"),
    ],
)
def test_those_on_the_list_may_be_called(uri: str, called: str) -> None:
    to = parsed(uri)
    check_listed(to, ["1000@pbx.example", "sip:+49*@GW.example:5070"], "the list")
    assert to.uri == called
    assert to.over_tcp == ("tcp" in called)


@pytest.mark.parametrize(
    "uri", ["sip:1001@pbx.example", "sip:1000@pbx.example.evil", "1000@pbx.example:5071"]
)
def test_nobody_else_may(uri: str) -> None:
    for patterns in (["1000@pbx.example"], []):
        with pytest.raises(NotCallable, match=r"is not among those .* Add it to the list") as refused:
            check_listed(parsed(uri), patterns, "the list")
        assert refused.value.code == "destination"


@pytest.mark.parametrize(
    "uri",
    [
        "sip:1000@pbx.example?Route=evil",
        "sip:1000@pbx.example;maddr=192.0.2.1",
        "sip:1000%40evil@pbx.example",
        "<sip:1000@pbx.example>",
        "sip:1000@pbx.example\nX: y",
        "sip:1000@pbx.example:0",
        "sip:1000@pbx.example:65536",
        "tel:1000",
        "",
    ],
)
def test_what_is_no_plain_address_is_refused_whatever_the_list_says(uri: str) -> None:
    with pytest.raises(NotCallable, match="is not an address to call") as refused:
        parsed(uri)
    assert refused.value.code == "bad_address"


@given(st.text(max_size=60))
def test_whatever_is_taken_for_an_address_has_nothing_in_it_to_end_a_header(text: str) -> None:
    try:
        uri = parsed(text).uri
    except NotCallable:
        return
    assert uri.isascii()
    assert not set(uri) & set("\r\n <>?,\"'\\%&")
    assert uri.count("@") == 1


def test_headers_of_ones_own_may_be_sent() -> None:
    check_headers({"X-Campaign": "spring 2026", "x-empty": ""})


@pytest.mark.parametrize(
    "headers",
    [
        {"Contact": "<sip:evil@example>"},
        {"X-": "nothing"},
        {"X-A: b": "c"},
        {"X-A\r\nVia": "c"},
        {"X-A": "b\r\nVia: c"},
        {"X-A": "b\n"},
        {"X-A": "ä"},
        {"X-A": "b" * 257},
        {f"X-{n}": "" for n in range(11)},
    ],
)
def test_no_other_header_is(headers: dict[str, str]) -> None:
    with pytest.raises(NotCallable) as refused:
        check_headers(headers)
    assert refused.value.code == "bad_header"
