"""Where the phone can be reached: every socket of its worker, as the kernel has it."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.e2e.sockets import sockets
from tests.e2e.test_phone_leg import own_phone

pytestmark = pytest.mark.e2e

HERE = "0100007F"  # 127.0.0.1, as proc(5) writes it
LISTENS = "0A"  # TCP_LISTEN


@pytest.mark.parametrize("transports", ["udp", "tcp", "udp,tcp"])
async def test_it_listens_by_the_transports_named_and_by_nothing_else(transports: str) -> None:
    async with own_phone(transports=transports) as phone:
        assert phone.pid is not None
        assert phone.listening is not None
        port = phone.listening.port
        tcp = [(host, at) for host, at, state in sockets(phone.pid, "tcp") if state == LISTENS]
        assert tcp == [(HERE, port)] * ("tcp" in transports)
        udp = Counter((host, at) for host, at, _ in sockets(phone.pid, "udp"))
        assert udp[HERE, port] == ("udp" in transports)
        del udp[HERE, port]
        # And one by which the stack asks the nameserver.
        assert sum(udp.values()) == 1
        assert not [row for row in sockets(phone.pid, "tcp6") if row[2] == LISTENS]
