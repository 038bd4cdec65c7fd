"""Who we are to others: an account of the stack's, by password, number and name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from baresip.config import Account

from bot.ingress.sip import messages as m

NAMES = {
    "opus": "opus/48000/2",
    "g722": "g722/16000/1",
    "pcmu": "pcmu",
    "pcma": "pcma",
}  # the stack's spelling


@dataclass(repr=False)
class _Named(Account):
    """An account with a display name, for which the binding has no field."""

    name: str = ""

    def aor(self) -> str:
        """As the stack reads it (RFC 3261, section 20.10)."""
        return f'"{self.name}" {super().aor()}' if self.name else super().aor()


def account(wanted: m.Configure, *params: str, **of: Any) -> Account:
    """Who we are to others, by password and by name; ``params``: the stack's own."""
    return _Named(
        extra_params=("100rel=yes", *params),  # RFC 3262, with those who know it
        password=wanted.password,
        auth_user=wanted.auth_username or wanted.username or None,
        audio_codecs=tuple(NAMES[codec] for codec in wanted.codecs),
        name=wanted.caller_name,
        **of,
    )
