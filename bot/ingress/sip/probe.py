"""Is there a registrar? Asked without a stack and without changing anything there: OPTIONS (RFC 3261, 11)."""

from __future__ import annotations

import socket
import uuid

from bot.ingress.sip.registrar import Registrar

WAIT_S = 3.0


def options(registrar: Registrar, ours: tuple[str, int]) -> bytes:
    """The request, from our address."""
    token = uuid.uuid4().hex
    lines = (
        f"OPTIONS sip:{registrar.domain} SIP/2.0",
        f"Via: SIP/2.0/{registrar.transport.upper()} {ours[0]}:{ours[1]};branch=z9hG4bK{token};rport",
        "Max-Forwards: 70",
        f"From: <sip:parley@{ours[0]}>;tag={token[:8]}",
        f"To: <sip:{registrar.domain}>",
        f"Call-ID: {token}",
        "CSeq: 1 OPTIONS",
        "Content-Length: 0",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def silence_of(registrar: Registrar) -> str:
    """Why there is no answer; empty: there is one, whatever it says."""
    kind = socket.SOCK_STREAM if registrar.transport == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as line:
        line.settimeout(WAIT_S)
        try:
            line.connect((registrar.host, int(registrar.port[1:] or 5060)))
            line.sendall(options(registrar, line.getsockname()))
            answer = line.recv(4096)
        except TimeoutError:
            return f"no answer in {WAIT_S:.0f} s"
        except OSError as error:
            return (error.strerror or str(error)).lower()
    return "" if answer.startswith(b"SIP/2.0 ") else "what answers there does not speak SIP"
