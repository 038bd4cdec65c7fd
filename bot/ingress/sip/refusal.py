"""Refusing a call with a status and a Retry-After, which baresip-python (0.5) cannot say: it has 486 alone.

Its extension is baresip and libre whole, and exports their functions, so baresip's own is called here, under
the lock by which libre lets other threads in (``re_thread_enter``). Where one of them is missing, or the call
is not the one meant, the caller hears 486 as ever.
"""

from __future__ import annotations

import ctypes
from functools import cache

from baresip import _native

REASONS = {486: "Busy Here", 503: "Service Unavailable"}
_INCOMING = 1  # baresip.h, enum call_state


@cache
def _baresip() -> ctypes.CDLL | None:
    library = ctypes.CDLL(_native.__file__)
    try:
        library.uag_call_find.restype = library.call_get_ua.restype = ctypes.c_void_p
        library.call_peeruri.restype = ctypes.c_char_p
        library.ua_hangupf.restype = None
        library.uag_call_find.argtypes = [ctypes.c_char_p]
        library.call_get_ua.argtypes = library.call_peeruri.argtypes = [ctypes.c_void_p]
        library.call_state.argtypes = [ctypes.c_void_p]
        library.ua_hangupf.argtypes = [
            *(ctypes.c_void_p, ctypes.c_void_p),  # ua, call
            *(
                ctypes.c_uint16,
                ctypes.c_char_p,
                ctypes.c_char_p,
            ),  # status, reason, the rest in libre's format
        ]
        library.re_thread_enter.argtypes = library.re_thread_leave.argtypes = []
    except AttributeError:
        return None
    return library


def refuse(sip_call_id: str, peer: str, status: int, retry_after_s: int) -> bool:
    """Answer the INVITE that still rings here, of that Call-ID and from ``peer``. False: nothing was said.

    ``status`` is one of ``REASONS``; ``retry_after_s``: seconds (RFC 3261, section 20.33).
    """
    library = _baresip()
    if library is None or library.re_thread_enter() != 0:
        return False
    try:
        call = library.uag_call_find(sip_call_id.encode(errors="replace"))
        # A Call-ID is the caller's word, and there may be a call of somebody else's by the same one.
        if not call or library.call_state(call) != _INCOMING:
            return False
        if library.call_peeruri(call) != peer.encode(errors="replace"):
            return False
        rest = f"Retry-After: {retry_after_s:d}\r\nContent-Length: 0\r\n\r\n"
        library.ua_hangupf(library.call_get_ua(call), call, status, REASONS[status].encode(), rest.encode())
        return True
    finally:
        library.re_thread_leave()
