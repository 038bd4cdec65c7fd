"""Whose sound and keys are heard in a call: of the address that its SDP names, and of networks beside it.

The stack takes RTP from whoever sends it, on sockets that are bound to every address, whatever it listens
on. So they get filters of their own (``trust``), new ones whenever the far end says in SDP where it is. Which
sockets a call has, and what its SDP says, baresip-python (0.5) does not tell; its extension is baresip and
libre whole, and exports their functions, so those are asked, under the lock by which libre lets other threads
in (``refusal``).
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Sequence
from functools import cache
from ipaddress import IPv4Address, IPv4Network

from baresip import _native

from bot.ingress.sip.trust import attach

_EACH_CALL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)  # baresip.h, call_list_h
_A_POINTER_OF_A_POINTER = (
    *("call_audio", "call_video", "audio_strm", "video_strm"),
    *("stream_sdpmedia", "sdp_media_raddr", "stream_rtp_sock", "rtp_sock", "rtcp_sock"),
)


@cache
def _baresip() -> ctypes.CDLL | None:
    library = ctypes.CDLL(_native.__file__)
    try:
        for name in _A_POINTER_OF_A_POINTER:
            function = getattr(library, name)
            function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_void_p
        library.uag_filter_calls.argtypes = [_EACH_CALL, ctypes.c_void_p, ctypes.c_void_p]
        library.uag_filter_calls.restype = None
        library.call_id.argtypes, library.call_id.restype = [ctypes.c_void_p], ctypes.c_char_p
        library.sa_af.argtypes, library.sa_in.argtypes = [ctypes.c_void_p], [ctypes.c_void_p]
        library.sa_in.restype = ctypes.c_uint32
        library.udp_sock_fd.argtypes = [ctypes.c_void_p]
        library.re_thread_enter.argtypes = library.re_thread_leave.argtypes = []
    except AttributeError:
        return None
    return library


def admit(sip_call_id: str, networks: Sequence[IPv4Network]) -> list[IPv4Address] | None:
    """Let sound in from where the call's SDP says that its far end is and from ``networks``; from no others.

    Returns the addresses that SDP names: none before the far end has said any, and in a hold that takes it
    back (0.0.0.0). None: nothing was done, since the stack cannot be asked. Raises ``OSError`` as
    ``trust.attach``.
    """
    library = _baresip()
    if library is None or library.re_thread_enter() != 0:
        return None
    try:
        heard: list[IPv4Address] = []
        # Another call of the same Call-ID has its own SDP and sockets, and gets its own filter.
        for call in _calls(library, sip_call_id.encode(errors="replace")):
            streams = (
                library.audio_strm(library.call_audio(call)),
                library.video_strm(library.call_video(call)),  # never shown, but a socket all the same
            )
            for stream in filter(None, streams):
                heard += _admit(library, stream, networks)
        return heard
    finally:
        library.re_thread_leave()


def _calls(library: ctypes.CDLL, sip_call_id: bytes) -> list[int]:
    found: list[int] = []

    def look(call: int, _: int) -> None:
        # (The stack tells only the beginning of a long one.)
        if (library.call_id(call) or b"").startswith(sip_call_id):
            found.append(call)

    library.uag_filter_calls(_EACH_CALL(look), None, None)
    return found


def _admit(library: ctypes.CDLL, stream: int, networks: Sequence[IPv4Network]) -> list[IPv4Address]:
    said = library.sdp_media_raddr(library.stream_sdpmedia(stream))
    heard = [IPv4Address(library.sa_in(said))] if library.sa_af(said) == socket.AF_INET else []
    if heard == [IPv4Address(0)]:
        heard = []
    rtp = library.stream_rtp_sock(stream)
    for used in (library.rtp_sock(rtp), library.rtcp_sock(rtp)):
        with socket.socket(fileno=os.dup(library.udp_sock_fd(used))) as copy:
            attach(copy, [*map(IPv4Network, heard), *networks])
    return heard
