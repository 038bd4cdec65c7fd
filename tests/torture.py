"""What no honest phone would send: SIP, SDP and streams of the kinds of RFC 4475, and mutations of good ones.

What is sent comes from ``CLIENT``, by a raw socket, and is addressed to ``SERVER``, the edge.
"""

from __future__ import annotations

import random
import socket
import uuid
from typing import Self

SERVER, CLIENT = "127.0.0.2", "127.0.0.3"
ANSWER_S = 10.0  # only a test that fails waits so long; where silence is right, the test says how long
VIA = "SIP/2.0/UDP 127.0.0.3:5060;branch=z9hG4bK"
HOSTILE: dict[str, dict[str, str]] = {  # what differs from a good OPTIONS
    "Via port 99999": {"Via": "SIP/2.0/UDP 127.0.0.3:99999;branch=z9hG4bKa1"},
    "Via port 0": {"Via": "SIP/2.0/UDP 127.0.0.3:0;branch=z9hG4bKa2"},
    "Via port -1": {"Via": "SIP/2.0/UDP 127.0.0.3:-1;branch=z9hG4bKa3"},
    "rport=99999": {"Via": f"{VIA}a4;rport=99999"},
    "Via of a bad host": {"Via": "SIP/2.0/UDP ..%%..;branch=z9hG4bKa5"},
    "Via of an endless host": {"Via": f"SIP/2.0/UDP {'a' * 4000}.example;branch=z9hG4bKa6"},
    "Via of half an IPv6 address": {"Via": "SIP/2.0/UDP [::1;branch=z9hG4bKa7"},
    "Via of a transport nobody has": {"Via": "SIP/2.0/PIGEON 127.0.0.3;branch=z9hG4bKa8"},
    "Via without a branch": {"Via": "SIP/2.0/UDP 127.0.0.3"},
    "no Via": {"Via": ""},
    "200 Vias": {"Via": "\r\nVia: ".join(f"{VIA}b{n}" for n in range(200))},
    "SIP/7.0": {"version": "SIP/7.0"},
    "no version": {"version": ""},
    "HTTP": {"version": "HTTP/1.1"},
    "Content-Length too long": {"Content_Length": "9999"},
    "Content-Length negative": {"Content_Length": "-1"},
    "Content-Length of 2^31": {"Content_Length": "2147483648"},
    "Content-Length of 10^30": {"Content_Length": "1" + "0" * 30},
    "Content-Length of letters": {"Content_Length": "many"},
    "Content-Length too short": {"Content_Length": "1", "body": "abcdef"},
    "CSeq of another method": {"CSeq": "1 INVITE"},
    "CSeq of 2^32": {"CSeq": "4294967296 OPTIONS"},
    "CSeq negative": {"CSeq": "-1 OPTIONS"},
    "no CSeq": {"CSeq": ""},
    "no Call-ID": {"Call_ID": ""},
    "an endless Call-ID": {"Call_ID": "x" * 8000},
    "no From": {"From": ""},
    "From without an end": {"From": '"x <sip:x@127.0.0.3;tag=1'},
    "From with a NUL": {"From": "<sip:x\0y@127.0.0.3>;tag=1"},
    "From with two tags": {"From": "<sip:x@127.0.0.3>;tag=1;tag=2"},
    "no To": {"To": ""},
    "To of nothing": {"To": "<>"},
    "Max-Forwards 0": {"Max_Forwards": "0"},
    "Max-Forwards 300": {"Max_Forwards": "300"},
    "Max-Forwards of letters": {"Max_Forwards": "ten"},
    "an unknown scheme": {"uri": "nobodyKnowsThisScheme:x"},
    "no URI": {"uri": ""},
    "a URI with a space": {"uri": "sip:b ot@127.0.0.2"},
    "a URI full of percents": {"uri": "sip:%00%ff%zz@127.0.0.2"},
    "a URI with port 99999": {"uri": "sip:bot@127.0.0.2:99999"},
    "an endless URI": {"uri": f"sip:{'b' * 5000}@127.0.0.2"},
    "a URI with format characters": {"uri": "sip:%s%n%x@127.0.0.2"},
    "Contact of a star": {"Contact": "*"},
    "Contact without an end": {"Contact": '"<sip:'},
    "Route to itself": {"Route": f"<sip:{SERVER};lr>, <sip:{SERVER};lr>"},
    "Route of rubbish": {"Route": "<<<>>>"},
    "Record-Route of rubbish": {"Record_Route": "@@@"},
    "Require": {"Require": "nothing.that.there.is"},
    "Proxy-Require": {"Proxy_Require": "nothing.that.there.is"},
    "Authorization of rubbish": {"Authorization": 'Digest ,,,="",nonce'},
    "a folded header": {"Subject": "a\r\n b\r\n\tc"},
    "a header without a colon": {"Subject": "a\r\nno colon here"},
    "a thousand headers": {"X": "\r\nX: ".join("y" * 1000)},
    "Latin-1": {"Subject": "\xff\xfe\xe9"},
}
SESSION = "v=0\r\no=- 1 1 IN IP4 127.0.0.3\r\ns=-\r\nc=IN IP4 127.0.0.3\r\nt=0 0\r\n"
SDPS = {
    "no media": SESSION,
    "rubbish": "\0\xff" * 200,
    "port 99999": SESSION + "m=audio 99999 RTP/AVP 0\r\n",
    "host of rubbish": SESSION.replace("IP4 127.0.0.3", "IP4 %%%") + "m=audio 4000 RTP/AVP 0\r\n",
    "1000 media": SESSION + "m=audio 4000 RTP/AVP 0\r\n" * 1000,
    "crypto of rubbish": SESSION
    + "m=audio 4000 RTP/SAVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:AAAA\r\n",
}
STREAMS = {
    "half": b"INVITE sip:bot@127.0.0.2 SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.3",
    "endless headers": b"INVITE sip:bot@127.0.0.2 SIP/2.0\r\n" + b"X: y\r\n" * 20000,
    "endless line": b"A" * 70000,
    "zeros": b"\0" * 5000,
    "pings": b"\r\n" * 5000,
    "length 2^31": b"OPTIONS sip:bot@127.0.0.2 SIP/2.0\r\nContent-Length: 2147483648\r\n\r\n",
    "length -5": b"OPTIONS sip:bot@127.0.0.2 SIP/2.0\r\nContent-Length: -5\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00",
}


