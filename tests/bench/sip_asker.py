"""A caller for ``tests.bench.sip``: RTP by hand, so that what comes is timed as it comes (RFC 3550)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np

from tests.e2e.phone_line import ANSWER_S, voice
from tests.e2e.raw_call import RawCall, raw_call
from tests.e2e.sipp import mu_law
from tests.torture import CLIENT, RawLine

PACKET_S = 0.02
SAMPLES = 160  # a packet
QUIET = b"\xff" * SAMPLES
GREETED_S = 2.0  # after the call's beginning
PAUSE_S = 1.0  # after an answer, before the next question
PATIENCE_S = 5.0
LOUD = 0.05

_question = mu_law(voice(1.2, 8000))
QUESTION = [_question[at : at + SAMPLES] for at in range(0, len(_question), SAMPLES)]
_codes = ~np.arange(256, dtype=np.uint8) & 0x7F
_LOUD = (256.0 ** (_codes / 128) - 1) / 255 > LOUD  # by G.711 code


class Asker(threading.Thread):
    """Calls, asks again and again for ``seconds``, and hangs up.

    ``delays``: seconds from the last packet of each question to the first loud sample of its answer.
    ``missing``: ms of each answer's tone. ``received``: packets a second of the call.
    """

    def __init__(self, port: int, seconds: float) -> None:
        """For a Parley that listens at ``port`` of the loopback."""
        super().__init__()
        self.delays: list[float] = []
        self.missing: list[float] = []
        self.unanswered = 0
        self.received = 0.0
        self._port = port
        self._seconds = seconds
        self._asked_at = 0.0
        self._loud = 0
        self._quiet_at = 0.0

    def run(self) -> None:
        """The call."""
        with RawLine(("127.0.0.1", self._port), CLIENT) as raw, raw_call(raw) as call:
            began = due = time.monotonic()
            self._quiet_at = began + GREETED_S - PAUSE_S
            number = packets = 0
            question: Iterator[bytes] = iter(())
            while due < began + self._seconds:
                said = next(question, None)
                call.speak(said or QUIET, number)
                now = time.monotonic()
                if said:
                    self._asked_at = now
                elif self._asked_at and now - self._asked_at > PATIENCE_S:
                    self.unanswered += 1
                    self._asked_at, self._quiet_at = 0.0, now
                elif not self._asked_at and now - self._quiet_at > PAUSE_S:
                    self._next_question()
                    question = iter(QUESTION)
                number, due = number + 1, due + PACKET_S
                packets += self._hear(call, due, asking=said is not None)
            self.received = packets / (time.monotonic() - began)

    def _next_question(self) -> None:
        if self.delays and self._loud:
            self.missing.append(max(0.0, ANSWER_S - self._loud * PACKET_S) * 1000)
        self._loud, self._quiet_at = 0, time.monotonic() + PATIENCE_S

    def _hear(self, call: RawCall, until: float, asking: bool) -> int:
        packets = 0
        while (left := until - time.monotonic()) > 0:
            call.sound.settimeout(left)
            try:
                packet = call.sound.recv(2048)
            except TimeoutError:
                break
            at = time.monotonic()
            packets += 1
            loud = np.flatnonzero(_LOUD[np.frombuffer(packet[12:], np.uint8)])
            if len(loud) == 0 or asking:
                continue
            if self._asked_at:
                self.delays.append(at + loud[0] / 8000 - self._asked_at)
                self._asked_at = 0.0
            self._loud += 1
            self._quiet_at = at
        return packets
