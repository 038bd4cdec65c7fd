"""Which agent answers the phone: real calls, by the number called and by a header of the INVITE."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.phone_line import PhoneLine, phone_line, voice, wait_for_log, wait_until
from tests.e2e.sipp import HERE, sipp, write_speech
from tests.e2e.softphone import softphone
from tests.e2e.speakers import silence
from tests.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

AGENTS = {
    "main": "name: Main\n",
    "sales": "name: Sales\nanswers:\n  numbers: ['100', '2*']\n",
    "carrier": "name: Carrier\nanswers:\n  numbers: ['100']\n  trunks: [carrier]\n",
}


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhoneLine]:
    folder = tmp_path_factory.mktemp("agents")
    for name, text in AGENTS.items():
        (folder / f"{name}.yaml").write_text(text)
    settings = {"PARLEY_AGENTS_DIR": str(folder), "PARLEY_AGENT": "main", "PARLEY_LOG_LEVEL": "INFO"}
    with phone_line(tmp_path_factory.mktemp("line"), **settings) as running:
        yield running


@pytest.mark.parametrize(("number", "agent"), [("100", "sales"), ("299", "sales"), ("7", "main")])
def test_the_number_called_chooses_the_agent(
    line: PhoneLine, tmp_path: Path, number: str, agent: str
) -> None:
    answered = line.log().count(f"{agent} answers")
    with softphone(tmp_path / "phone") as phone:
        phone.dial(f"sip:{number}@127.0.0.1:{line.port}")
        phone.wait("CALL_ESTABLISHED")
        wait_for_log(line, f"{agent} answers", times=answered + 1)
    wait_until(lambda: line.calls_now() == 0, "the end of the call")


def test_a_trunk_that_the_edge_names_chooses_the_agent(line: PhoneLine, tmp_path: Path) -> None:
    scenario = (HERE / "call.xml").read_text()
    assert "Max-Forwards" in scenario
    named = scenario.replace("      Max-Forwards", "      X-Parley-Trunk: carrier\n      Max-Forwards", 1)
    (tmp_path / "trunk.xml").write_text(named)
    write_speech(tmp_path / "speech.ulaw", np.concatenate([silence(1, 8000), voice(1, 8000)]))
    at = f"127.0.0.1:{line.port}"
    done = sipp(
        str(tmp_path / "trunk"), tmp_path, at, "-s", "100", "-p", str(free_port()), "-m", "1", "-d", "1000"
    )
    assert done.returncode == 0, done.stdout[-2000:]
    wait_for_log(line, "carrier answers")
