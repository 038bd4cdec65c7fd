"""Where Redis is, taken from a URL: one server, the master that Sentinels name, or a Cluster. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast
from urllib.parse import unquote, urlsplit

from redis.asyncio.connection import SSLConnection, parse_url

Node = tuple[str, int]

FORMS = (
    "redis://:password@host:6379/0",
    "rediss://host",
    "unix:///path",
    "redis+sentinel://host1:26379,host2:26379/mymaster",
    "redis+cluster://host1:6379,host2:6379",
)
_PORTS = {"sentinel": 26379, "cluster": 6379}
_OF_SENTINELS = "sentinel_"  # begins the options that are the Sentinels' own: sentinel_password


@dataclass(frozen=True)
class Address:
    """``nodes`` are whom to ask for the master: the Sentinels, or some nodes of the Cluster.

    ``options`` are redis-py's for connections to Redis itself, ``sentinel_options`` for those to Sentinels.
    """

    kind: Literal["server", "sentinel", "cluster"]
    nodes: tuple[Node, ...] = ()
    service: str = ""  # the master's name, as the Sentinels know it
    tls: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    sentinel_options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """Where that is, without user and password."""
        nodes = ", ".join(f"{host}:{port}" for host, port in self.nodes)
        if self.kind == "server":
            return str(self.options.get("path") or nodes)
        return f"{self.service} of Sentinel {nodes}" if self.kind == "sentinel" else f"Cluster {nodes}"


def parse(url: str) -> Address:
    """Take a URL apart. ``rediss+...`` is TLS to everybody; a query holds redis-py's options.

    Raises ``ValueError``, whose words may repeat a part of the password.
    """
    scheme, _, rest = url.partition("://")
    plain, plus, kind = scheme.partition("+")
    if not plus:
        options = dict(parse_url(url))
        node = (str(options.get("host", "localhost")), int(cast("int", options.get("port", 6379))))
        return Address("server", (node,), tls=plain == "rediss", options=options)
    if plain not in ("redis", "rediss") or kind not in _PORTS:
        raise ValueError(f"{scheme}:// is nothing that Redis is reached by")
    authority = rest[: min((rest.find(mark) for mark in "/?#" if mark in rest), default=len(rest))]
    path, question, query = rest[len(authority) :].partition("?")
    user, at, hosts = authority.rpartition("@")
    nodes = tuple(_node(host, _PORTS[kind]) for host in hosts.split(","))
    service, _, db = path.strip("/").partition("/")
    if kind == "cluster":
        service, db = "", service
        if db not in ("", "0"):
            raise ValueError("a Cluster has the database 0 alone")
    elif not service:
        raise ValueError("the name of the master is missing")
    # What all of them have in common is taken apart as redis-py does it.
    options = dict(parse_url(f"{plain}://{user}{at}localhost/{db}{question}{query}"))
    if db and options.get("db") != int(db):
        raise ValueError("there are two databases")
    options = {name: value for name, value in options.items() if name not in ("host", "port")}
    own = {name: value for name, value in options.items() if name.startswith(_OF_SENTINELS)}
    options = {name: value for name, value in options.items() if name not in own}
    tls = options.pop("connection_class", None) is SSLConnection
    secured = {name: value for name, value in options.items() if name.startswith("ssl_")}
    named = {name.removeprefix(_OF_SENTINELS): value for name, value in own.items()}
    return Address(
        cast("Literal['sentinel', 'cluster']", kind), nodes, unquote(service), tls, options, secured | named
    )


def _node(host: str, port: int) -> Node:
    parts = urlsplit(f"//{host}")
    if not parts.hostname:
        raise ValueError("a host is missing")
    return parts.hostname, parts.port or port
