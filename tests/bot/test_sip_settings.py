"""The phone's settings: off unless asked for, for this machine unless told who else."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from bot import settings as conf
from bot.check import _phone, _registrar
from bot.ingress.sip.registrar import Registrar
from bot.ingress.sip.settings import SipSettings
from bot.settings import Settings
from tests.ports import free_port

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for row in conf.rows():
        monkeypatch.delenv(row.variable, raising=False)


def test_there_is_no_phone_unless_asked_for() -> None:
    assert conf.load().sip.listen == ""
    assert _phone(SipSettings()).said.startswith("off")


def test_on_the_loopback_this_machine_may_call() -> None:
    assert SipSettings(listen="127.0.0.1:5060").networks == ["0.0.0.0/0"]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"LISTEN": "0.0.0.0:5060"}, "PARLEY_SIP__TRUSTED: nobody is trusted"),
        ({"MEDIA": "192.0.2.1/24"}, "PARLEY_SIP__MEDIA"),
        ({"LISTEN": "here:5060"}, "PARLEY_SIP__LISTEN: is 'here:5060', should be an IPv4 address"),
        ({"LISTEN": "127.0.0.1"}, "PARLEY_SIP__LISTEN"),
        ({"LISTEN": "[::1]:5060"}, "PARLEY_SIP__LISTEN"),
        ({"TRUSTED": "10.0.0.1/8"}, "has host bits set"),
        ({"TRUSTED": ",".join(f"10.0.0.{n}" for n in range(65))}, "at most 64"),
        ({"TRANSPORTS": "udp,carrier-pigeon"}, "PARLEY_SIP__TRANSPORTS"),
        ({"CODECS": ""}, "PARLEY_SIP__CODECS"),
        ({"RTP_PORTS": "20000-10000"}, "the lower first"),
        ({"API_KEY": "too short"}, "PARLEY_SIP__API_KEY"),
        ({"AUTH_USERNAME": "a;b"}, "PARLEY_SIP__AUTH_USERNAME"),
        ({"CALLER_ID": "sip:x@y"}, "PARLEY_SIP__CALLER_ID"),
        ({"CALLER_NAME": 'A "shop"'}, "PARLEY_SIP__CALLER_NAME"),
        ({"JITTER_MS": "many"}, "PARLEY_SIP__JITTER_MS"),
        ({"REGISTRAR": "sip:pbx", "USERNAME": "2000"}, "PARLEY_SIP__REGISTRAR"),
        ({"REGISTRAR": "pbx.example.org"}, "PARLEY_SIP__USERNAME: is '', should be"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"PARLEY_SIP__{name}", value)
    with pytest.raises(conf.BadSettings) as error:
        conf.load()
    assert said in str(error.value)


def test_elsewhere_those_named_may_call_and_the_rest_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_SIP__LISTEN", "0.0.0.0:5060")
    monkeypatch.setenv("PARLEY_SIP__TRUSTED", "192.0.2.10, 198.51.100.0/24")
    monkeypatch.setenv("PARLEY_SIP__RTP_PORTS", "20000-20099")
    sip = conf.load().sip
    assert sip.networks == ["192.0.2.10/32", "198.51.100.0/24"]
    assert sip.rtp_ports == (20_000, 20_099)


def test_the_table_says_ranges_as_they_are_written() -> None:
    assert {row.variable: row.default for row in conf.rows()}["PARLEY_SIP__RTP_PORTS"] == "10000-10999"


def test_check_says_where_the_phone_is_and_what_is_in_its_way() -> None:
    port = free_port()
    finding = _phone(SipSettings(listen=f"127.0.0.1:{port}"))
    assert (finding.state, f"sip:127.0.0.1:{port}" in finding.said) == ("ok", True)
    away = _phone(SipSettings(listen="192.0.2.1:5060", trusted=("192.0.2.0/24",)))
    assert (away.state, "cannot assign" in away.said) == ("bad", True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", port))
        taken = _phone(SipSettings(listen=f"127.0.0.1:{port}"))
    assert (taken.state, "is taken" in taken.said) == ("note", True)


def test_an_extension_is_called_by_its_pbx_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_SIP__LISTEN", "127.0.0.1:5060")
    monkeypatch.setenv("PARLEY_SIP__REGISTRAR", "PBX.example.org:5080;transport=tcp")
    monkeypatch.setenv("PARLEY_SIP__USERNAME", "2000")
    sip = conf.load().sip
    assert sip.networks == []  # its addresses are found when it is registered
    registrar = Registrar.parse(sip.registrar)
    assert (registrar.domain, registrar.transport) == ("pbx.example.org:5080", "tcp")
    monkeypatch.setenv("PARLEY_SIP__LISTEN", "192.0.2.1:5060")
    assert conf.load().sip.networks == []
    monkeypatch.setenv("PARLEY_SIP__TRUSTED", "192.0.2.10")
    assert conf.load().sip.networks == ["192.0.2.10/32"]


@pytest.mark.parametrize(
    ("uri", "of_it"),
    [
        ("sip:2001@pbx:5080", True),
        ("sip:2001@PBX:5080;transport=udp", True),
        ("<sip:2001@pbx:5080>", True),
        ("sip:2001@pbx", False),
        ("sip:2001@pbx:50800", False),
        ("sip:pbx:5080@elsewhere", False),
    ],
)
def test_who_belongs_to_the_pbx(uri: str, of_it: bool) -> None:
    assert Registrar.parse("pbx:5080").names(uri) is of_it


def test_whether_there_is_a_registrar_is_said_before_anything_runs() -> None:
    sip = SipSettings(
        listen=f"127.0.0.1:{free_port()}", registrar=f"127.0.0.1:{free_port()}", username="2000"
    )
    settings = Settings(sip=sip, port=free_port())
    assert _registrar(settings).state == "bad"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as pbx:
        pbx.bind(("127.0.0.1", 0))
        there = sip.model_copy(update={"registrar": f"127.0.0.1:{pbx.getsockname()[1]}"})

        def answer() -> None:
            asked, who = pbx.recvfrom(4096)
            assert asked.startswith(b"OPTIONS sip:127.0.0.1:")
            pbx.sendto(b"SIP/2.0 404 Not Found\r\n\r\n", who)

        with ThreadPoolExecutor() as beside:
            answering = beside.submit(answer)
            finding = _registrar(settings.model_copy(update={"sip": there}))
            answering.result()
    assert (finding.state, "the PBX answers" in finding.said) == ("ok", True)


def test_compose_passes_every_setting_of_the_phone_on() -> None:
    compose = yaml.safe_load((ROOT / "infra/compose/compose.yaml").read_text(encoding="utf-8"))
    passed = compose["services"]["parley"]["environment"]
    assert {f"PARLEY_SIP__{name.upper()}" for name in SipSettings.model_fields} <= passed.keys()
