"""Whom the edge refuses: all who are neither a trunk nor know a password, and how often they may try."""

from __future__ import annotations

import hashlib
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.conftest import BAN_S, IDLE_S, extensions
from tests.infra.phones import Phone, phones
from tests.infra.running_edge import PASSWORD, TRUNK, Edge, Line, running_edge
from tests.torture import ANSWER_S

pytestmark = pytest.mark.e2e

SILENCE_S = 0.5  # for which nothing comes where nothing is to come

SDP = "v=0\r\no=- 1 1 IN IP4 127.0.0.9\r\ns=-\r\nc=IN IP4 127.0.0.9\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n"


@pytest.fixture
def trunk(edge: Edge) -> Iterator[Line]:
    with Line(edge, TRUNK) as line:
        yield line


_strangers = iter(range(10, 250))


@pytest.fixture
def stranger(edge: Edge) -> Iterator[Line]:
    """An address that the edge has never seen."""
    with Line(edge, f"127.0.0.{next(_strangers)}") as line:
        yield line


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory, node: Phone) -> Iterator[Edge]:
    """An edge for a trunk alone: no extensions, no registration."""
    folder = tmp_path_factory.mktemp("closed")
    limits = {"TRIES": "3", "BAN_S": "600", "CALLS_PER_SECOND": "3", "FLOOD": "20"}
    with running_edge(folder, [node.sip], 0, **limits) as running:
        yield running


def _call(line: Line, **changes: str) -> bytes:
    return line.request("INVITE", body=SDP, Content_Type="application/sdp", **changes)


def _digest(challenge: str, user: str, password: str, method: str, uri: str) -> str:
    """RFC 2617, section 3.2.2, with qop=auth; RFC 8760 if SHA-256 is asked for."""
    sha = "algorithm=SHA-256" in challenge
    asked = dict(re.findall(r'(\w+)="([^"]*)"', challenge))

    def h(text: str) -> str:
        return (hashlib.sha256 if sha else hashlib.md5)(text.encode()).hexdigest()

    first, second = h(f"{user}:{asked['realm']}:{password}"), h(f"{method}:{uri}")
    response = h(f"{first}:{asked['nonce']}:00000001:c:auth:{second}")
    return (
        f'Digest username="{user}", realm="{asked["realm"]}", nonce="{asked["nonce"]}", uri="{uri}", '
        f'response="{response}", algorithm={"SHA-256" if sha else "MD5"}, qop=auth, nc=00000001, cnonce="c"'
    )


def _challenged(line: Line, method: str, user: str, seconds: float = ANSWER_S) -> str:
    line.send(line.request(method, From=f"<sip:{user}@parley>;tag=1", To=f"<sip:{user}@parley>"))
    return line.whole_answer(seconds)


def _register(line: Line, user: str, password: str, seconds: float = ANSWER_S) -> str:
    challenge = _challenged(line, "REGISTER", user, seconds)
    if not challenge:
        return ""
    uri = f"sip:bot@{line.edge.settings.public_address}"
    answer = _digest(challenge, user, password, "REGISTER", uri)
    return line.ask(
        "REGISTER", From=f"<sip:{user}@parley>;tag=1", To=f"<sip:{user}@parley>", Authorization=answer
    )


def test_a_stranger_is_refused_and_at_last_not_even_answered(closed: Edge, node: Phone) -> None:
    with Line(closed, "127.0.0.8") as line:
        for _ in range(3):
            line.send(_call(line))
            assert line.answer() == "SIP/2.0 403 Forbidden"
        for _ in range(2):
            line.send(_call(line))
            assert line.answer(SILENCE_S) == ""
        assert line.address not in node.whole_log()


def test_an_operator_lets_somebody_in_again(closed: Edge) -> None:
    with Line(closed, "127.0.0.7") as line:
        line.send(_call(line, User_Agent="friendly-scanner"))
        closed.await_log("why=scanner source=127.0.0.7")
        assert line.ask("OPTIONS", SILENCE_S) == ""
        done = closed.command("unban", "127.0.0.7")
        assert done.returncode == 0, done.stderr
        assert line.ask("OPTIONS") == "SIP/2.0 403 Forbidden"


