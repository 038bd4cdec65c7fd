"""By which names this server may be asked for.

A page elsewhere can have its own name point to 127.0.0.1 once it is loaded (DNS rebinding). For the browser
that is still the same site, so it may place calls here and read the answers; only the Host header tells. It
names the page's own site then, and never an address.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from pydantic import Field

from bot.setting_group import Group, Words


class WebSettings(Group):
    """How the page is reached."""

    hosts: Words = Field(
        default=(),
        description="Names this server is reached by, `bot.example.org`, parted by commas: those that a TLS "
        "proxy in front passes on. On a loopback address, or with any named, all others are refused (421).",
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what listens on ``host``."""
    return _name(host) == "localhost" or (_is_address(host) and ip_address(host).is_loopback)


def is_ours(host: str, listens: str, hosts: Iterable[str], origins: Iterable[str]) -> bool:
    """Whether a request may name us ``host`` (RFC 9110, 7.2), which may have a port.

    ``listens``: our own address; ``hosts``: the names we are reached by; ``origins``: of pages that may call.
    """
    named = {_name(one) for one in hosts}
    if not host or not (named or is_loopback(listens)):
        return True  # every browser sends one
    asked = _name(host)
    if asked == "localhost" or asked.endswith(".localhost") or _is_address(asked):
        return True  # no name server is asked for these
    return asked in named | {urlsplit(origin).hostname for origin in origins}


def _name(host: str) -> str:
    """Without its port, in small letters; empty: it is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
