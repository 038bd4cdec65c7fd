"""What a Cluster says of its slots, and a client that follows one of them."""

from __future__ import annotations

import pytest
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from pipeline.memory import Memory, MemoryUnavailable
from pipeline.memory.masters import SlotFinder, read_slots
from tests.pipeline.memory.redis_server import RedisServer, drop
from tests.ports import free_port

TOLD = [
    [0, 99, [b"a", 1, b"id", []], [b"b", 2, b"id", []]],
    [100, 16383, [b"", 3, b"id", []], [b"a", 1, b"id", []]],
    [200, 300, [None, 4]],
]


@pytest.mark.parametrize(
    ("slot", "master"), [(0, ("a", 1)), (99, ("a", 1)), (100, ("asked", 3)), (250, ("asked", 4))]
)
def test_the_master_of_a_slot_and_all_nodes(slot: int, master: tuple[str, int]) -> None:
    assert read_slots(TOLD, slot, "asked") == (master, [("a", 1), ("b", 2), ("asked", 3), ("asked", 4)])


def test_a_slot_that_nobody_has() -> None:
    assert read_slots(TOLD[:1], 100, "asked") == (None, [("a", 1), ("b", 2)])
    assert read_slots([], 100, "asked") == (None, [])


async def test_nobody_to_ask_is_said_with_all_their_names() -> None:
    ports = [free_port(), free_port()]
    at_once = {"retry": Retry(NoBackoff(), 0)}
    finder = SlotFinder([("127.0.0.1", port) for port in ports], 1, at_once)
    with pytest.raises(RedisConnectionError) as refused:
        await finder.discover_master("")
    assert all(str(port) in str(refused.value) for port in ports)


async def test_a_redis_that_is_no_cluster_and_no_sentinel_is_said_to_be_none(server: RedisServer) -> None:
    port = free_port()
    await server.do("CONFIG", "SET", "port", port)
    hosts = f":secret@127.0.0.1:{port}"
    for url in (f"redis+cluster://{hosts}", f"redis+sentinel://{hosts}/mine?sentinel_password=secret"):
        memory = Memory(url)
        with pytest.raises(MemoryUnavailable, match=r"^MasterNotFoundError: no \w+ .*$") as refused:
            await memory.recall("a")
        assert "secret" not in str(refused.value)
        assert "<redis" not in str(refused.value)
        assert await memory.own("a")  # no call is turned away for that
        await drop(memory)
