"""Keys of agents: how a file names them, and who has one."""

from __future__ import annotations

import re

import pytest
from pydantic import TypeAdapter, ValidationError

from bot.agent_keys import Key, bearer, digest, new_key, opens

keys: TypeAdapter[str] = TypeAdapter(Key)


def test_a_new_key_opens_by_its_digest_and_no_other_key_does() -> None:
    key = new_key()
    held = keys.validate_python(digest(key))
    assert opens(key, [digest("other"), held])
    assert not opens(new_key(), [held])
    assert not opens("", [held])
    assert not opens(key, [])
    assert not opens(held, [held])  # who reads the file has not got the key
    assert key not in held


def test_a_key_may_be_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALES_KEY", "a long enough key")
    assert opens("a long enough key", [keys.validate_python("$SALES_KEY")])


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("open sesame", "should be $NAME"),
        ("sha256:abc", "should be $NAME"),
        (12345678901234567, "should be $NAME"),
        ("$NO_SUCH_KEY", "the environment variable NO_SUCH_KEY is not set"),
        ("$SHORT_KEY", "the environment variable SHORT_KEY is shorter than 16 characters"),
    ],
)
def test_anything_else_is_refused_without_being_repeated(
    monkeypatch: pytest.MonkeyPatch, said: object, why: str
) -> None:
    monkeypatch.setenv("SHORT_KEY", "sesame")
    with pytest.raises(ValidationError, match=re.escape(why)) as caught:
        keys.validate_python(said)
    assert "sesame" not in caught.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    ("header", "key"),
    [
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        ("Basic abc", ""),
        ("Bearer", ""),
        ("", ""),
        ("Bearerabc", ""),
    ],
)
def test_the_key_is_what_follows_bearer(header: str, key: str) -> None:
    assert bearer(header) == key
