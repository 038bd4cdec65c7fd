"""A Parley behind the edge: a trunk's call comes to it, both hear each other, the next is told it is full."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bot.waveform import write_wav
from tests.e2e.phone_line import (
    ANSWER_S,
    GREETING_S,
    PhoneLine,
    phone_line,
    tones,
    voice,
    wait_for_log,
    wait_until,
)
from tests.infra.phones import RATE, Phone, phones
from tests.infra.running_edge import TRUNK, Edge, Line, running_edge

pytestmark = pytest.mark.e2e


class Asking(Phone):
    """Hears the greeting out, and then asks something, over and over."""

    def _configure(self) -> None:
        super()._configure()
        asks = [np.zeros(4 * RATE, np.float32), voice(1.0, RATE), np.zeros(8 * RATE, np.float32)]
        write_wav(self.folder / "tone.wav", [np.concatenate(asks * 3)], RATE)

    def answers(self) -> list[float]:
        """Seconds of each of the bot's tones."""
        self.listen(0.1)
        (recording,) = (self.folder / "rec").glob("*-dec.wav")
        sound, rate = soundfile.read(recording, dtype="float32")
        return tones(sound, rate)


@pytest.fixture
def line(tmp_path: Path) -> Iterator[PhoneLine]:
    (tmp_path / "agent.yaml").write_text(
        "name: Receptionist\nanswers: {trunks: [carrier], numbers: ['100']}\n"
    )
    agents = {"PARLEY_AGENTS_DIR": str(tmp_path), "PARLEY_AGENT": "agent"}
    with phone_line(tmp_path / "line", PARLEY_MAX_CALLS="1", **agents) as running:
        yield running


@pytest.fixture
def edge(tmp_path: Path, line: PhoneLine) -> Iterator[Edge]:
    (tmp_path / "edge").mkdir()
    with running_edge(tmp_path / "edge", [line.port]) as running:
        yield running


def test_a_trunk_s_call_is_answered_by_the_parley_behind_the_edge(
    tmp_path: Path, line: PhoneLine, edge: Edge
) -> None:
    caller = Asking(tmp_path / "caller", TRUNK, "carrier", 440)
    with phones(caller):
        assert caller.dial(edge.uri("100")) == "established", edge.log()[-3000:]
        wait_for_log(line, "agent answers")
        wait_until(lambda: sum(caller.answers()) > GREETING_S + 0.5 * ANSWER_S, "the answer")
        with Line(edge, TRUNK) as trunk:  # one call more than there are lines
            trunk.send(trunk.request("INVITE"))
            assert trunk.answer_of("503").startswith("SIP/2.0 503 All Lines Are Busy")
        before = len(caller.events)
        caller.hang_up()
        caller.await_event("CALL_CLOSED", before)
        wait_until(lambda: line.calls_now() == 0, "the end of the call")
