"""Which agent answers a call by phone: what the agents' files say, held against what is known of the call.

Of the agents that fit a call the one whose file says most about it answers: a whole number before the
beginning of one, a longer beginning before a shorter one, any number before none; then a trunk; then more
headers. Two agents that could fit the same call equally well are a conflict (``clash``), found before there
is such a call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import unquote

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StringConstraints,
    model_validator,
)

TRUNK = "X-Parley-Trunk"  # which the edge puts there, as it does the next three; see infra/sip/README.md
EXTENSION = "X-Parley-Extension"
SOURCE = "X-Parley-Source"
CALLED = "X-Parley-Called"
EDGE = (TRUNK, EXTENSION, SOURCE, CALLED)

_WHOLE = 1000  # a whole number's rank: above that of any beginning
_SEPARATORS = re.compile(r"[ ().\-/]")  # what people write into numbers (RFC 3966, 5.1.1)
_NUMBER = re.compile(r"\+?[0-9][0-9 ().\-/]*")
_NAME_ADDR = re.compile(r'(?:"(?:[^"\\]|\\.)*"\s*|[^"<]*)<([^>]*)>')  # RFC 3261, 25.1
_URI = re.compile(r"(?P<scheme>sips?|tel):(?:(?P<user>[^@]*)@)?(?P<rest>.*)", re.IGNORECASE | re.DOTALL)

Rank = tuple[int, bool, int]
Place = tuple[str, int | str]
"""Where in ``answers`` something stands: a field, and which of its parts."""


def _quoted(value: Any) -> Any:
    if isinstance(value, int | float):
        raise ValueError("write it in quotes: without them YAML takes a + or a leading 0 away")
    return value


def plain(number: str) -> str:
    """A number without what is only there to be read by; anything else as it is."""
    return _SEPARATORS.sub("", number) if _NUMBER.fullmatch(number) else number


def _pattern(text: str) -> str:
    if not text.endswith("*"):
        return plain(text)
    return f"{plain(text[:-1].rstrip())}*"


Short = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Number = Annotated[Short, BeforeValidator(_quoted), AfterValidator(_pattern)]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!%*_+`'~.-]{1,63}$")]  # RFC 3261's token


class Answers(BaseModel):
    """The calls by phone that are an agent's. Each field that is there must fit, by one of its parts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    numbers: tuple[Number, ...] = ()  # who is called; a * at the end stands for any more
    trunks: tuple[Short, ...] = ()  # by the edge's name, or without an edge the host of the caller's address
    headers: dict[HeaderName, Annotated[Short, BeforeValidator(_quoted)]] = {}  # all of them

    @model_validator(mode="after")
    def _something(self) -> Answers:
        if not (self.numbers or self.trunks or self.headers):
            raise ValueError("should say which calls: numbers, trunks or headers")
        names = [name.lower() for name in self.headers]
        if len(names) > len(set(names)):
            raise ValueError("headers: one is there twice; small and capital letters are the same")
        return self

    @property
    def wanted(self) -> dict[str, str]:
        """The headers by their names in small letters, which is how they are told apart (RFC 3261, 7.3.1)."""
        return {name.lower(): value for name, value in self.headers.items()}

    def said(self) -> str:
        """For a person, on one line."""
        parts = [", ".join(self.numbers)] if self.numbers else []
        parts += [f"from {' or '.join(self.trunks)}"] if self.trunks else []
        parts += [f"{name}: {value}" for name, value in self.headers.items()]
        return "; ".join(parts)


@dataclass(frozen=True)
class Called:
    """What is known of a call: all of it in the words of whoever calls, unless an edge wrote it."""

    number: str
    trunk: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)  # by names in small letters


def called(to: str, caller: str, headers: Mapping[str, str]) -> Called:
    """A call to the address ``to`` from ``caller``, both as headers hold them (RFC 3261, 20.10).

    Behind an edge the trunk is what the edge says, for what callers say of themselves is no proof there, and
    the number the one that the call was sent to: that of a forwarded call still stands in its To.
    """
    known = {name.lower(): value.strip() for name, value in headers.items()}
    edge = any(name.lower() in known for name in EDGE)
    trunk = known.get(TRUNK.lower(), "") if edge else _parts(caller)[1]
    number = unquote(known.get(CALLED.lower(), "")) or _parts(to)[0]
    return Called(plain(number), trunk, known)


def _parts(address: str) -> tuple[str, str]:
    """The user and the host of an address; empty: there is none."""
    named = _NAME_ADDR.match(address.strip())
    uri = _URI.match((named[1] if named else address).strip())
    if uri is None:
        return "", ""
    if uri["scheme"].lower() == "tel":
        return unquote(uri["rest"].partition(";")[0]), ""
    user = (uri["user"] or "").partition(":")[0].partition(";")[0]
    host = re.split(r"[;?>]", uri["rest"])[0]
    if not host.startswith("["):
        host = host.partition(":")[0]
    return unquote(user), host.partition("]")[0].lstrip("[").lower()


def rank(answers: Answers, call: Called) -> Rank | None:
    """How well a call fits; ``None``: not at all."""
    number = max((_rank(pattern) for pattern in answers.numbers if _fits(pattern, call.number)), default=0)
    if answers.numbers and not number:
        return None
    if answers.trunks and call.trunk.lower() not in map(str.lower, answers.trunks):
        return None
    if any(call.headers.get(name) != value for name, value in answers.wanted.items()):
        return None
    return number, bool(answers.trunks), len(answers.headers)


def choose(agents: Mapping[str, Answers], call: Called) -> str | None:
    """The agent whose call it is; ``None``: nobody's. With a ``clash`` the first of both."""
    ranked = [(found, name) for name, answers in agents.items() if (found := rank(answers, call))]
    return max(ranked, key=lambda one: one[0])[1] if ranked else None


def clash(one: Answers, other: Answers) -> tuple[Place, Place] | None:
    """Where two agents say the same of some call, in the file of each; ``None``: of no call."""
    ours, theirs = one.wanted, other.wanted
    if len(ours) != len(theirs) or any(theirs.get(name, value) != value for name, value in ours.items()):
        return None
    if bool(one.trunks) != bool(other.trunks) or bool(one.numbers) != bool(other.numbers):
        return None
    trunks = _shared("trunks", one.trunks, other.trunks)
    # Beginnings of equal rank are equally long, so they fit the same number only if they are the same.
    numbers = _shared("numbers", one.numbers, other.numbers)
    if (one.trunks and not trunks) or (one.numbers and not numbers):
        return None
    return numbers or trunks or (("headers", next(iter(one.headers))), ("headers", next(iter(other.headers))))


def _shared(name: str, ours: tuple[str, ...], theirs: tuple[str, ...]) -> tuple[Place, Place] | None:
    if name == "trunks":
        ours, theirs = tuple(map(str.lower, ours)), tuple(map(str.lower, theirs))
    for at, part in enumerate(ours):
        if part in theirs:
            return (name, at), (name, theirs.index(part))
    return None


def _fits(pattern: str, number: str) -> bool:
    return number.startswith(pattern[:-1]) if pattern.endswith("*") else number == pattern


def _rank(pattern: str) -> int:
    return len(pattern) if pattern.endswith("*") else _WHOLE
