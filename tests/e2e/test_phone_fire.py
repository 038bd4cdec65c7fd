"""Parley's own SIP port under fire, no edge before it: whatever comes, the next caller is answered."""

from __future__ import annotations

import itertools
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e.phone_line import PhoneLine, phone_line, wait_until
from tests.e2e.raw_call import RawCall, raw_call
from tests.e2e.test_phone import worker_of
from tests.torture import CLIENT, HOSTILE, SDPS, SESSION, STREAMS, RawLine, mutated

pytestmark = pytest.mark.e2e

HERE = "127.0.0.1"
SEED = 4475  # RFC 4475 is the book of SIP torture tests
FLAT_KB = 40_000  # the heaps' own unevenness; what leaks makes hundreds of megabytes of 100,000
CODES = {"CSeq of another method": "400", "Require": "420"}  # the others may be dropped
PLACES = 8
SDP = SESSION + "m=audio 4000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhoneLine]:
    settings = {"PARLEY_MAX_CALLS": str(PLACES), "PARLEY_SIP__RTP_TIMEOUT_S": "2"}
    settings["PARLEY_CONNECT_TIMEOUT_S"] = "3"  # whoever sends no ACK
    with phone_line(tmp_path_factory.mktemp("fire"), **settings) as running:
        yield running
        assert running.server.process.poll() is None


@pytest.fixture
def caller(line: PhoneLine) -> Iterator[RawLine]:
    with RawLine((HERE, line.port), CLIENT) as raw:
        yield raw


def asked(line: RawLine, method: str, **changes: str) -> str:
    """The first line of the answer. Bursts may overflow the socket's buffer; who asks again is answered."""
    answers = (line.ask(method, 3.0, **changes) for _ in range(5))
    return next(filter(None, answers), "")


def is_well(line: PhoneLine) -> None:
    with RawLine((HERE, line.port), CLIENT) as other:
        assert asked(other, "OPTIONS") == "SIP/2.0 200 OK", line.log()[-3000:]


def is_answered(line: PhoneLine) -> None:
    """A good call gets a place, is answered and is heard."""
    wait_until(lambda: line.calls_now() < PLACES, "a free place", 60)
    with RawLine((HERE, line.port), CLIENT) as raw, raw_call(raw) as call:
        call.sound.settimeout(10)
        assert len(call.sound.recv(2000)) > 12
        assert call.ask("OPTIONS").startswith("SIP/2.0 200")


