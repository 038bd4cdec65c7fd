"""Whom we may call, and what may stand in the INVITE: pure checks of what somebody asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from bot.ingress.sip.registrar import Registrar

MAX_HEADERS = 10
MAX_HEADER = 256  # characters of a value; an INVITE over UDP should fit one packet (RFC 3261, 18.1.1)

# Strict where RFC 3261 is generous: what is checked against the list must be what the stack will read.
_URI = re.compile(
    r"(?:sip:)?(?P<user>[A-Za-z0-9+*#._-]{1,64})@(?P<host>[A-Za-z0-9.-]{1,253})(?P<port>:\d{1,5})?"
    r"(?P<transport>;transport=(?:udp|tcp))?"
)
_HEADER = re.compile(r"X-[A-Za-z0-9-]{1,60}", re.IGNORECASE)
_VALUE = re.compile(r"[\x20-\x7e]*")


class NotCallable(Exception):  # noqa: N818 - read by whoever asked
    """It will not be called. ``code`` is for programs, the message says why and what to do."""

    def __init__(self, code: str, message: str) -> None:
        """``code``: "bad_address", "bad_header", "destination", "not_trusted"."""
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Destination:
    """A checked address."""

    user: str
    host: str  # lower case
    port: str  # ":5060" or empty
    transport: str  # ";transport=tcp" or empty

    @property
    def address(self) -> str:
        """``user@host:port``: what lists are compared with, and calls counted by."""
        return f"{self.user}@{self.host}{self.port}"

    @property
    def uri(self) -> str:
        """As the stack is told."""
        return f"sip:{self.address}{self.transport}"

    @property
    def over_tcp(self) -> bool:
        """Whether it is called by TCP."""
        return self.transport.endswith("tcp")


def parsed(uri: str) -> Destination:
    """``uri`` as a destination. Raises ``NotCallable`` for one that is none."""
    found = _URI.fullmatch(uri.strip())
    if found is None or int((found["port"] or ":1")[1:]) not in range(1, 65_536):
        raise NotCallable(
            "bad_address", f"{uri!r} is not an address to call; one looks like sip:1000@pbx.example.org"
        )
    return Destination(found["user"], found["host"].lower(), found["port"] or "", found["transport"] or "")


def check_listed(destination: Destination, patterns: Sequence[str], where: str) -> None:
    """Raises ``NotCallable`` unless one of ``patterns`` fits; ``where`` says where they stand.

    A pattern is ``USER@HOST``, with the port if the address has one; ``*`` stands for any characters.
    """
    for pattern in patterns:
        user, _, host = pattern.removeprefix("sip:").rpartition("@")
        wanted = re.escape(f"{user}@{host.lower()}").replace(r"\*", ".*")
        if re.fullmatch(wanted, destination.address):
            return
    raise NotCallable(
        "destination",
        f"{destination.address} is not among those that may be called. Add it to {where}, "
        "where * stands for any characters.",
    )


def check_heard(destination: Destination, networks: Sequence[str], registrar: str) -> None:
    """Raises ``NotCallable`` for who answers over UDP, from where no packets are let in.

    ``networks`` are let in (CIDR), and the ``registrar``, if any. A name is believed, since only the stack
    looks it up.
    """
    ours = bool(registrar) and Registrar.parse(registrar).host == destination.host
    if destination.over_tcp or ours:
        return
    try:
        address = IPv4Address(destination.host)
    except ValueError:
        return
    if not any(address in IPv4Network(network) for network in networks):
        raise NotCallable(
            "not_trusted",
            f"{destination.host} is in none of the networks of PARLEY_SIP__TRUSTED, so its answers would not "
            "be let in; add it there, or call with ;transport=tcp.",
        )


def check_headers(headers: Mapping[str, str]) -> None:
    """Raises ``NotCallable`` for what is no ``X-`` header of one line, or for too many of them.

    Others would be the dialog's own affair, such as ``Contact``, or mean something to proxies.
    """
    if len(headers) > MAX_HEADERS:
        raise NotCallable(
            "bad_header", f"There are {len(headers)} headers; at most {MAX_HEADERS} may be sent."
        )
    for name, value in headers.items():
        if not _HEADER.fullmatch(name):
            raise NotCallable("bad_header", f"{name!r} is no header to send; only X-... ones may be.")
        if len(value) > MAX_HEADER or not _VALUE.fullmatch(value):
            raise NotCallable(
                "bad_header", f"The value of {name} is not one line of at most {MAX_HEADER} ASCII characters."
            )
