"""Whoever is on the phone sends the bot to somebody else by REFER: only where the operator says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.ingress.sip.leg import LegError
from tests.e2e.phone_line import GREETING_S, PhoneLine, phone_line, wait_for_log, wait_until
from tests.e2e.softphone import softphone
from tests.e2e.test_phone import heard
from tests.e2e.test_phone_leg import calling, own_phone
from tests.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PhoneLine]:
    with phone_line(
        tmp_path_factory.mktemp("referred"), PARLEY_SIP__REFERRALS="alice@127.0.0.1:*"
    ) as running:
        yield running
        wait_until(lambda: running.calls_now() == 0, "the end of all calls")


async def test_the_bot_goes_on_with_whom_it_is_sent_to(line: PhoneLine, tmp_path: Path) -> None:
    with softphone(tmp_path / "far", answers=True) as far:
        async with own_phone() as phone, calling(phone, line.uri) as caller:
            await caller.until(lambda: sum(caller.tones()) > GREETING_S - 0.1, "the greeting")
            await caller.leg.transfer(f"sip:alice@127.0.0.1:{far.port}")
            assert (await caller.leg.ended()).reason == "transferred"
        wait_for_log(line, "goes on with sip:alice@127.0.0.1")
        assert line.calls_now() == 1  # one call still, for the bot
        for key in "15#":
            far.press(key)
        wait_until(lambda: sum(heard(far)) > 0.5, "an answer to the keys, over there")
        far.hang_up()
        wait_until(lambda: line.calls_now() == 0, "the end of the call")


@pytest.mark.parametrize("to", ["bob@127.0.0.1:{}", "alice@127.0.0.2:{}"])
async def test_elsewhere_it_does_not_go_and_stays_with_the_caller(line: PhoneLine, to: str) -> None:
    async with own_phone() as phone, calling(phone, line.uri) as caller:
        await caller.until(lambda: bool(caller.tones()), "the greeting")
        with pytest.raises(LegError, match="603"):
            await caller.leg.transfer("sip:" + to.format(free_port()))
        await caller.leg.press("5#")
        await caller.until(lambda: sum(caller.tones()) > GREETING_S + 0.3, "an answer to the keys")


async def test_where_nobody_answers_it_stays_with_the_caller(line: PhoneLine) -> None:
    async with own_phone() as phone, calling(phone, line.uri) as caller, own_phone() as busy:
        assert busy.listening is not None
        await caller.until(lambda: bool(caller.tones()), "the greeting")
        with pytest.raises(LegError):
            await caller.leg.transfer(f"sip:alice@127.0.0.1:{busy.listening.port}")
        await caller.leg.press("5#")
        await caller.until(lambda: sum(caller.tones()) > GREETING_S + 0.3, "an answer to the keys")
