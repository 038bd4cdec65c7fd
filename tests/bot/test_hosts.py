"""The names that a request may call this server by; all others may be another page's (DNS rebinding)."""

from __future__ import annotations

import pytest

from bot.hosts import is_ours

LOOPBACK = ["127.0.0.1", "127.0.0.9", "::1", "localhost"]


@pytest.mark.parametrize("listens", LOOPBACK)
@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:8080", "a.localhost", "localhost.", "127.0.0.1:8080", "[::1]:8080", ""]
)
def test_this_machine_may_be_named_by_what_needs_no_name_server(listens: str, host: str) -> None:
    assert is_ours(host, listens, [], [])


@pytest.mark.parametrize("listens", LOOPBACK)
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "[::1",
        ":8080",
        "a b",
    ],
)
def test_any_other_name_is_refused_on_a_loopback_address(listens: str, host: str) -> None:
    assert not is_ours(host, listens, [], [])


def test_names_of_its_own_and_of_allowed_pages_are_taken() -> None:
    hosts, origins = ["Bot.example.org", "other.example:8443"], ["https://shop.example:444"]
    for host in ("bot.example.org", "BOT.example.org:443", "other.example", "shop.example"):
        assert is_ours(host, "127.0.0.1", hosts, origins)
    assert not is_ours("shop.example.org", "127.0.0.1", hosts, origins)


def test_what_others_can_reach_is_known_by_any_name_until_one_is_set() -> None:
    assert is_ours("anything.example", "0.0.0.0", [], [])
    assert not is_ours("anything.example", "0.0.0.0", ["bot.example"], [])
    assert is_ours("10.1.2.3:8080", "0.0.0.0", ["bot.example"], [])  # a probe
