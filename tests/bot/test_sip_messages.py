"""The frames between media process and phone worker survive any cutting, and nonsense is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.ingress.sip import messages as m

TALK: list[m.ToWorker] = [
    m.Configure("127.0.0.1", 5060, ["udp"], ["127.0.0.0/8"], ["opus"], (10_000, 10_999), (20, 60), 20),
    m.Dial("a", "sip:b@c"),
    m.Answer("a"),
    m.Reject("a"),
    m.HangUp("a"),
    m.Hold("a", 1, True),
    m.SendDigits("a", 2, "12#"),
    m.Transfer("a", 3, "sip:b@c"),
    m.Speak("a", bytes(m.SPOKEN_BYTES)),
]
NEWS: list[m.FromWorker] = [
    m.Listening("127.0.0.1", 5060),
    m.Failed("because"),
    m.Incoming("a", "sip:b@c", "sip:d@e", "id"),
    m.Ringing("a"),
    m.Established("a"),
    m.Heard("a", bytes(m.HEARD_BYTES), 7),
    m.Digit("a", "#"),
    m.Held("a", True),
    m.Outcome("a", 1, "no"),
    m.Closed("a", "486 Busy Here", m.Quality(lost_packets=3)),
]


@given(st.lists(st.integers(1, 400), max_size=40))
def test_messages_arrive_whole_however_the_stream_is_cut(cuts: list[int]) -> None:
    stream = b"".join(m.encode(message) for message in [*TALK, *NEWS])
    deframer, bodies, at = m.Deframer(), list[bytes](), 0
    for cut in [*cuts, len(stream)]:
        bodies += deframer.feed(stream[at : at + cut])
        at += cut
    assert [m.to_worker.decode(body) for body in bodies[: len(TALK)]] == TALK
    assert [m.from_worker.decode(body) for body in bodies[len(TALK) :]] == NEWS


def test_a_length_that_no_frame_has_is_refused() -> None:
    with pytest.raises(m.BadFrame):
        list(m.Deframer().feed(b"HTTP/1.1 200 OK"))