@pytest.mark.parametrize("agent", ["friendly-scanner", "SIPVicious", "sipcli/v1.8", "VaxSIPUserAgent/3.1"])
def test_a_scanner_hears_nothing(edge: Edge, stranger: Line, agent: str) -> None:
    assert stranger.ask("OPTIONS", SILENCE_S, User_Agent=agent) == ""
    assert stranger.ask("INVITE", SILENCE_S) == ""
    edge.await_log(f"why=scanner source={stranger.address}")


def test_a_wrong_password_is_refused_and_shut_out_after_so_many_tries(edge: Edge, stranger: Line) -> None:
    answers = [_register(stranger, "alice", f"wrong-{n}") for n in range(4)]
    shut_out = time.monotonic()
    assert answers == ["SIP/2.0 401 Unauthorized"] * 4
    edge.await_log(f"why=tries source={stranger.address}")
    assert _register(stranger, "alice", PASSWORD, SILENCE_S) == ""
    while not (answer := _register(stranger, "alice", PASSWORD, SILENCE_S)):
        assert time.monotonic() < shut_out + BAN_S + ANSWER_S
    assert answer == "SIP/2.0 200 OK"
    assert time.monotonic() > shut_out + BAN_S / 2


def test_a_right_password_wipes_out_the_wrong_ones(stranger: Line) -> None:
    for _ in range(3):
        tries = [_register(stranger, "alice", "wrong") for _ in range(3)]
        assert tries == ["SIP/2.0 401 Unauthorized"] * 3
        assert _register(stranger, "alice", PASSWORD) == "SIP/2.0 200 OK"


def test_what_phones_ask_by_themselves_shuts_nobody_out(stranger: Line) -> None:
    for _ in range(3):
        assert stranger.ask("OPTIONS") == "SIP/2.0 403 Forbidden"
        assert stranger.ask("SUBSCRIBE") == "SIP/2.0 405 Method Not Allowed"
        assert stranger.ask("BYE", To="<sip:x@127.0.0.2>;tag=1") == "SIP/2.0 481 Call Does Not Exist"
    assert _register(stranger, "alice", PASSWORD) == "SIP/2.0 200 OK"


def test_an_extension_that_is_not_there_is_refused_like_a_wrong_password(stranger: Line) -> None:
    assert _register(stranger, "alice", "wrong") == _register(stranger, "nobody", "wrong")
    assert _register(stranger, "nobody", "") == "SIP/2.0 401 Unauthorized"


def test_an_answer_that_was_listened_to_cannot_be_used_again(edge: Edge, stranger: Line) -> None:
    challenge = _challenged(stranger, "REGISTER", "alice")
    answer = _digest(challenge, "alice", PASSWORD, "REGISTER", f"sip:bot@{edge.settings.public_address}")
    headers = {"From": "<sip:alice@parley>;tag=1", "To": "<sip:alice@parley>", "Authorization": answer}
    assert stranger.ask("REGISTER", ANSWER_S, **headers) == "SIP/2.0 200 OK"
    assert stranger.ask("REGISTER", ANSWER_S, **headers) == "SIP/2.0 401 Unauthorized"


def test_one_extension_cannot_call_as_another(edge: Edge, stranger: Line) -> None:
    challenge = _challenged(stranger, "INVITE", "mallory")
    uri = f"sip:bot@{edge.settings.public_address}"
    answer = _digest(challenge, "alice", PASSWORD, "INVITE", uri)
    stranger.send(_call(stranger, From="<sip:mallory@parley>;tag=1", Proxy_Authorization=answer))
    assert stranger.answer() == "SIP/2.0 403 Not Your Extension"


def test_nobody_registers_where_that_is_off(closed: Edge) -> None:
    with Line(closed, TRUNK) as trunk:
        assert trunk.ask("REGISTER") == "SIP/2.0 403 Registration Is Off"


