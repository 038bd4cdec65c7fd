"""What the edge is told: ``EDGE_*`` of the environment or of a file of ``NAME=value`` lines, checked at once.

The edge runs where Parley is not installed, so this needs the standard library alone. IPv4 only.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
SIP_URI = re.compile(
    r"sips?:(?P<host>[A-Za-z0-9.-]+)(:(?P<port>\d+))?(;transport=(?P<transport>udp|tcp|tls))?"
)
SCANNERS = (
    "friendly-scanner|friendly-request|sipvicious|sipcli|sip-scan|sipsak|sundayddr|iwar|csipsimple-scan|"
    "sipv[0-9]|siparmyknife|vaxsipuseragent|vaxasip|pplsip|smap|scamper|gulp|zmeu|nmap|masscan"
)


class BadSettings(Exception):  # noqa: N818 - reads as what it is wherever it is caught
    """Some settings cannot be used. The message has a line for each: its variable and what is wrong."""


@dataclass(frozen=True)
class Node:
    """A Parley: where its SIP leg listens."""

    host: str
    port: int
    transport: str

    @property
    def uri(self) -> str:
        """As the dispatcher names it."""
        return f"sip:{self.host}:{self.port};transport={self.transport}"


@dataclass(frozen=True)
class Gateway:
    """Where calls of Parley's own go: a carrier's SIP server."""

    host: str
    port: int | None
    transport: str

    @property
    def uri(self) -> str:
        """With the transport that calls to it take."""
        return f"sip:{self.host}{f':{self.port}' if self.port else ''};transport={self.transport}"


@dataclass(frozen=True)
class Settings:
    """One edge. A field is the variable ``EDGE_`` and its name in capitals; ``README.md`` explains it."""

    public_address: str
    nodes: tuple[Node, ...]
    advertised_address: str
    public_port: int = 5060
    tls_port: int = 5061
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    inside_address: str = "127.0.0.1"
    inside_port: int = 5080
    rtp_ports: tuple[int, int] = (30000, 39999)
    ng_port: int = 22222
    trunks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    trunk_gateway: Gateway | None = None
    trunk_ca: Path = Path("/etc/ssl/certs/ca-certificates.crt")  # Debian's; slow: every process reads it all
    extensions: Mapping[str, str] = field(default_factory=dict, repr=False)  # name -> password
    realm: str = "parley"
    digest: str = "MD5"
    register: bool = False
    require_srtp: bool = False
    max_calls: int = 100
    max_call_s: int = 7200
    calls_per_second: int = 10
    tries: int = 5
    ban_s: int = 600
    flood: int = 60
    idle_s: int = 20
    scanners: str = SCANNERS
    node_timeout_ms: int = 2000
    probe_s: int = 5
    workers: int = 4
    run_folder: Path = Path("/run/parley-edge")


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Settings of the ``EDGE_*`` variables; an empty one is as if it were not there.

    Raises ``BadSettings``, which names every variable that is wrong.
    """
    given = {name: text.strip() for name, text in environment.items() if name.startswith("EDGE_")}
    values: dict[str, Any] = {}
    wrong = [f"{name}: there is no such setting." for name in sorted(set(given) - set(_READERS))]
    for name, read in _READERS.items():
        if not given.get(name):
            continue
        try:
            values[name.removeprefix("EDGE_").lower()] = read(given[name])
        except (ValueError, OSError) as error:
            wrong.append(f"{name}: {error}")
    needed = ("EDGE_PUBLIC_ADDRESS", "EDGE_NODES")
    wrong += [f"{name}: must be set." for name in needed if not given.get(name)]
    values["extensions"] = values.pop("extensions_file", {})
    if not wrong:
        values.setdefault("advertised_address", values["public_address"])
        settings = Settings(**values)
        wrong = list(_at_odds(settings))
        if not wrong:
            return settings
    raise BadSettings("\n".join(wrong))


def read_file(path: Path) -> dict[str, str]:
    """Variables of a file: ``NAME=value`` lines, blank ones, and comments that begin with ``#``.

    Raises ``BadSettings``.
    """
    found: dict[str, str] = {}
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals or not re.fullmatch(r"EDGE_[A-Z_]+", name.strip()):
            raise BadSettings(f"{path}, line {number}: is not EDGE_NAME=value.")
        found[name.strip()] = value.strip()
    return found


