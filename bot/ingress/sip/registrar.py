"""The PBX that we are an extension of, by name."""

from __future__ import annotations

import re
from dataclasses import dataclass

_REGISTRAR = re.compile(
    r"(?P<host>[A-Za-z0-9.-]{1,253})(?P<port>:\d{1,5})?(?P<transport>;transport=(?:udp|tcp))?"
)


@dataclass(frozen=True)
class Registrar:
    """``HOST``, ``HOST:PORT``, either with ``;transport=tcp``."""

    host: str
    port: str  # with its colon; empty: the default
    transport: str

    @classmethod
    def parse(cls, text: str) -> Registrar:
        """Raises ``ValueError``."""
        found = _REGISTRAR.fullmatch(text)
        if found is None:
            raise ValueError("a host, with a port if it is not 5060: pbx.example.org or 192.0.2.10:5080")
        return cls(
            found["host"].lower(), found["port"] or "", (found["transport"] or "=udp").rpartition("=")[2]
        )

    @property
    def domain(self) -> str:
        """As an address of record names it."""
        return f"{self.host}{self.port}"

    def names(self, uri: str) -> bool:
        """Whether ``uri`` is somebody of this PBX."""
        return re.split("[;>?]", uri.rpartition("@")[2])[0].lower() == self.domain