def test_a_flood_is_shut_out(closed: Edge) -> None:
    with Line(closed, "127.0.0.6") as line:
        for _ in range(200):
            line.send(line.request("ACK"))  # nothing else is counted of these
        closed.await_log("why=flood source=127.0.0.6")
        line.socket.close()


def test_a_stranger_s_silent_connection_is_closed_and_a_trunk_s_is_kept(edge: Edge, trunk: Line) -> None:
    with (
        socket.create_connection(edge.udp, ANSWER_S, source_address=("127.0.0.11", 0)) as silent,
        socket.create_connection(edge.udp, ANSWER_S, source_address=(TRUNK, 0)) as known,
    ):
        asked = trunk.request("OPTIONS").replace(b"SIP/2.0/UDP", b"SIP/2.0/TCP")
        known.sendall(asked)
        assert known.recv(4096).startswith(b"SIP/2.0 200")
        silent.settimeout(IDLE_S + 3 * ANSWER_S)
        assert silent.recv(1) == b""
        known.sendall(asked.replace(b"Call-ID: ", b"Call-ID: again-"))
        assert known.recv(4096).startswith(b"SIP/2.0 200")


def test_a_body_that_is_no_sdp_is_refused_once_and_by_no_node(edge: Edge, trunk: Line, node: Phone) -> None:
    trunk.send(trunk.request("INVITE", Call_ID="a-letter", body="Hello", Content_Type="text/plain"))
    answer = trunk.whole_answer()
    assert answer.startswith("SIP/2.0 415 Unsupported Media Type")
    assert "Accept: application/sdp" in answer
    assert "a-letter" not in node.whole_log()


def test_of_a_body_of_several_parts_the_node_gets_the_sdp(edge: Edge, trunk: Line, node: Phone) -> None:
    parts = "--cut\r\nContent-Type: application/pidf+xml\r\n\r\n<presence/>\r\n"
    parts += f"--cut\r\nContent-Type: application/sdp\r\n\r\n{SDP}\r\n--cut--\r\n"
    trunk.send(
        trunk.request(
            "INVITE", Call_ID="two-parts", body=parts, Content_Type="multipart/mixed;boundary=cut",
            uri="sip:nobody@127.0.0.2",
        )
    )  # fmt: skip
    assert trunk.answer() == "SIP/2.0 404 Not Found"
    sent = node.whole_log().split("INVITE sip:nobody@")
    got = next(one for one in sent if "Call-ID: two-parts" in one)
    assert "Content-Type: application/sdp" in got
    assert f"c=IN IP4 {edge.settings.inside_address}" in got  # by the edge's rtpengine
    assert "presence" not in got


def test_a_trunk_that_calls_too_fast_is_told_to_wait(closed: Edge) -> None:
    with Line(closed, TRUNK) as trunk:
        for _ in range(12):
            trunk.send(_call(trunk, uri="sip:nobody@127.0.0.2"))
        answers = [trunk.answer() for _ in range(12)]
        assert "SIP/2.0 503 Too Many Calls a Second" in answers
        assert "SIP/2.0 404 Not Found" in answers, answers
        time.sleep(1.5)
        trunk.send(_call(trunk, uri="sip:nobody@127.0.0.2"))
        assert trunk.answer() == "SIP/2.0 404 Not Found"


def test_a_to_tag_alone_opens_nothing(edge: Edge, trunk: Line, node: Phone) -> None:
    """Not even a trunk has us send something into a call that is not there, or to a third party."""
    for route in ("", f"<sip:127.0.0.5:{node.sip};lr>", f"<sip:{edge.udp[0]}:{edge.udp[1]};lr>"):
        for method in ("BYE", "INVITE", "REFER"):
            changes = {"To": "<sip:bot@127.0.0.2>;tag=guess", "Route": route}
            assert trunk.ask(method, ANSWER_S, **changes) == "SIP/2.0 481 Call Does Not Exist", (
                route,
                method,
            )