def kilobytes(process: int) -> int:
    """Resident memory (proc(5))."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


@pytest.mark.parametrize("method", ["OPTIONS", "INVITE"])
def test_broken_requests_break_nothing(line: PhoneLine, caller: RawLine, method: str) -> None:
    worker = worker_of(line)
    for changes in HOSTILE.values():
        changes = {"uri": f"sip:nobody@{HERE}"} | changes
        if "CSeq" in changes:
            changes["CSeq"] = changes["CSeq"].replace("OPTIONS", method)
        caller.ask(method, 0.05, **changes)
        is_well(line)
    assert worker_of(line) == worker
    is_answered(line)


@pytest.mark.parametrize("name", CODES)
def test_what_is_worth_an_answer_is_given_its_code(line: PhoneLine, caller: RawLine, name: str) -> None:
    wait_until(lambda: line.calls_now() < PLACES, "a free place", 60)  # else it is busy, whatever it is asked
    changes = HOSTILE[name] if name != "CSeq of another method" else {"CSeq": "1 BYE"}
    assert caller.ask("INVITE", 5.0, **changes).startswith(f"SIP/2.0 {CODES[name]}")


def test_broken_descriptions_break_nothing(line: PhoneLine, caller: RawLine) -> None:
    worker = worker_of(line)
    for body in SDPS.values():
        caller.ask("INVITE", 0.3, uri=f"sip:nobody@{HERE}", Content_Type="application/sdp", body=body)
        is_well(line)
    wait_until(lambda: line.calls_now() < PLACES, "a free place", 60)
    with RawLine((HERE, line.port), CLIENT) as other:  # which hears no late answer to one of those
        answer = other.ask("INVITE", 5.0, Content_Type="text/plain", body="hello")
    assert answer.startswith("SIP/2.0 5"), answer  # 415 were right
    assert worker_of(line) == worker
    is_answered(line)


def test_what_belongs_to_no_call_is_told_so(caller: RawLine) -> None:
    assert asked(caller, "CANCEL").startswith("SIP/2.0 481")
    assert asked(caller, "BYE", To=f"<sip:x@{HERE}>;tag=1").startswith("SIP/2.0 481")
    assert asked(caller, "NEWMETHOD").split()[1] in ("405", "501")


def test_broken_and_slow_streams_break_nothing(line: PhoneLine) -> None:
    worker = worker_of(line)
    with ExitStack() as slow:
        for _ in range(100):
            stream = slow.enter_context(socket.create_connection((HERE, line.port), 5.0))
            stream.sendall(b"OPTIONS sip:bot@127.0.0.1 SIP/2.0\r\nVia: ")
        for sent in STREAMS.values():
            with socket.create_connection((HERE, line.port), 5.0) as stream:
                with suppress(OSError):  # it may be closed on us, and that is right
                    stream.sendall(sent)
                is_well(line)
        assert worker_of(line) == worker
    is_answered(line)


@pytest.mark.parametrize("datagrams", [2000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_mutated_requests_break_nothing(line: PhoneLine, caller: RawLine, datagrams: int) -> None:
    dice = random.Random(SEED)
    good = [caller.request(method) for method in ("OPTIONS", "BYE", "ACK", "CANCEL", "REFER", "INFO")]
    good.append(caller.request("SIP/2.0", uri="200", version="OK", CSeq="1 INVITE"))
    good += 2 * [_invite(caller, SDP)]
    under_fire(line, datagrams, lambda: caller.send(mutated(dice.choice(good), dice)))


@pytest.mark.parametrize("datagrams", [500, pytest.param(20_000, marks=pytest.mark.slow)])
def test_mutated_descriptions_break_nothing(line: PhoneLine, caller: RawLine, datagrams: int) -> None:
    """In requests that are good: each is a call of its own, most of them refused as one too many."""
    dice = random.Random(SEED)

    def send() -> None:
        caller.send(_invite(caller, mutated(SDP.encode(), dice).decode("latin-1")))

    under_fire(line, datagrams, send)


@pytest.mark.parametrize("datagrams", [2000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_mutated_sound_breaks_no_call(line: PhoneLine, caller: RawLine, datagrams: int) -> None:
    """RTP of every kind of wrong at the port of a call that goes on: from its own source and from another."""
    dice = random.Random(SEED)
    wait_until(lambda: line.calls_now() < PLACES, "a free place", 60)
    with (
        raw_call(caller) as call,
        speaking(call),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger,
    ):
        numbers = itertools.count()

        def send() -> None:
            number = next(numbers)
            good = bytes([0x80, 0]) + (number & 0xFFFF).to_bytes(2, "big") + bytes(8) + b"\xff" * 160
            kinds = (mutated(good, dice), b"", bytes(11), b"\x8f" * 14, b"\xb0" * 13, dice.randbytes(1500))
            (call.sound, stranger)[number % 2].sendto(dice.choice(kinds), call.there)

        under_fire(line, datagrams, send)
        assert call.ask("OPTIONS").startswith("SIP/2.0 200")
        call.sound.setblocking(False)
        with suppress(BlockingIOError):
            while call.sound.recv(2000):
                pass
        call.sound.settimeout(10)
        assert len(call.sound.recv(2000)) > 12  # it is still spoken to


@contextmanager
def speaking(call: RawCall) -> Iterator[None]:
    """Good RTP now and then, whatever else is done: without any for 2 s the caller is taken for gone."""
    over = threading.Event()

    def speak() -> None:
        number = 0
        while not over.wait(0.2):
            call.speak(b"\xff" * 160, number)
            number += 10

    talking = threading.Thread(target=speak)
    talking.start()
    try:
        yield
    finally:
        over.set()
        talking.join()


def under_fire(line: PhoneLine, datagrams: int, send: Callable[[], None]) -> None:
    """Send so many, see that all is well meanwhile, and that nothing is kept of them."""
    worker = worker_of(line)
    processes = (worker, line.server.process.pid)
    before = (0, 0)
    for number in range(1, datagrams + 1):
        send()
        if number % 100 == 0:
            is_well(line)
        if number == datagrams // 4:  # by then every cache and pool has been filled
            before = (kilobytes(processes[0]), kilobytes(processes[1]))
    wait_until(lambda: line.calls_now() <= 1, "the end of the calls that fire had begun", 120)
    grown = [kilobytes(process) - had for process, had in zip(processes, before, strict=True)]
    print(f"{datagrams} datagrams: the worker has grown by {grown[0]} kB, the media process by {grown[1]} kB")
    assert worker_of(line) == worker
    assert max(grown) < FLAT_KB, grown
    is_answered(line)


def _invite(caller: RawLine, body: str) -> bytes:
    return caller.request("INVITE", uri=f"sip:nobody@{HERE}", Content_Type="application/sdp", body=body)