def _at_odds(settings: Settings) -> list[str]:
    """What is wrong with settings that are each right by themselves."""
    wrong = []
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        wrong.append("EDGE_TLS_CERTIFICATE, EDGE_TLS_KEY: set both, or none.")
    elif settings.tls_certificate is not None and settings.tls_key is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
                settings.tls_certificate, settings.tls_key
            )
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            wrong.append(f"EDGE_TLS_CERTIFICATE, EDGE_TLS_KEY: cannot be used together: {error}.")
    if settings.trunk_gateway and settings.trunk_gateway.transport == "tls" and settings.tls_key is None:
        wrong.append("EDGE_TRUNK_GATEWAY: over TLS needs EDGE_TLS_CERTIFICATE and EDGE_TLS_KEY.")
    if settings.register and not settings.extensions:
        wrong.append("EDGE_REGISTER: there is nobody to register without EDGE_EXTENSIONS_FILE.")
    if not settings.trunks and not settings.extensions:
        wrong.append("EDGE_TRUNKS, EDGE_EXTENSIONS_FILE: with neither nobody can call.")
    taken: dict[tuple[str, int], str] = {}
    sockets = [
        ("EDGE_PUBLIC_PORT", settings.public_address, settings.public_port),
        ("EDGE_INSIDE_PORT", settings.inside_address, settings.inside_port),
        ("EDGE_NG_PORT", "127.0.0.1", settings.ng_port),
    ]
    if settings.tls_key is not None:
        sockets.append(("EDGE_TLS_PORT", settings.public_address, settings.tls_port))
    for name, address, port in sockets:
        first = taken.setdefault((address, port), name)
        if first != name:
            wrong.append(f"{name}: {address}:{port} is {first}, too.")
        if settings.rtp_ports[0] <= port <= settings.rtp_ports[1]:
            wrong.append(f"{name}: {port} is within EDGE_RTP_PORTS.")
    nodes = {(node.host, node.port) for node in settings.nodes}
    wrong += [f"EDGE_NODES: {host}:{port} is {taken[host, port]}, too." for host, port in nodes & set(taken)]
    return wrong


def _address(text: str) -> str:
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an IPv4 address.") from None
    if address.is_unspecified:
        raise ValueError("name the one address to listen on, not 0.0.0.0.")
    return str(address)


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise ValueError(f"{text!r} is not a whole number from {least} to {most}.")
        return int(text)

    return read


_port = _whole(1, 65535)


def _yes_no(text: str) -> bool:
    if text.lower() not in ("yes", "no"):
        raise ValueError(f"{text!r} is neither yes nor no.")
    return text.lower() == "yes"


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"{text!r} is none of {', '.join(choices)}.")
        return text

    return read


def _path(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute() or not re.fullmatch(r"[A-Za-z0-9/._-]+", text):
        raise ValueError(f"{text!r} is not an absolute path of letters, digits and /._-")
    return path


def _file(text: str) -> Path:
    path = _path(text)
    path.open("rb").close()  # raises OSError, which names it
    return path


def _nodes(text: str) -> tuple[Node, ...]:
    nodes = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        found = re.fullmatch(r"([0-9.]+):(\d+)(;transport=(udp|tcp))?", part)
        if not found:
            raise ValueError(f"{part!r} is not ADDRESS:PORT or ADDRESS:PORT;transport=tcp.")
        node = Node(_address(found[1]), _port(found[2]), found[4] or "udp")
        if node in nodes:
            raise ValueError(f"{part} is there twice.")
        nodes.append(node)
    return tuple(nodes)


def _trunks(text: str) -> dict[str, tuple[str, ...]]:
    """``name=network,network;name=network``. No network may be that of two trunks, nor everybody's."""
    trunks: dict[str, tuple[str, ...]] = {}
    seen: list[tuple[ipaddress.IPv4Network, str]] = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, _, networks = part.partition("=")
        name = name.strip()
        if not NAME.fullmatch(name) or name in trunks:
            raise ValueError(f"{part!r}: give each trunk a name of its own: NAME=NETWORK,NETWORK")
        own = []
        for address in filter(None, (address.strip() for address in networks.split(","))):
            try:
                network = ipaddress.IPv4Network(address)
            except ValueError as error:
                raise ValueError(f"trunk {name}: {error}.") from None
            if network.prefixlen < 8:
                raise ValueError(
                    f"trunk {name}: {network} lets in half the world; name the carrier's own networks."
                )
            for other, whose in seen:
                if network.overlaps(other):
                    raise ValueError(f"trunk {name}: {network} overlaps with {other} of {whose}.")
            seen.append((network, name))
            own.append(str(network))
        if not own:
            raise ValueError(f"trunk {name} has no network.")
        trunks[name] = tuple(own)
    return trunks


def _gateway(text: str) -> Gateway:
    found = SIP_URI.fullmatch(text)
    if not found or not HOST.fullmatch(found["host"]):
        raise ValueError(f"{text!r} is not sip:HOST, with :PORT or ;transport=udp, tcp or tls where needed.")
    return Gateway(
        found["host"], _port(found["port"]) if found["port"] else None, found["transport"] or "udp"
    )


def _host(text: str) -> str:
    if not HOST.fullmatch(text):
        raise ValueError(f"{text!r} is not a host's name.")
    return text


def _ports(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)-(\d+)", text)
    if not found:
        raise ValueError(f"{text!r} is not FIRST-LAST.")
    first, last = _port(found[1]), _port(found[2])
    if last - first < 3:
        raise ValueError("one call takes four ports.")
    return first, last


def _pattern(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9 ._|()\[\]*+?-]+", text):
        raise ValueError(f"{text!r} is not words, parted by |.")
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r}: {error}.") from None
    return text


