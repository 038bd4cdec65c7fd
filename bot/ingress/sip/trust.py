"""Who may reach the phone at all, decided in the kernel before the SIP stack sees a byte.

baresip-python tells nobody where a request came from, so an allow-list cannot stand behind it. It stands
before it: a classic BPF program on the listening sockets (socket(7), SO_ATTACH_FILTER; the instructions are
those of linux/filter.h) that drops every packet whose source is not in one of the trusted networks. It needs
no privilege. For TCP the filter is on the listener, so a stranger's SYN is not answered.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network
from pathlib import Path

SO_ATTACH_FILTER = 26  # asm-generic/socket.h
# A program has up to 4096 instructions; the settings name 64 at most, SDP and a registrar's name some more.
MAX_NETWORKS = 100

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand

_LOAD_SOURCE: Instruction = (
    0x20,
    0,
    0,
    (-0x100000 + 12) & 0xFFFFFFFF,
)  # a word at SKF_NET_OFF + 12 (RFC 791)
_AND, _JUMP_IF_EQUAL, _RETURN = 0x54, 0x15, 0x06
_WHOLE = 0xFFFFFFFF  # bytes of the packet to keep


def program(networks: Sequence[IPv4Network]) -> list[Instruction]:
    """Instructions that pass packets from ``networks`` and drop all others. Raises ``ValueError``."""
    if len(networks) > MAX_NETWORKS:
        raise ValueError(f"at most {MAX_NETWORKS} networks")
    code: list[Instruction] = []
    for network in networks:
        code += [
            _LOAD_SOURCE,
            (_AND, 0, 0, int(network.netmask)),
            (_JUMP_IF_EQUAL, 0, 1, int(network.network_address)),
            (_RETURN, 0, 0, _WHOLE),
        ]
    return [*code, (_RETURN, 0, 0, 0)]


def attach(listening: socket.socket, networks: Sequence[IPv4Network]) -> None:
    """Let only packets from ``networks`` in. Raises ``OSError`` where the system has no such filters."""
    instructions = b"".join(struct.pack("=HBBI", *line) for line in program(networks))
    buffer = ctypes.create_string_buffer(instructions)
    filter_of = struct.pack("@HP", len(instructions) // 8, ctypes.addressof(buffer))  # struct sock_fprog
    listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filter_of)


def own_sockets(port: int) -> Iterator[socket.socket]:
    """This process's IPv4 sockets on ``port``; what is set on them is set on the stack's own."""
    for entry in list(Path("/proc/self/fd").iterdir()):
        try:
            copy = os.dup(int(entry.name))
        except OSError:
            continue  # closed meanwhile
        try:
            with socket.socket(fileno=copy) as found:
                if found.family == socket.AF_INET and found.getsockname()[1] == port:
                    yield found
        except OSError:
            os.close(copy)  # not a socket
