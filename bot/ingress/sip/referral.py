"""May whoever is on the phone send us elsewhere (REFER, RFC 3515)? Only where the operator says so."""

from __future__ import annotations

from collections.abc import Sequence

from baresip.call import TransferRequest

from bot.ingress.sip.destinations import NotCallable, check_heard, check_listed, parsed


def objection(
    request: TransferRequest, patterns: Sequence[str], networks: Sequence[str], registrar: str = ""
) -> str:
    """Why not to follow ``request``; empty: do.

    ``patterns``: of ``destinations.check_listed``; ``networks``, ``registrar``: of ``check_heard`` there.
    """
    if not patterns:
        return "nobody may be sent anywhere"
    if request.method != "INVITE" or request.replaces:
        return "it asks for something else than a call"
    if request.raw.strip() not in (request.target, f"<{request.target}>"):
        return "it says more than an address"  # the stack follows what it says, not what was checked
    try:
        to = parsed(request.target)
        check_listed(to, patterns, "PARLEY_SIP__REFERRALS")
        check_heard(to, networks, registrar)
    except NotCallable as error:
        return str(error)
    return ""
