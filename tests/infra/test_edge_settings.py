"""What the edge makes of its settings: a fault is named by its variable, and Kamailio takes what is made."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.sip.render import configuration, ha1, kamailio_command, rtpengine_command
from infra.sip.settings import BadSettings, Gateway, Node, read_file, read_settings
from tests.infra.phones import certificate_of

LEAST = {
    "EDGE_PUBLIC_ADDRESS": "203.0.113.5",
    "EDGE_NODES": "10.0.0.7:5070",
    "EDGE_TRUNKS": "carrier=198.51.100.0/24",
}


def _faults(**changes: str) -> str:
    with pytest.raises(BadSettings) as caught:
        read_settings(LEAST | {f"EDGE_{name}": value for name, value in changes.items()})
    return str(caught.value)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate_of(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def passwords(tmp_path: Path) -> Callable[[str], str]:
    def write(text: str, mode: int = 0o640) -> str:
        path = tmp_path / "extensions"
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    return write


def test_three_settings_are_enough() -> None:
    settings = read_settings(LEAST | {"HOME": "/root", "EDGE_REALM": " ", "EDGE_DIGEST": ""})
    assert settings.nodes == (Node("10.0.0.7", 5070, "udp"),)
    assert settings.trunks == {"carrier": ("198.51.100.0/24",)}
    assert settings.advertised_address == "203.0.113.5"
    assert (settings.realm, settings.digest, settings.register) == ("parley", "MD5", False)
    assert "tls.cfg" not in configuration(settings)


def test_everything_that_is_wrong_is_named_at_once() -> None:
    said = _faults(PUBLIC_ADDRESS="here", NODES="", MAX_CALLS="many", REGISTR="yes").splitlines()
    assert [line.split(":")[0] for line in said] == [
        "EDGE_REGISTR", "EDGE_PUBLIC_ADDRESS", "EDGE_MAX_CALLS", "EDGE_NODES",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PUBLIC_ADDRESS", "0.0.0.0", "name the one address"),
        ("PUBLIC_ADDRESS", "::1", "not an IPv4 address"),
        ("PUBLIC_PORT", "70000", "from 1 to 65535"),
        ("PUBLIC_PORT", "5080", None),
        ("NODES", "10.0.0.7", "not ADDRESS:PORT"),
        ("NODES", "10.0.0.7:5070;transport=tls", "not ADDRESS:PORT"),
        ("NODES", "10.0.0.7:5070,10.0.0.7:5070", "twice"),
        ("NODES", "10.0.0.300:5070", "not an IPv4 address"),
        ("NODES", "127.0.0.1:5080", "is EDGE_INSIDE_PORT, too"),
        ("TRUNKS", "carrier", "has no network"),
        ("TRUNKS", "=1.2.3.4", "a name of its own"),
        ("TRUNKS", "a=1.2.3.4;a=1.2.3.5", "a name of its own"),
        ("TRUNKS", "a=1.2.3.0/24;b=1.2.3.4", "overlaps with 1.2.3.0/24 of a"),
        ("TRUNKS", "a=0.0.0.0/0", "half the world"),
        ("TRUNKS", "a=1.2.3.4/24", "has host bits set"),
        ("TRUNKS", "", "nobody can call"),
        ("TRUNK_GATEWAY", "carrier.example", "is not sip:HOST"),
        ("TRUNK_GATEWAY", "sip:carrier.example;transport=tls", "needs EDGE_TLS_CERTIFICATE"),
        ("TLS_CERTIFICATE", "/nowhere/cert.pem", "No such file"),
        ("TLS_CERTIFICATE", "cert.pem", "not an absolute path"),
        ("RTP_PORTS", "30000", "not FIRST-LAST"),
        ("RTP_PORTS", "30002-30000", "four ports"),
        ("RTP_PORTS", "5000-6000", "is within EDGE_RTP_PORTS"),
        ("INSIDE_PORT", "22222", "is EDGE_INSIDE_PORT, too"),
        ("REGISTER", "true", "neither yes nor no"),
        ("REGISTER", "yes", "nobody to register"),
        ("DIGEST", "SHA1", "none of MD5, SHA-256"),
        ("REALM", "two words", "not a host's name"),
        ("SCANNERS", 'a"; exit; "', "not words"),
        ("SCANNERS", "a(b", "unterminated"),
        ("PUBLIC_PORT", "5060x", "from 1 to 65535"),
        ("RUN_FOLDER", "/run/it's", "not an absolute path"),
    ],
)
def test_a_fault_is_named_with_what_is_wrong(name: str, value: str, says: str | None) -> None:
    if says is None:  # another address: no clash
        read_settings(LEAST | {f"EDGE_{name}": value})
    else:
        said = _faults(**{name: value})
        assert says in said
        assert said.startswith("EDGE_")


def test_a_certificate_needs_its_key(certificate: Path) -> None:
    assert "set both, or none" in _faults(TLS_CERTIFICATE=f"{certificate}.crt")
    said = _faults(TLS_CERTIFICATE=f"{certificate}.key", TLS_KEY=f"{certificate}.key")
    assert "cannot be used together" in said
    assert "is EDGE_PUBLIC_PORT, too" in _faults(
        TLS_CERTIFICATE=f"{certificate}.crt", TLS_KEY=f"{certificate}.key", TLS_PORT="5060"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("alice", "fewer than 12"),
        ("alice:short", "fewer than 12"),
        ("al ice:a-long-password", "line 1"),
        ("# nobody\n\n", "is empty"),
        ("alice:a-long-password\nalice:a-long-password", "line 2"),
    ],
)
def test_a_bad_line_of_the_passwords_is_named(passwords: Callable[..., str], text: str, says: str) -> None:
    said = _faults(EXTENSIONS_FILE=passwords(text))
    assert says in said
    assert "a-long-password" not in said


def test_passwords_that_everybody_can_read_are_refused(passwords: Callable[..., str]) -> None:
    assert "chmod 640" in _faults(EXTENSIONS_FILE=passwords("alice:a-long-password", 0o644))


def test_no_password_is_in_what_is_shown_or_written(passwords: Callable[..., str]) -> None:
    settings = read_settings(LEAST | {"EDGE_EXTENSIONS_FILE": passwords("alice:a-long:password")})
    assert settings.extensions == {"alice": "a-long:password"}
    assert "a-long:password" not in repr(settings)
    files = configuration(settings)
    assert "a-long:password" not in "".join(files.values())
    assert hashlib.md5(b"alice:parley:a-long:password").hexdigest() in files["edge.cfg"]


def test_ha1_is_rfc_2617s_example() -> None:
    """Section 3.5: its response follows from this HA1."""
    first = ha1("Mufasa", "testrealm@host.com", "Circle Of Life", "MD5")
    second = hashlib.md5(b"GET:/dir/index.html").hexdigest()
    nonce = "dcd98b7102dd2f0e8b11d0f600bfb0c093"
    response = hashlib.md5(f"{first}:{nonce}:00000001:0a4f113b:auth:{second}".encode()).hexdigest()
    assert response == "6629fae49393a05397450978507c4ef1"


def test_the_file_of_variables(tmp_path: Path) -> None:
    file = tmp_path / "edge.env"
    file.write_text("# the edge\n\nEDGE_REALM = parley.example\nEDGE_NODES=a=b\n")
    assert read_file(file) == {"EDGE_REALM": "parley.example", "EDGE_NODES": "a=b"}
    file.write_text("EDGE_REALM=x\nexport EDGE_NODES=y\n")
    with pytest.raises(BadSettings, match="line 2"):
        read_file(file)
    with pytest.raises(BadSettings, match="cannot be read"):
        read_file(tmp_path / "none")


def test_trunks_and_gateways_are_read() -> None:
    settings = read_settings(
        LEAST
        | {
            "EDGE_TRUNKS": " a = 1.2.3.4 , 1.2.4.0/24 ; b=5.6.7.8;",
            "EDGE_TRUNK_GATEWAY": "sip:sip.example:5070;transport=tcp",
            "EDGE_SCANNERS": "bad|worse",
            "EDGE_REALM": "parley.example",
            "EDGE_NODES": "10.0.0.7:5070, 10.0.0.8:5070;transport=tcp",
        }
    )
    files = configuration(settings)
    assert files["address.list"] == "1 1.2.3.4 32 0 a\n1 1.2.4.0 24 0 a\n1 5.6.7.8 32 0 b\n"
    assert settings.trunk_gateway == Gateway("sip.example", 5070, "tcp")
    assert '"~EDGE_SCANNERS~bad|worse~g"' in files["edge.cfg"]
    assert files["dispatcher.list"] == (
        "1 sip:10.0.0.7:5070;transport=udp 0 0 socket=udp:127.0.0.1:5080\n"
        "1 sip:10.0.0.8:5070;transport=tcp 0 0 socket=tcp:127.0.0.1:5080\n"
    )


def test_behind_a_nat_the_address_that_is_told_is_the_outer_one() -> None:
    settings = read_settings(
        LEAST | {"EDGE_PUBLIC_ADDRESS": "10.1.1.1", "EDGE_ADVERTISED_ADDRESS": "8.8.4.4"}
    )
    assert "--interface=public/10.1.1.1!8.8.4.4" in rtpengine_command(settings)
    assert "10.1.1.1:5060 advertise 8.8.4.4:5060" in configuration(settings)["edge.cfg"]
    assert "kamailio" in kamailio_command(settings)[0]


@given(
    st.dictionaries(
        st.sampled_from(["NODES", "TRUNKS", "TRUNK_GATEWAY", "REALM", "SCANNERS", "RUN_FOLDER"]), st.text()
    )
)
def test_whatever_is_set_it_is_refused_or_cannot_leave_its_quotes(changes: dict[str, str]) -> None:
    try:
        settings = read_settings(LEAST | {f"EDGE_{name}": value for name, value in changes.items()})
    except BadSettings:
        return
    for text in configuration(settings).values():
        assert text.isascii()
        for line in text.splitlines():
            assert line.count('"') in (0, 2)
            assert ";" not in line or "substdef" in line or "transport=" in line


@pytest.mark.e2e
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"TLS": "yes", "EXTENSIONS": "yes", "REGISTER": "yes", "REQUIRE_SRTP": "yes"},
        {"TLS": "yes", "TRUNK_GATEWAY": "sip:sip.example;transport=tls"},
        {"EXTENSIONS": "yes", "DIGEST": "SHA-256", "TRUNK_GATEWAY": "sip:192.0.2.9"},
        {"ADVERTISED_ADDRESS": "8.8.4.4", "TLS": "yes"},
    ],
)
def test_kamailio_takes_what_is_made(
    tmp_path: Path, certificate: Path, passwords: Callable[..., str], changes: dict[str, str]
) -> None:
    environment = LEAST | {"EDGE_RUN_FOLDER": str(tmp_path), "EDGE_PUBLIC_ADDRESS": "127.0.0.2"}
    for name, value in changes.items():
        match name:
            case "TLS":
                environment["EDGE_TLS_CERTIFICATE"] = f"{certificate}.crt"
                environment["EDGE_TLS_KEY"] = f"{certificate}.key"
            case "EXTENSIONS":
                environment["EDGE_EXTENSIONS_FILE"] = passwords("alice:a-long-password")
            case _:
                environment[f"EDGE_{name}"] = value
    settings = read_settings(environment)
    for name, text in configuration(settings).items():
        (tmp_path / name).write_text(text)
    done = subprocess.run([*kamailio_command(settings), "-c"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
