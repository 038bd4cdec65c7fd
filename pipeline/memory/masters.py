"""Following a Redis that moves: to the master that Sentinels name, or to the one that has our slot.

All keys of a tenant are in one slot (``pipeline.memory.keys``), so of a Cluster one master is all that is
needed, and a client of one server does, transactions and scripts included. It asks for the master whenever it
connects; a server that is not the master (any more) is disconnected from, which is all that a caller sees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from redis import RedisError
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, TryAgainError
from redis.exceptions import ConnectionError as RedisConnectionError

from pipeline.memory.address import Address, Node

ASK_S = 0.5  # for one node to say who is the master; the next is asked then
MOST_NODES = 20  # addresses of a Cluster's nodes that are remembered


class _Moves:
    """A connection to a Cluster's node that gives up when the slot is another node's."""

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        """``Connection.read_response``; raises ``ConnectionError`` if the slot is elsewhere, or nowhere."""
        try:
            return await super().read_response(*arguments, **options)  # type: ignore[misc] # a mixin
        except (AskError, ClusterDownError, TryAgainError) as error:  # MOVED is a kind of ASK to redis-py
            await self.disconnect()  # type: ignore[attr-defined] # likewise
            raise RedisConnectionError(f"the slot is not served there now: {type(error).__name__}") from None


class _SlotConnection(_Moves, SentinelManagedConnection):
    pass


class _SlotSSLConnection(_Moves, SentinelManagedSSLConnection):
    pass


class _Sentinels(Sentinel):
    async def discover_master(self, service_name: str) -> Node:
        """As redis-py does; its own words for a failure hold all that its clients were made of."""
        try:
            host, port = await super().discover_master(service_name)
        except MasterNotFoundError:
            raise MasterNotFoundError(f"no Sentinel that answers names a master {service_name!r}") from None
        return str(host), int(port)


class SlotFinder:
    """Knows the master of one slot, in the manner of ``Sentinel``: asks any node of the Cluster."""

    def __init__(self, nodes: Sequence[Node], slot: int, options: Mapping[str, Any]) -> None:
        """``nodes`` to begin with; others are learnt. ``options`` of a client of one node."""
        self._nodes = list(nodes)
        self._slot = slot
        self._options = options

    async def discover_master(self, _service: str) -> Node:
        """Host and port of the slot's master. Raises ``ConnectionError`` if nobody says."""
        faults = []
        for host, port in list(self._nodes):
            try:
                async with Redis(host=host, port=port, **self._options) as node:
                    told = await node.execute_command("CLUSTER", "SLOTS")  # type: ignore[no-untyped-call]  # redis-py's own gap
            except (RedisError, OSError) as error:
                faults.append(f"{host}:{port}: {error}")
                continue
            master, nodes = read_slots(told, self._slot, host)
            self._nodes = list(dict.fromkeys([*nodes, *self._nodes]))[:MOST_NODES]
            if master is not None:
                return master
            faults.append(f"{host}:{port} knows of no master of slot {self._slot}")
        raise MasterNotFoundError(f"no node of the Cluster says where to write: {'; '.join(faults)}")


def read_slots(told: Any, slot: int, asked: str) -> tuple[Node | None, list[Node]]:
    """Of an answer to CLUSTER SLOTS: the master of ``slot``, and all nodes.

    A node that does not know its own address leaves it empty: it is the one that was ``asked``.
    """
    master, there = None, []
    for first, last, *nodes in told:
        here = [(host.decode() if host and host != b"?" else asked, int(port)) for host, port, *_ in nodes]
        there += here
        if first <= slot <= last and here:
            master = here[0]
    return master, list(dict.fromkeys(there))


def follow(address: Address, key: bytes, **options: Any) -> Redis:
    """A client of the master, wherever it is; ``key``: any of those that will be asked for.

    ``options``: more for the connections. ``let_go`` closes it.
    """
    asking = {"socket_timeout": ASK_S, "socket_connect_timeout": ASK_S, "retry": Retry(NoBackoff(), 0)}
    asking |= {"protocol": 2, "ssl": address.tls}
    options = {**address.options, **options}
    if address.kind == "sentinel":
        own = asking | dict(address.sentinel_options)
        finder: Any = _Sentinels(address.nodes, sentinel_kwargs=own)  # type: ignore[no-untyped-call] # redis-py's
        connections = (SentinelManagedConnection, SentinelManagedSSLConnection)
    else:
        finder = SlotFinder(address.nodes, key_slot(key), {**address.options, **asking})
        connections = (_SlotConnection, _SlotSSLConnection)
    pool = SentinelConnectionPool(  # type: ignore[no-untyped-call] # likewise
        address.service or "slot", finder, connection_class=connections[address.tls], **options
    )
    return Redis.from_pool(pool)


def master_of(client: Redis) -> Node | None:
    """Where the master was when a client of ``follow``'s last connected; ``None`` of any other client."""
    return getattr(client.connection_pool, "master_address", None)


async def let_go(client: Redis) -> None:
    """Close a client of ``connect``'s, and whatever it asked for its master."""
    with suppress(RedisError, OSError):
        await client.aclose()
    finder = getattr(client.connection_pool, "sentinel_manager", None)
    for sentinel in getattr(finder, "sentinels", ()):
        with suppress(RedisError, OSError):
            await sentinel.aclose()
