"""Where Redis is, by its URL."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.memory import Memory
from pipeline.memory.address import FORMS, Address, parse


@pytest.mark.parametrize(
    ("url", "kind", "nodes", "service", "options"),
    [
        ("redis://h:1/2", "server", [("h", 1)], "", {"host": "h", "port": 1, "db": 2}),
        ("redis://", "server", [("localhost", 6379)], "", {}),
        (
            "redis+sentinel://a,b:2,[::1]:3/mine",
            "sentinel",
            [("a", 26379), ("b", 2), ("::1", 3)],
            "mine",
            {},
        ),
        (
            "redis+sentinel://:p%40ss@a/mine/3",
            "sentinel",
            [("a", 26379)],
            "mine",
            {"password": "p@ss", "db": 3},
        ),
        ("redis+sentinel://a/my%20own?db=4", "sentinel", [("a", 26379)], "my own", {"db": 4}),
        (
            "redis+cluster://me:x@a:1,b:2",
            "cluster",
            [("a", 1), ("b", 2)],
            "",
            {"username": "me", "password": "x"},
        ),
        ("redis+cluster://a/0", "cluster", [("a", 6379)], "", {"db": 0}),
    ],
)
def test_each_form_says_where_and_how(
    url: str, kind: str, nodes: list[tuple[str, int]], service: str, options: dict[str, object]
) -> None:
    address = parse(url)
    assert (address.kind, list(address.nodes), address.service, address.tls) == (kind, nodes, service, False)
    assert address.options == options


def test_tls_is_kept_for_everybody_and_the_sentinels_have_a_password_of_their_own() -> None:
    address = parse(
        "rediss+sentinel://:redis@a/mine?ssl_ca_certs=/ca.pem&sentinel_password=theirs&sentinel_username=s"
    )
    assert address.tls
    assert address.options == {"password": "redis", "ssl_ca_certs": "/ca.pem"}
    assert address.sentinel_options == {"password": "theirs", "username": "s", "ssl_ca_certs": "/ca.pem"}
    assert parse("rediss+cluster://a?ssl_check_hostname=false").options == {"ssl_check_hostname": False}


def test_an_address_is_told_without_its_password() -> None:
    said = {
        "redis://:secret@h:1/2": "h:1",
        "unix:///a/b.sock": "/a/b.sock",
        "redis+sentinel://:secret@a,b:2/mine": "mine of Sentinel a:26379, b:2",
        "redis+cluster://:secret@a,b:2": "Cluster a:6379, b:2",
    }
    assert {url: str(parse(url)) for url in said} == said


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://a:1",
        "redis+sentinel:///mine",
        "redis+sentinel://a,,b/mine",
        "redis+sentinel://a:port/mine",
        "redis+sentinel://a/mine/one",
        "redis+sentinel://a/mine/1?db=2",
        "redis+cluster://a/1",
        "redis+cluster://",
        "redis+other://a",
        "http+cluster://a",
        "http://a",
        "nonsense",
        "rediss+cluster://a?ssl_nonsense=1",
        "redis+sentinel://:secret@a/mine?nonsense=1",
    ],
)
def test_what_is_no_such_url_is_refused_with_the_forms_there_are(url: str) -> None:
    with pytest.raises(ValueError, match="should be like") as refused:
        Memory(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", FORMS)
def test_the_forms_that_are_told_are_understood(url: str) -> None:
    assert isinstance(parse(url), Address)
    Memory(url)


@given(st.text(), st.sampled_from(["redis+sentinel", "rediss+cluster", "redis"]))
def test_any_text_is_an_address_or_refused(text: str, scheme: str) -> None:
    said = "should be like"
    try:
        Memory(f"{scheme}://{text}")
    except ValueError as error:
        said = str(error)
    assert "should be like" in said
