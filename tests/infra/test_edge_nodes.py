"""Several nodes behind the edge: who gets a call when one is gone, says 503, or is to get no more."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.infra.phones import LONG_S, Phone, phones
from tests.infra.running_edge import NODE, TRUNK, Edge, Line, running_edge
from tests.ports import free_port

pytestmark = pytest.mark.e2e


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Phone, Phone]]:
    """Two nodes that answer whoever calls them."""
    first, second = (
        Phone(tmp_path / name, NODE, "bot", hz, params=";answermode=auto") for name, hz in _TONES
    )
    with phones(first, second):
        yield first, second


_TONES = (("first", 880), ("second", 1040))
DEAD = {"NODE_TIMEOUT_MS": "1000"}  # what is asked of a node that is dead is not waited for long
SILENT = 60  # seconds between two OPTIONS: what a call finds out, it finds out by itself


@contextmanager
def refusing_node(folder: Path, status: str) -> Iterator[int]:
    """A node (sipp) that answers OPTIONS with 200 and every INVITE with ``status``. Its port."""
    scenario = folder / "refuse.xml"
    scenario.write_text(_REFUSE.replace("STATUS", status))
    port = free_port()
    log = (folder / "sipp.log").open("wb")
    process = subprocess.Popen(
        ["sipp", "-sf", str(scenario), "-i", NODE, "-p", str(port), "-nostdin"], stdout=log, stderr=log
    )
    try:
        yield port
    finally:
        process.kill()
        process.wait()
        log.close()


def _outcomes(edge: Edge, caller: Phone, calls: int) -> list[str]:
    """What became of so many calls, each hung up again."""
    found = []
    for _ in range(calls):
        before = len(caller.events)
        found.append(caller.dial(edge.uri()))
        if found[-1] == "established":
            caller.hang_up()
            caller.await_event("CALL_CLOSED", before)
    return found


def _answered(node: Phone, expected: int) -> bool:
    """Whether it has answered so many calls, when it has told of them, and no more."""

    def told() -> int:
        return sum(event.get("type") == "CALL_ESTABLISHED" for event in node.events)

    deadline = time.monotonic() + LONG_S
    while told() < expected and time.monotonic() < deadline:
        node.listen(0.2)
    node.listen(0.1)
    return told() == expected


def _hears(edge: Edge, caller: Phone, hz: int) -> bool:
    """Whether a call reaches the node with this tone. On a busy machine half a second of it takes longer."""
    for seconds in (1.5, 4.0, 8.0):
        before = len(caller.events)
        assert caller.dial(edge.uri()) == "established"
        caller.listen_for(seconds)
        caller.hang_up()
        caller.await_event("CALL_CLOSED", before)
        if heard := caller.heard_hz():
            return heard == [hz]
    return False


@pytest.mark.parametrize("how", ["killed", pytest.param("hangs", marks=pytest.mark.slow)])
def test_when_a_node_dies_the_next_one_gets_its_calls(
    tmp_path: Path, pair: tuple[Phone, Phone], how: str
) -> None:
    first, second = pair
    both, caller = [first.sip, second.sip], Phone(tmp_path / "caller", TRUNK, "carrier", 440)
    with phones(caller):
        with running_edge(tmp_path, both, 0, PROBE_S=str(SILENT), **DEAD) as edge:
            if how == "killed":
                first.kill()
            else:
                first.pause(True)
            assert _outcomes(edge, caller, 4) == ["established"] * 4
            edge.await_log(f"node failed: node={NODE}:{first.sip} status=408")
            assert _answered(second, 4)
        (tmp_path / "again").mkdir()
        with running_edge(tmp_path / "again", both, 0, **DEAD) as edge:
            edge.await_node(first.sip, "I")
            failed = edge.log().count("node failed")
            assert _outcomes(edge, caller, 2) == ["established"] * 2
            assert edge.log().count("node failed") == failed  # it is not even tried any more


@pytest.mark.slow
def test_who_is_back_gets_calls_again(tmp_path: Path, pair: tuple[Phone, Phone]) -> None:
    first, second = pair
    with running_edge(tmp_path, [first.sip, second.sip], 0, **DEAD) as edge:
        second.kill()
        first.kill()
        edge.await_node(second.sip, "I")
        edge.await_node(first.sip, "I")
        with Line(edge, TRUNK) as trunk:
            assert trunk.ask("OPTIONS") == "SIP/2.0 503 No Parley Answers"
        assert edge.command("status").returncode == 1
        first.start()
        second.start()
        edge.await_node(first.sip, "A")
        edge.await_node(second.sip, "A")
        caller = Phone(tmp_path / "caller", TRUNK, "carrier", 440)
        with phones(caller):
            assert _outcomes(edge, caller, 4) == ["established"] * 4
            assert _answered(first, 2)
            assert _answered(second, 2)


@pytest.mark.parametrize("says", ["503 Full", "486 Busy Here"])
def test_when_a_node_is_full_the_next_one_gets_the_call(
    tmp_path: Path, pair: tuple[Phone, Phone], says: str
) -> None:
    well = pair[0]
    with (
        refusing_node(tmp_path, says) as full,
        running_edge(tmp_path, [full, well.sip], PROBE_S=str(SILENT)) as edge,
    ):
        caller = Phone(tmp_path / "caller", TRUNK, "carrier", 440)
        with phones(caller):
            assert _outcomes(edge, caller, 3) == ["established"] * 3
            edge.await_log(f"status={says[:3]}")
            assert _hears(edge, caller, well.tone_hz)


def test_what_a_node_decides_the_caller_hears(tmp_path: Path) -> None:
    """603 and the like are an answer: no other node is asked."""
    with (
        refusing_node(tmp_path, "603 Decline") as busy,
        running_edge(tmp_path, [busy]) as edge,
        Line(edge, TRUNK) as trunk,
    ):
        assert trunk.ask("INVITE") == "SIP/2.0 603 Decline"
        assert "node failed" not in edge.log()


def test_when_all_nodes_are_full_the_trunk_is_told_when_to_try_again(tmp_path: Path) -> None:
    with (
        refusing_node(tmp_path, "486 Busy Here") as full,
        running_edge(tmp_path, [full]) as edge,
        Line(edge, TRUNK) as trunk,
    ):
        trunk.send(trunk.request("INVITE"))
        answer = trunk.whole_answer()
        assert answer.startswith("SIP/2.0 503 All Lines Are Busy")
        assert "Retry-After: 10" in answer


def test_with_no_node_left_the_trunk_is_told_to_go_elsewhere(tmp_path: Path) -> None:
    with running_edge(tmp_path, [free_port()], 0, **DEAD) as edge, Line(edge, TRUNK) as trunk:
        trunk.send(trunk.request("INVITE"))
        answer = trunk.whole_answer()
        assert answer.startswith("SIP/2.0 503 No Parley Answers")
        assert "Retry-After: 10" in answer


def test_a_node_that_is_drained_keeps_its_calls_and_gets_no_more(
    tmp_path: Path, pair: tuple[Phone, Phone]
) -> None:
    first, second = pair
    with running_edge(tmp_path, [first.sip, second.sip]) as edge:
        here, there = (
            Phone(tmp_path / name, TRUNK, name, hz) for name, hz in (("here", 440), ("there", 480))
        )
        with phones(here, there):
            edge.command("drain", f"{NODE}:{second.sip}")
            assert here.dial(edge.uri()) == "established"
            assert edge.command("resume", f"{NODE}:{second.sip}").returncode == 0
            assert edge.command("drain", f"{NODE}:{first.sip}").returncode == 0
            assert f"node {edge.settings.nodes[0].uri}: drained" in edge.command("status").stdout
            assert _outcomes(edge, there, 3) == ["established"] * 3
            assert _answered(first, 1)
            assert _answered(second, 3)
            time.sleep(2.5)  # two rounds of OPTIONS: they do not bring it back
            assert _outcomes(edge, there, 2) == ["established"] * 2
            assert _answered(first, 1)
            assert _answered(second, 5)
            before = len(first.events)
            here.hang_up()  # the call that it has ends as ever
            first.await_event("CALL_CLOSED", before)


@pytest.mark.parametrize("victim", ["rtpengine", "kamailio"])
def test_when_one_daemon_dies_the_other_ends_and_so_does_the_edge(tmp_path: Path, victim: str) -> None:
    with running_edge(tmp_path, [free_port()], ends_with=1) as edge:
        children = _children(edge.process.pid)
        os.kill(children[victim], signal.SIGKILL)
        assert edge.process.wait(10) == 1
        edge.await_log(f"{victim} ended (signal SIGKILL)")
        assert not any(_runs(pid) for pid in children.values())


def _children(parent: int) -> dict[str, int]:
    """Its daemons' process ids."""
    found = {}
    for line in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        found[Path(f"/proc/{line}/comm").read_text().strip()] = int(line)
    return found


def _runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


_REFUSE = """<?xml version="1.0"?>
<scenario name="refuse">
  <recv request="OPTIONS" optional="true" next="options"/>
  <recv request="INVITE"/>
  <send retrans="500"><![CDATA[
    SIP/2.0 STATUS
    [last_Via:]
    [last_From:]
    [last_To:];tag=[pid]SIPp[call_number]
    [last_Call-ID:]
    [last_CSeq:]
    Content-Length: 0

  ]]></send>
  <recv request="ACK" next="end"/>
  <label id="options"/>
  <send><![CDATA[
    SIP/2.0 200 OK
    [last_Via:]
    [last_From:]
    [last_To:];tag=[pid]SIPp[call_number]
    [last_Call-ID:]
    [last_CSeq:]
    Content-Length: 0

  ]]></send>
  <label id="end"/>
</scenario>
"""
