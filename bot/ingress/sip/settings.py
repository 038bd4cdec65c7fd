"""The phone's settings: ``PARLEY_SIP__*``."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from bot.ingress.sip.registrar import Registrar
from bot.routing import EDGE
from bot.setting_group import Group, Words

MOST_NETWORKS = 64  # nobody names so many
MAX_HEADERS = 16 - 1 - len(EDGE)  # the stack tells 16, and one of them is To


def _from_to(value: Any) -> Any:
    """``20-60`` as two numbers."""
    return tuple(value.split("-", 1)) if isinstance(value, str) else value


FromTo = Annotated[tuple[int, int], NoDecode, BeforeValidator(_from_to)]


class SipSettings(Group):
    """The phone: who may call, and whom we may."""

    listen: str = Field(
        default="",
        description="Where SIP calls are answered: an IPv4 address and a port, `127.0.0.1:5060`. "
        "Empty: no phone.",
    )
    registrar: str = Field(
        default="",
        description="A PBX to be an extension of, `192.0.2.10` or `pbx.example.org:5080;transport=tcp`; "
        "it may call, and with it nobody but those named in the next setting.",
    )
    trusted: Words = Field(
        default=(),
        validate_default=True,
        description="Networks that may call, `192.0.2.10,198.51.100.0/24`: your trunk, your PBX. On a "
        "loopback address only this machine can; on any other, somebody must be named.",
    )
    transports: Words = Field(default=("udp", "tcp"), description="SIP over `udp`, `tcp` or both.")
    agent: str = Field(
        default="",
        description="Who answers calls by phone that fit no agent's `answers:`. Empty: who answers the page.",
    )
    headers: Words = Field(
        default=(),
        description="Headers by which agents may be chosen (`answers:`), beside those that the edge writes.",
    )
    codecs: Words = Field(
        default=("opus", "g722", "pcmu", "pcma"), description="What we speak, what we like best first."
    )
    rtp_ports: FromTo = Field(
        default=(10_000, 10_999),
        description="UDP ports of the calls' audio; two a call, for a firewall to open.",
    )
    media: Words = Field(
        default=(),
        description="Networks whose sound and keys are heard in a call beside those of the address that its "
        "SDP names: your carrier's media servers, if they send from other addresses than they listen on. "
        "`0.0.0.0/0`: everybody's.",
    )
    jitter_ms: FromTo = Field(
        default=(20, 60), description="How long audio that comes in may be kept back to be even, in ms."
    )
    rtp_timeout_s: int = Field(
        default=20,
        ge=1,
        le=3600,
        description="Seconds without any audio from a phone after which it is gone.",
    )
    echo_guard: bool = Field(
        default=True,
        description="Take our own voice out of what a loudspeaker phone sends back.",
    )
    noise_suppression: bool = Field(
        default=False, description="Take steady noise (an engine, a fan) out of what phones send."
    )
    ring_s: float = Field(default=0, ge=0, le=60, description="Seconds for which it rings before we answer.")
    destinations: Words = Field(
        default=(),
        description="Whom Parley may call: `USER@HOST` with `*` for any characters, parted by commas. An "
        "agent's `may_call` must name them, too. Empty: nobody.",
    )
    api_key: SecretStr = Field(
        default=SecretStr(""),
        description="Who knows it may have calls placed by HTTP (`POST /api/calls`), at least 16 characters. "
        "Empty: nobody.",
    )
    max_placed: int = Field(
        default=2, ge=1, le=1000, description="Calls placed by HTTP at once, among `PARLEY_MAX_CALLS`."
    )
    calls_a_minute: int = Field(
        default=10, ge=1, le=10_000, description="Calls placed by HTTP in any minute."
    )
    calls_a_destination: int = Field(
        default=5, ge=1, le=10_000, description="Calls placed by HTTP to one address in any hour."
    )
    referrals: Words = Field(
        default=(),
        description="Where those on the phone may send the bot (REFER): `USER@HOST`, with `*` for any "
        "characters. Empty: nowhere.",
    )
    username: str = Field(
        default="",
        validate_default=True,
        description="Who we say we are where we call, and the extension's name at the registrar.",
    )
    password: SecretStr = Field(
        default=SecretStr(""), description="... and the password, where one is asked for."
    )

    auth_username: str = Field(
        default="",
        pattern=r"^[^\s;<>\"\\]*$",
        description="... and the name that goes with the password, where a trunk's is another. Empty: "
        "`PARLEY_SIP__USERNAME`.",
    )
    caller_id: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9+*#._-]{0,64}$",
        description="The number that those whom we call see (From), one that is yours at the carrier, "
        "`+4930123456`. Empty: `PARLEY_SIP__USERNAME`; for calls by the registrar it is always that.",
    )
    caller_name: str = Field(
        default="",
        pattern=r"^[^\"\\<>\x00-\x1f\x7f]{0,64}$",
        description="... and the name beside it, `Bluebird Shop`. Many carriers show their own.",
    )

    @field_validator("listen")
    @classmethod
    def _address(cls, listen: str) -> str:
        if listen:
            host, _, port = listen.rpartition(":")
            try:
                IPv4Address(host)
                good = 1 <= int(port) <= 65_535
            except ValueError:
                good = False
            if not good:
                raise ValueError("an IPv4 address and a port, such as 127.0.0.1:5060")
        return listen

    @field_validator("registrar")
    @classmethod
    def _pbx(cls, registrar: str) -> str:
        if registrar:
            Registrar.parse(registrar)  # its ValueError says how
        return registrar

    @field_validator("username")
    @classmethod
    def _extension(cls, username: str, info: ValidationInfo) -> str:
        if info.data.get("registrar") and not username:
            raise ValueError("needed to be registered: the extension's name")
        return username

    @field_validator("api_key")
    @classmethod
    def _long_enough(cls, key: SecretStr) -> SecretStr:
        said = key.get_secret_value()
        if said and (len(said) < 16 or not said.isascii()):
            raise ValueError("at least 16 characters, of ASCII: whoever guesses it can place calls")
        return key

    @field_validator("trusted", "media")
    @classmethod
    def _networks(cls, named: tuple[str, ...]) -> tuple[str, ...]:
        networks = tuple(str(IPv4Network(network)) for network in named)  # its ValueError names the fault
        if len(networks) > MOST_NETWORKS:
            raise ValueError(f"at most {MOST_NETWORKS} networks")
        return networks

    @field_validator("trusted")
    @classmethod
    def _somebody(cls, trusted: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        host = str(info.data.get("listen", "")).rpartition(":")[0]
        if host and not trusted and not info.data.get("registrar") and not IPv4Address(host).is_loopback:
            raise ValueError(f"nobody is trusted, and {host} can be reached by others; name who may call")
        return trusted

    @field_validator("transports", "codecs")
    @classmethod
    def _known(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        known = ("udp", "tcp") if info.field_name == "transports" else ("opus", "g722", "pcmu", "pcma")
        names = tuple(dict.fromkeys(name.lower() for name in names))
        if not names or not set(names) <= set(known):
            raise ValueError(f"one or more of {', '.join(known)}")
        return names

    @field_validator("headers")
    @classmethod
    def _tokens(cls, headers: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [name for name in headers if not re.fullmatch(r"[A-Za-z0-9-]{1,63}", name)]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is no header's name, such as X-Department")
        if len(headers) > MAX_HEADERS:
            raise ValueError(f"at most {MAX_HEADERS} headers")
        return headers

    @field_validator("rtp_ports", "jitter_ms")
    @classmethod
    def _in_order(cls, pair: tuple[int, int], info: ValidationInfo) -> tuple[int, int]:
        low, high, least, most = *pair, *((1024, 65_535) if info.field_name == "rtp_ports" else (0, 1000))
        if not least <= low < high <= most:
            raise ValueError(f"two numbers like {low}-{high}, the lower first, within {least} and {most}")
        return pair

    @property
    def host(self) -> str:
        """Where to listen; empty: nowhere."""
        return self.listen.rpartition(":")[0]

    @property
    def networks(self) -> list[str]:
        """Whose packets are let in, besides the registrar's."""
        if not self.registrar and self.host and IPv4Address(self.host).is_loopback:
            return ["0.0.0.0/0"]  # only this machine gets there, by whichever of its addresses
        return list(self.trusted)