def test_nobody_is_relayed_to_a_third_party(edge: Edge, trunk: Line) -> None:
    """An INVITE names somebody else's host, or a route there: it goes to a node or nowhere."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as third:
        third.bind(("127.0.0.5", 0))
        third.settimeout(1.0)
        where = f"127.0.0.5:{third.getsockname()[1]}"
        trunk.send(_call(trunk, uri=f"sip:x@{where}"))
        assert trunk.answer() == "SIP/2.0 404 Not Found"  # of the node: it knows no x
        trunk.send(_call(trunk, uri="sip:x@127.0.0.2", Route=f"<sip:{where};lr>"))
        assert trunk.answer() == "SIP/2.0 404 Not Found"
        with pytest.raises(TimeoutError):
            third.recv(100)


def test_the_inside_is_for_nodes(edge: Edge) -> None:
    """A host of the inside network that is no node gets nothing, however it is reached."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line, Line(edge, "127.0.0.4") as text:
        line.bind(("127.0.0.4", 0))
        line.settimeout(1.0)
        line.sendto(text.request("OPTIONS"), (edge.settings.inside_address, edge.settings.inside_port))
        with pytest.raises(TimeoutError):
            line.recv(100)
        edge.await_log("why=not-a-node source=127.0.0.4")


def test_what_only_the_edge_may_say_is_not_taken_from_outside(edge: Edge, trunk: Line, node: Phone) -> None:
    said = {"X_Parley_Extension": "alice", "X_Parley_Source": "10.0.0.1", "X_Parley_Called": "10.0.0.1"}
    trunk.send(_call(trunk, uri="sip:x@127.0.0.2", **said))
    assert trunk.answer() == "SIP/2.0 404 Not Found"
    asked = node.whole_log().rpartition("INVITE sip:x@")[2]
    assert f"X-Parley-Source: {TRUNK}" in asked
    assert "X-Parley-Trunk: carrier" in asked
    assert "X-Parley-Called: x" in asked
    assert "10.0.0.1" not in asked
    assert "X-Parley-Extension" not in asked


def test_a_digest_by_sha_256(tmp_path: Path, node: Phone) -> None:
    file = str(extensions(tmp_path))
    with (
        running_edge(tmp_path, [node.sip], DIGEST="SHA-256", REGISTER="yes", EXTENSIONS_FILE=file) as edge,
        Line(edge, "127.0.0.4") as line,
    ):
        assert _register(line, "alice", "wrong") == "SIP/2.0 401 Unauthorized"
        assert _register(line, "alice", PASSWORD) == "SIP/2.0 200 OK"


def test_only_srtp_is_taken_where_that_is_asked_for(tmp_path: Path, node: Phone) -> None:
    with running_edge(tmp_path, [node.sip], REQUIRE_SRTP="yes") as edge, Line(edge, TRUNK) as trunk:
        trunk.send(_call(trunk))
        assert trunk.answer() == "SIP/2.0 488 SRTP Required"
        caller = Phone(tmp_path / "phone", TRUNK, "carrier", 440, params=";mediaenc=srtp-mand")
        with phones(caller):
            assert caller.dial(edge.uri()) == "established"


def test_one_call_more_than_it_has_lines_for_is_refused(tmp_path: Path, node: Phone) -> None:
    with running_edge(tmp_path, [node.sip], MAX_CALLS="1") as edge, Line(edge, TRUNK) as trunk:
        caller = Phone(tmp_path / "phone", TRUNK, "carrier", 440)
        with phones(caller):
            assert caller.dial(edge.uri()) == "established"
            trunk.send(_call(trunk))
            assert trunk.answer() == "SIP/2.0 503 All Lines Are Busy"
            assert "calls: 1 ongoing" in edge.command("status").stdout
            caller.hang_up()
            caller.await_event("CALL_CLOSED")
            trunk.send(_call(trunk, uri="sip:nobody@127.0.0.2"))
            assert trunk.answer() == "SIP/2.0 404 Not Found"
