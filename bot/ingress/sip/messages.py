"""What the media process and the phone's worker say to each other: msgpack frames on a private socket pair.

Each frame is a length (4 bytes, big-endian) and one of the structs below, told apart by its ``type``. What
concerns a call names it. Audio is 20 ms a message: 16 kHz from the line, 24 kHz to it, mono
s16le, so that neither end of the pipeline resamples.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from model_runtime.protocol import INPUT_RATE, OUTPUT_RATE

FRAME_MS = 20
HEARD_BYTES = INPUT_RATE * FRAME_MS // 1000 * 2
SPOKEN_BYTES = OUTPUT_RATE * FRAME_MS // 1000 * 2
WINDOW = 3  # frames that may be on their way to the line: 60 ms ride out a stutter, and are soon silent
ALIVE_EVERY_S = 2.0
MAX_FRAME_BYTES = 64 * 1024  # no honest frame comes near


class BadFrame(Exception):  # noqa: N818 - reads as what it is
    """The peer does not speak this protocol."""


# --- media process -> worker ---


class Configure(msgspec.Struct, tag="configure", frozen=True):
    """The first frame: how to run the stack. Answered by ``Listening`` or ``Failed``."""

    host: str
    port: int  # 0: any free one
    transports: list[str]  # "udp", "tcp"
    trusted: list[str]  # networks whose packets are let in (CIDR)
    codecs: list[str]
    rtp_ports: tuple[int, int]
    jitter_ms: tuple[int, int]
    rtp_timeout_s: int
    media: list[str] = []  # networks whose RTP is let in, beside the address that a call's SDP names (CIDR)
    headers: list[str] = []  # of calls that come in, which ``Incoming`` is to tell
    username: str = ""  # for digest authentication where we call (RFC 8760)
    password: str = ""
    auth_username: str = ""  # in digest authentication; empty: ``username``
    caller_id: str = ""  # the user of the From header where we call; empty: ``username``
    caller_name: str = ""  # ... and its display name
    referrals: list[str] = []  # where the far end may send us (REFER)
    registrar: str = ""  # where we are an extension by that name; its addresses are let in, too


class Dial(msgspec.Struct, tag="dial", frozen=True):
    """Call ``uri``. The outcome is ``Established`` or ``Closed``. ``headers`` go into the INVITE.

    ``early``: what is heard before the answer (183, RFC 3960) is told, too.
    """

    call: str
    uri: str
    headers: dict[str, str] = {}
    early: bool = False


class Answer(msgspec.Struct, tag="answer", frozen=True):
    """Accept an incoming call: 200."""

    call: str


class Reject(msgspec.Struct, tag="reject", frozen=True):
    """Refuse an incoming call: busy (486) or not for now (503), and when it is worth trying again."""

    call: str
    status: Literal[486, 503] = 486
    retry_after_s: int = 10


class HangUp(msgspec.Struct, tag="hang_up", frozen=True):
    """End a call: BYE or CANCEL, whichever is due."""

    call: str


class Hold(msgspec.Struct, tag="hold", frozen=True):
    """Put the far end on hold, or take it back (re-INVITE). Answered by ``Outcome``."""

    call: str
    number: int
    on: bool


class SendDigits(msgspec.Struct, tag="send_digits", frozen=True):
    """Press keys (RFC 4733). Answered by ``Outcome`` after the last one."""

    call: str
    number: int
    digits: str


class Transfer(msgspec.Struct, tag="transfer", frozen=True):
    """Have the far end call ``uri`` instead (REFER, RFC 3515). Answered by ``Outcome``."""

    call: str
    number: int
    uri: str


class Speak(msgspec.Struct, tag="speak", frozen=True):
    """20 ms for the far end to hear. At most ``WINDOW`` more than ``Heard.taken`` has told."""

    call: str
    pcm: bytes


ToWorker = Configure | Dial | Answer | Reject | HangUp | Hold | SendDigits | Transfer | Speak

# --- worker -> media process ---


class Listening(msgspec.Struct, tag="listening", frozen=True):
    """The stack runs."""

    host: str
    port: int


class Failed(msgspec.Struct, tag="failed", frozen=True):
    """The stack cannot run; the worker ends. ``reason`` is for a person."""

    reason: str


class Alive(msgspec.Struct, tag="alive", frozen=True):
    """Every ``ALIVE_EVERY_S``, while the stack does as it is told."""


class Registered(msgspec.Struct, tag="registered", frozen=True):
    """Whether we are registered now: when that changes. ``fault``, for a person: why not."""

    registrar: str
    fault: str = ""


class Incoming(msgspec.Struct, tag="incoming", frozen=True):
    """Somebody calls; they hear it ring (180) already. All strings are the caller's own word."""

    call: str
    caller: str
    called: str
    sip_call_id: str
    headers: dict[str, str] = {}  # those of ``Configure.headers`` that it has


class Ringing(msgspec.Struct, tag="ringing", frozen=True):
    """The far end of a call of ours rings."""

    call: str


class Established(msgspec.Struct, tag="established", frozen=True):
    """Media flows."""

    call: str


class Heard(msgspec.Struct, tag="heard", frozen=True):
    """What the far end said: whole 20 ms frames or none. ``taken``: frames of ``Speak`` sent so far."""

    call: str
    pcm: bytes
    taken: int


class Digit(msgspec.Struct, tag="digit", frozen=True):
    """The far end pressed a key: ``0``-``9``, ``A``-``D``, ``*``, ``#``."""

    call: str
    digit: str


class Held(msgspec.Struct, tag="held", frozen=True):
    """The far end has put us on hold, or taken us back."""

    call: str
    on: bool


class Outcome(msgspec.Struct, tag="outcome", frozen=True):
    """What came of request ``number``; ``error`` is empty if it was done."""

    call: str
    number: int
    error: str = ""


class Quality(msgspec.Struct, frozen=True):
    """What the stack counted of a call's media."""

    sent_packets: int = 0
    received_packets: int = 0
    lost_packets: int = 0  # of the far end's
    jitter_ms: float = 0.0
    concealed_frames: int = 0  # 20 ms each that stand in for lost ones, or for ones that came too late
    late_packets: int = 0  # came after their place in the jitter buffer was played
    buffer_ms: int = 0  # what the jitter buffer adds
    mos: float = 0.0  # an estimate (ITU-T G.107, simplified)


class Closed(msgspec.Struct, tag="closed", frozen=True):
    """The call is over, whoever ended it. ``reason`` is the stack's: a status line or an error."""

    call: str
    reason: str
    quality: Quality = Quality()


CallNews = Ringing | Established | Heard | Digit | Held | Outcome | Closed
FromWorker = Listening | Failed | Alive | Registered | Incoming | CallNews

_encoder = msgspec.msgpack.Encoder()
to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


def encode(message: ToWorker | FromWorker) -> bytes:
    """One frame, its length before it."""
    body = _encoder.encode(message)
    return len(body).to_bytes(4, "big") + body


class Deframer:
    """Cuts a stream of bytes into the bodies of frames."""

    def __init__(self) -> None:
        """Nothing received."""
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies that ``data`` completes. Raises ``BadFrame`` for a length that none has."""
        self._buffer += data
        while len(self._buffer) >= 4:
            length = int.from_bytes(self._buffer[:4], "big")
            if length > MAX_FRAME_BYTES:
                raise BadFrame(f"a frame of {length} bytes")
            if len(self._buffer) < 4 + length:
                return
            body = bytes(self._buffer[4 : 4 + length])
            del self._buffer[: 4 + length]
            yield body
