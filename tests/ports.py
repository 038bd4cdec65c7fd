"""Ports for servers of the tests' own."""

from __future__ import annotations

import random
import socket

# Below the range from which Linux serves whoever asks for any port (ip_local_port_range begins at 32768):
# otherwise a client's socket may take a port between here and the server it was meant for. Above it come
# only those that tests give to audio (below 24000).
_FIRST, _LAST = 24_000, 32_766
_given: set[int] = set()


def free_port() -> int:
    """An even port that nobody holds on any address, over UDP or TCP, never the same one twice."""
    for port in random.sample(range(_FIRST, _LAST + 1, 2), 500):
        if port not in _given and all(map(_is_free, (port, port), (socket.SOCK_STREAM, socket.SOCK_DGRAM))):
            _given.add(port)
            return port
    raise RuntimeError(f"There is no free port between {_FIRST} and {_LAST}.")


def _is_free(port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET, kind) as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True
