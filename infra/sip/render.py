"""The two daemons' own configuration, made of the edge's settings. Pure: text, and nothing is written."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

from infra.sip.settings import Settings

TEMPLATES = (Path(__file__).with_name("modules.cfg"), Path(__file__).with_name("routes.cfg"))

LONGEST_REGISTRATION_S = 3605  # the hour that a phone may register for, and the time to do it again


def configuration(settings: Settings) -> dict[str, str]:
    """The files of the run folder by name. Some hold secrets: nobody else may read them."""
    return {
        "edge.cfg": _values(settings)
        + "".join(f'include_file "{template}"\n' for template in TEMPLATES)
        + _secrets(settings),
        "dispatcher.list": "".join(
            f"1 {node.uri} 0 0 socket={node.transport}:{_inside(settings)}\n" for node in settings.nodes
        ),
        "address.list": "".join(
            f"1 {network.replace('/', ' ')} 0 {name}\n"
            for name, networks in settings.trunks.items()
            for network in networks
        ),
        **({"tls.cfg": _tls(settings)} if settings.tls_key is not None else {}),
    }


def kamailio_command(settings: Settings) -> list[str]:
    """In the foreground (-DD: its first process stays), its log on stderr."""
    config = str(settings.run_folder / "edge.cfg")
    return [
        *(
            "kamailio",
            "-DD",
            "-E",
            "-f",
            config,
            "-Y",
            str(settings.run_folder),
            "-w",
            str(settings.run_folder),
        ),
        *("-m", "128", "-M", "8"),
    ]


def rtpengine_command(settings: Settings) -> list[str]:
    """In the foreground and in user space (table -1): the kernel module is not needed for so few calls."""
    public, inside = settings.public_address, settings.inside_address
    return [
        *("rtpengine", "--config-file=none", "--foreground", "--log-stderr", "--log-level=5", "--table=-1"),
        f"--interface=public/{public}" + (f"!{settings.advertised_address}" if _behind_nat(settings) else ""),
        f"--interface=inside/{inside}",
        f"--listen-ng=127.0.0.1:{settings.ng_port}",
        *(f"--port-min={settings.rtp_ports[0]}", f"--port-max={settings.rtp_ports[1]}"),
        *("--timeout=60", "--silent-timeout=3600", "--offer-timeout=180", "--delete-delay=0"),
        f"--max-sessions={settings.max_calls}",
        f"--num-threads={settings.workers}",
    ]


def ha1(name: str, realm: str, password: str, digest: str) -> str:
    """H(A1) of RFC 2617, section 3.2.2.2, or with SHA-256 of RFC 8760."""
    method = hashlib.md5 if digest == "MD5" else hashlib.sha256
    return method(f"{name}:{realm}:{password}".encode()).hexdigest()


def _values(settings: Settings) -> str:
    public = f"{settings.public_address}:{settings.public_port}"
    tls = f"{settings.public_address}:{settings.tls_port}"
    with_tls, gateway = settings.tls_key is not None, settings.trunk_gateway
    nobody = secrets.token_hex(16 if settings.digest == "MD5" else 32)
    values: dict[str, object] = {
        "PUBLIC_LISTEN": public + _advertise(settings, settings.public_port),
        "PUBLIC_SOCKET": public,
        "TLS_LISTEN": tls + _advertise(settings, settings.tls_port),
        "TLS_OR_UDP": f"tls:{tls}" if with_tls else f"udp:{public}",
        "INSIDE_SOCKET": _inside(settings),
        "INSIDE_ADDRESS": settings.inside_address,
        "INSIDE_PORT": settings.inside_port,
        "NG": f"127.0.0.1:{settings.ng_port}",
        "FOLDER": settings.run_folder,
        "REALM": settings.realm,
        "DIGEST": settings.digest,
        "NONCE_SECRET": secrets.token_hex(32),
        "NO_SECRET": nobody,
        "MAX_CALLS": settings.max_calls,
        "MAX_CALL_S": settings.max_call_s,
        "CALLS_PER_SECOND": settings.calls_per_second,
        "TRIES": settings.tries,
        "BAN_S": settings.ban_s,
        "FLOOD": settings.flood,
        "IDLE_S": settings.idle_s,
        "KNOWN_S": max(LONGEST_REGISTRATION_S, settings.max_call_s),
        "SCANNERS": settings.scanners,
        "NODE_TIMEOUT_MS": settings.node_timeout_ms,
        "PROBE_S": settings.probe_s,
        "WORKERS": settings.workers,
        "GATEWAY_HOST": gateway.host if gateway else "",
        "GATEWAY_URI": gateway.uri if gateway else "",
    }
    # A longer name goes first: EDGE_NG would be found within EDGE_NGX.
    lines = [f'#!substdef "~EDGE_{name}~{values[name]}~g"' for name in sorted(values, key=len, reverse=True)]
    switches = {
        "WITH_TLS": with_tls,
        "EXTENSIONS": bool(settings.extensions),
        "REGISTER": settings.register,
        "REQUIRE_SRTP": settings.require_srtp,
        "GATEWAY": gateway is not None,
    }
    lines += [f"#!define EDGE_{name}" for name, on in switches.items() if on]
    return "\n".join(lines) + "\n"


def _secrets(settings: Settings) -> str:
    lines = [
        f'    $sht(secret=>{name}) = "{ha1(name, settings.realm, password, settings.digest)}";\n'
        for name, password in settings.extensions.items()
    ]
    return f"event_route[htable:mod-init] {{\n{''.join(lines)}}}\n" if lines else ""


def _inside(settings: Settings) -> str:
    return f"{settings.inside_address}:{settings.inside_port}"


def _behind_nat(settings: Settings) -> bool:
    return settings.advertised_address != settings.public_address


def _advertise(settings: Settings, port: int) -> str:
    return f" advertise {settings.advertised_address}:{port}" if _behind_nat(settings) else ""


def _tls(settings: Settings) -> str:
    own = f"private_key = {settings.tls_key}\ncertificate = {settings.tls_certificate}\n"
    gateway = settings.trunk_gateway
    trusted = f"ca_list = {settings.trunk_ca}\n" if gateway and gateway.transport == "tls" else ""
    return (
        f"[server:default]\nmethod = TLSv1.2+\nverify_certificate = no\nrequire_certificate = no\n{own}"
        f"[client:default]\nmethod = TLSv1.2+\nverify_certificate = yes\nrequire_certificate = yes\n"
        f"{trusted}{own}"
    )
