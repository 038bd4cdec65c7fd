"""Keys that open an agent over HTTP: ``Authorization: Bearer KEY`` (RFC 6750, 2.1).

A file never holds a key itself: it names the environment variable that does (``$SALES_KEY``), or the
key's SHA-256. From then on only the digest is known, so no log and no error can tell the key.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BeforeValidator

PREFIX = "sha256:"
SHORTEST = 16  # characters; what a person makes up in fewer is soon guessed, and nothing counts the guesses


def digest(key: str) -> str:
    """A key as an agent's file may hold it. Keys are random and long, so salt would add nothing."""
    return PREFIX + hashlib.sha256(key.encode()).hexdigest()


def new_key() -> str:
    """A key: 256 random bits, as text."""
    return secrets.token_urlsafe(32)


def opens(key: str, digests: Iterable[str]) -> bool:
    """Whether ``key`` is one of those, in a time that does not tell how nearly."""
    given = digest(key)
    return sum(hmac.compare_digest(given, known) for known in digests) > 0  # any() would stop early


def bearer(authorization: str) -> str:
    """The key in that header; empty: there is none."""
    scheme, _, key = authorization.strip().partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""


def _digest(value: Any) -> str:
    """What a file says, as a digest. The message of an error never repeats it: it may be the key."""
    if isinstance(value, str) and re.fullmatch(r"sha256:[0-9a-fA-F]{64}", value):
        return value.lower()
    if not isinstance(value, str) or not re.fullmatch(r"\$[A-Za-z_][A-Za-z0-9_]*", value):
        raise ValueError(
            "should be $NAME, the environment variable that holds the key, or the key's sha256:..., which "
            "`parley agents key` makes; never the key itself"
        )
    key = os.environ.get(value[1:], "")
    if len(key) < SHORTEST:
        why = f"is shorter than {SHORTEST} characters" if key else "is not set"
        raise ValueError(f"the environment variable {value[1:]} {why}; `parley agents key` makes a key")
    return digest(key)


Key = Annotated[str, BeforeValidator(_digest)]
"""One key of a file, as its digest."""
