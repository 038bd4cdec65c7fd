"""A cold transfer over real SIP and RTP: who is sent on (REFER), and is back with the bot if that fails."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bot.ingress.sip.phone import WorkerLeg
from bot.waveform import Pcm
from tests.e2e.phone_line import GREETING_S, PhoneLine, line_of, tone_engine, voice, wait_for_log, wait_until
from tests.e2e.raw_call import raw_call
from tests.e2e.sipp import mu_law
from tests.e2e.softphone import softphone
from tests.e2e.test_phone import heard
from tests.e2e.test_phone_leg import own_phone
from tests.ports import free_port
from tests.torture import CLIENT, RawLine

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SALES = free_port()
AGENT = """\
name: Receptionist
greeting: Hello.
tools:
  - name: transfer
    policy: allow
    options: {targets: {sales: "sip:alice@127.0.0.1:%d"}}
"""


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhoneLine]:
    """A Parley whose agent puts everybody through to sales who says anything."""
    folder = tmp_path_factory.mktemp("cold")
    (folder / "receptionist.yaml").write_text(AGENT % SALES)
    settings = {"PARLEY_AGENTS_DIR": str(folder), "PARLEY_AGENT": "receptionist"}
    with (
        tone_engine("--calls", "transfer", json.dumps({"to": "sales"})) as url,
        line_of(folder, **{"PARLEY_ENGINE__URL": url} | settings) as running,
    ):
        yield running
        wait_until(lambda: running.calls_now() == 0, "the end of all calls")


def wants_sales() -> Pcm:
    """Somebody who hears the greeting out, and then says what they want."""
    return np.concatenate([np.zeros(round(2.5 * 48_000), np.float32), voice(1.2)])


async def test_the_callers_phone_calls_whom_it_is_sent_to_and_the_bot_is_out_of_it(
    line: PhoneLine, tmp_path: Path
) -> None:
    calls: list[str] = []

    def sales(leg: WorkerLeg) -> None:
        calls.append(leg.peer)
        leg.answer()

    async with own_phone(sales, SALES):
        with softphone(tmp_path / "caller", wants_sales()) as caller:
            caller.dial(line.uri)
            await asyncio.to_thread(wait_for_log, line, "call ended: transferred")
            assert line.calls_now() == 0
            assert calls == [f"sip:alice@127.0.0.1:{caller.port}"]
            assert caller.seen("CALL_CLOSED")  # with the bot; the other call goes on
            assert len(caller.seen("CALL_ESTABLISHED")) == 2


async def test_a_caller_whom_nobody_takes_goes_on_with_the_bot(line: PhoneLine, tmp_path: Path) -> None:
    async with own_phone(port=SALES):  # which says 486
        with softphone(tmp_path / "caller", wants_sales()) as caller:
            caller.dial(line.uri)
            await asyncio.to_thread(wait_for_log, line, "the caller could not be put through to")
            before = sum(heard(caller))

            def apologised() -> bool:
                return sum(heard(caller)) > before + GREETING_S / 2

            await asyncio.to_thread(wait_until, apologised, "the bot's apology")
            assert caller.seen("CALL_CLOSED") == ["486 Busy Here"]  # with sales
            assert line.calls_now() == 1
            caller.hang_up()


@pytest.mark.parametrize("goes", [True, False])
def test_a_phone_that_says_nothing_was_transferred_if_it_goes_and_is_with_the_bot_if_not(
    line: PhoneLine, goes: bool
) -> None:
    """202, and never a NOTIFY: BYE at once, or nothing for as long as we wait."""
    before = line.log().count("call ended: transferred")
    with RawLine(("127.0.0.1", line.port), CLIENT) as caller, raw_call(caller) as call:
        time.sleep(2.0)  # the greeting
        pcm = mu_law(voice(1.2, 8000))
        for number in range(len(pcm) // 160):
            call.speak(pcm[160 * number : 160 * number + 160], number)
            time.sleep(0.02)
        while not (asked := caller.whole_answer(20.0)).startswith("REFER"):
            assert asked, "never sent on"
        assert f"Refer-To: sip:alice@127.0.0.1:{SALES}" in asked
        kept = re.findall(r"(?im)^(?:Via|From|To|Call-ID|CSeq):.*\r\n", asked)
        caller.send(f"SIP/2.0 202 Accepted\r\n{''.join(kept)}Content-Length: 0\r\n\r\n".encode())
        for number in range(50 * 40 if not goes else 0):
            call.speak(b"\xff" * 160, 60 + number)  # or they were gone for their silence
            time.sleep(0.02)
            if "no transfer outcome" in line.log():
                break
        assert goes or call.ask("OPTIONS").startswith("SIP/2.0 200")
    if goes:
        wait_for_log(line, "call ended: transferred", times=before + 1)
    else:
        wait_for_log(line, "could not be put through to sip:alice")
        wait_for_log(line, "call ended: hung-up")
