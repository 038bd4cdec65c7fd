"""A caller without a phone: SIP and RTP by hand, for what no phone can be made to do."""

from __future__ import annotations

import re
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from tests.torture import RawLine

ANSWER_S = 5.0
OFFER = (
    "v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n"
    "m=audio {port} RTP/AVP {types}\r\n"
)


class RawCall:
    """A call that was answered and acknowledged; made by ``raw_call``."""

    def __init__(self, line: RawLine, sound: socket.socket, invited: dict[str, str], answer: str) -> None:
        self.sound = sound
        self.there = (line.server[0], int(_found(r"m=audio (\d+)", answer)))  # where our RTP goes
        self.answer = answer
        self.call_id = invited["Call_ID"]
        self.via = _found(r"(?im)^Via: (.*?)\r?$", answer)
        self._line = line
        self._invited = invited
        self._to = _found(r"(?im)^To: (.*?)\r?$", answer)
        self._contact = _found(r"(?im)^Contact: *<([^>]+)>", answer)
        self._cseq = 1

    def send(self, method: str, **headers: str) -> None:
        """A request within the call."""
        if method != "ACK":
            self._cseq += 1
        mine = self._invited | {"uri": self._contact, "To": self._to, "CSeq": f"{self._cseq} {method}"}
        self._line.send(self._line.request(method, **mine | headers))

    def acknowledge(self, **headers: str) -> None:
        """The answer to our last INVITE."""
        self.send("ACK", CSeq=f"{self._cseq} ACK", **headers)

    def ask(self, method: str, **headers: str) -> str:
        """... and the first line of its final answer."""
        self.send(method, **headers)
        while answer := self._line.whole_answer(ANSWER_S):
            if f"CSeq: {self._cseq} {method}" in answer and not answer.startswith("SIP/2.0 1"):
                return answer.split("\r\n")[0]
        return ""

    def speak(
        self,
        payload: bytes,
        number: int,
        kind: int = 0,
        stamp: int | None = None,
        mark: int = 0,
        source: bytes = b"raw1",
    ) -> None:
        """One RTP packet (RFC 3550, 5.1); 8 kHz, 20 ms for each number unless ``stamp`` says otherwise."""
        time = 160 * number if stamp is None else stamp
        head = bytes([0x80, mark << 7 | kind]) + (number & 0xFFFF).to_bytes(2, "big")
        self.sound.sendto(head + (time & 0xFFFFFFFF).to_bytes(4, "big") + source + payload, self.there)


@contextmanager
def raw_call(
    line: RawLine, offer: str = OFFER, types: str = "0", again: str = "", **headers: str
) -> Iterator[RawCall]:
    """Call with ``offer``, be answered, and hang up at the end; ``headers`` of the INVITE.

    ``again``: anything, and the INVITE is sent three times.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sound:
        sound.bind((line.address, 0))
        body = offer.format(address=line.address, port=sound.getsockname()[1], types=types)
        token = uuid.uuid4().hex
        invited = {"From": f"<sip:raw@{line.address}>;tag={token}", "Call_ID": token}
        request = line.request("INVITE", **invited, Content_Type="application/sdp", body=body, **headers)
        for _ in range(3 if again else 1):
            line.send(request)
        told: list[str] = []
        while not (answer := line.whole_answer(ANSWER_S)).startswith("SIP/2.0 200"):
            told.append(answer.split("\r\n")[0])
            assert not re.match("SIP/2.0 [3-6]", answer), f"refused: {told}"
            assert told.count("") < 4, f"not answered: {told}"
            if not answer:
                line.send(request)  # it may have been lost (RFC 3261, 17.1.1.2)
        call = RawCall(line, sound, invited, answer)
        call.acknowledge()
        try:
            yield call
        finally:
            call.send("BYE")


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    assert found, f"no {pattern} in {text}"
    return found[1]
