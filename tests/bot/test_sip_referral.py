"""To whom the bot lets itself be sent, and by what."""

from __future__ import annotations

import pytest
from baresip.call import TransferRequest

from bot.ingress.sip.referral import objection

HERE = "sip:alice@example.org"
LIST = ["alice@example.org", "+49*@gateway.example.org"]


def asked(target: str, raw: str = "", replaces: bool = False, method: str = "INVITE") -> TransferRequest:
    return TransferRequest(target=target, raw=raw or f"<{target}>", replaces=replaces, method=method)


@pytest.mark.parametrize(
    "request_", [asked(HERE), asked(HERE, HERE), asked("sip:+4930123@gateway.example.org;transport=tcp")]
)
def test_those_who_are_named_are_gone_to(request_: TransferRequest) -> None:
    assert objection(request_, LIST, []) == ""
    assert objection(request_, [], []) != ""


@pytest.mark.parametrize(
    "request_",
    [
        asked("sip:bob@example.org"),
        asked("sip:alice@example.org:5999"),
        asked("sip:alice@evil.example"),
        asked("sip:alice@example.org@evil.example"),
        asked(HERE, f"<{HERE}?Replaces=x>", replaces=True),
        asked(HERE, f"<{HERE}>;method=BYE", method="BYE"),
        asked(HERE, f"<{HERE}?Route=%3Csip:evil.example%3E>"),
        asked(HERE, f"{HERE} <sip:bob@evil.example>"),
        asked(""),
    ],
)
def test_nobody_else_is(request_: TransferRequest) -> None:
    assert objection(request_, LIST, [])


def test_nobody_is_gone_to_whose_answers_would_not_be_let_in() -> None:
    there = asked("sip:alice@192.0.2.7")
    assert objection(there, ["alice@*"], ["192.0.2.0/24"]) == ""
    assert objection(there, ["alice@*"], [], "192.0.2.7") == ""
    assert "PARLEY_SIP__TRUSTED" in objection(there, ["alice@*"], ["198.51.100.0/24"])