def mutated(message: bytes, dice: random.Random) -> bytes:
    """One to eight bytes changed, cut out or put in, a piece doubled, or the end cut off."""
    found = bytearray(message)
    for _ in range(dice.randint(1, 8)):
        at = dice.randrange(len(found) or 1)
        match dice.randrange(6):
            case 0:
                found[at : at + 1] = bytes([dice.randrange(256)])
            case 1:
                del found[at : at + dice.randint(1, 20)]
            case 2:
                found[at:at] = bytes(dice.choices(b'\r\n\0;=<>"@:%,0 \xff', k=dice.randint(1, 20)))
            case 3:
                found[at:at] = found[at : at + dice.randint(1, 400)]
            case 4:
                found[at:at] = str(dice.choice([0, -1, 65536, 2**31, 2**32, 10**30])).encode()
            case _:
                del found[max(at, 1) :]
    return bytes(found[:60000]) or b"x"


class RawLine:
    """A raw UDP socket at ``address``, towards ``server``, for what no phone would send."""

    def __init__(self, server: tuple[str, int], address: str) -> None:
        self.server = server
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 0))
        self.address, self.port = self.socket.getsockname()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, message: bytes) -> None:
        self.socket.sendto(message, self.server)

    def whole_answer(self, seconds: float = ANSWER_S) -> str:
        """What comes back, "" if nothing does; 100 is passed over."""
        self.socket.settimeout(seconds)
        try:
            while True:
                answer = self.socket.recv(65536).decode(errors="replace")
                if not answer.startswith("SIP/2.0 100"):
                    return answer
        except TimeoutError:
            return ""

    def answer_of(self, status: str) -> str:
        """The first that has this status; others are passed over. "" if none comes."""
        while answer := self.whole_answer():
            if answer.startswith(f"SIP/2.0 {status}"):
                break
        return answer

    def answer(self, seconds: float = ANSWER_S) -> str:
        """The first line of it."""
        return self.whole_answer(seconds).split("\r\n")[0]

    def ask(self, method: str = "OPTIONS", seconds: float = ANSWER_S, **changes: str) -> str:
        self.send(self.request(method, **changes))
        return self.answer(seconds)

    def request(self, method: str = "OPTIONS", **changes: str) -> bytes:
        """A good request, but for ``changes``: a header (``_`` for ``-``), ``uri``, ``version``, ``body``."""
        token = uuid.uuid4().hex
        uri = changes.pop("uri", f"sip:bot@{self.server[0]}")
        version = changes.pop("version", "SIP/2.0")
        body = changes.pop("body", "")
        headers = {
            "Via": f"SIP/2.0/UDP {self.address}:{self.port};branch=z9hG4bK{token};rport",
            "Max-Forwards": "70",
            "From": f"<sip:x@{self.address}>;tag={token[:8]}",
            "To": f"<{uri}>",
            "Call-ID": token,
            "CSeq": f"1 {method}",
            "Contact": f"<sip:x@{self.address}:{self.port}>",
            "Content-Length": str(len(body)),
        } | {name.replace("_", "-"): value for name, value in changes.items()}
        lines = [
            f"{method} {uri} {version}",
            *(f"{name}: {value}" for name, value in headers.items() if value),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()