def _extensions(text: str) -> dict[str, str]:
    """Lines ``name:password`` of a file that only its owner (and the group) may read."""
    path = _file(text)
    if path.stat().st_mode & stat.S_IRWXO:
        raise ValueError(f"everybody can read {path}: chmod 640 it.")
    found: dict[str, str] = {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, password = line.strip().partition(":")
        if not NAME.fullmatch(name) or name in found:
            raise ValueError(f"{path}, line {number}: is not NAME:PASSWORD with a name of its own.")
        if len(password) < 12:
            raise ValueError(f"{path}, line {number}: {name}'s password has fewer than 12 characters.")
        found[name] = password
    if not found:
        raise ValueError(f"{path} is empty.")
    return found


_READERS: dict[str, Callable[[str], object]] = {
    "EDGE_PUBLIC_ADDRESS": _address,
    "EDGE_ADVERTISED_ADDRESS": _address,
    "EDGE_PUBLIC_PORT": _port,
    "EDGE_TLS_PORT": _port,
    "EDGE_TLS_CERTIFICATE": _file,
    "EDGE_TLS_KEY": _file,
    "EDGE_INSIDE_ADDRESS": _address,
    "EDGE_INSIDE_PORT": _port,
    "EDGE_NODES": _nodes,
    "EDGE_RTP_PORTS": _ports,
    "EDGE_NG_PORT": _port,
    "EDGE_TRUNKS": _trunks,
    "EDGE_TRUNK_GATEWAY": _gateway,
    "EDGE_TRUNK_CA": _file,
    "EDGE_EXTENSIONS_FILE": _extensions,
    "EDGE_REALM": _host,
    "EDGE_DIGEST": _one_of("MD5", "SHA-256"),
    "EDGE_REGISTER": _yes_no,
    "EDGE_REQUIRE_SRTP": _yes_no,
    "EDGE_MAX_CALLS": _whole(1, 100_000),
    "EDGE_MAX_CALL_S": _whole(10, 86_400),
    "EDGE_CALLS_PER_SECOND": _whole(1, 10_000),
    "EDGE_TRIES": _whole(1, 1000),
    "EDGE_BAN_S": _whole(1, 86_400),
    "EDGE_FLOOD": _whole(4, 10_000),
    "EDGE_IDLE_S": _whole(1, 3600),
    "EDGE_SCANNERS": _pattern,
    "EDGE_NODE_TIMEOUT_MS": _whole(200, 30_000),
    "EDGE_PROBE_S": _whole(1, 300),
    "EDGE_WORKERS": _whole(1, 64),
    "EDGE_RUN_FOLDER": _path,
}
assert {name.removeprefix("EDGE_").lower() for name in _READERS} - {"extensions_file"} == {
    each.name for each in fields(Settings)
} - {"extensions"}
