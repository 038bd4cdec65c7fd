"""A jitter buffer for aiortc's audio receivers that never waits long for a hole and never keeps a backlog.

aiortc 1.16 holds four packets back at all times, and a lost one until twelve more have come, after which
the backlog stays: 80 ms before any loss and 280 ms for the rest of the call after the first. Nothing behind
the decoder plays on a clock here (the engine and the segmenter count samples), so packets can go on as they
come: in order, a hole filled with stand-ins once enough later packets show that the missing one is lost
rather than late. For Opus a stand-in is a packet without sound, which has libopus conceal the loss: it goes
on with the last pitch period, fades, and leaves the decoder as the next packet expects it. Of G.711, which
no browser likes best, the last packet is repeated.

aiortc offers no hook for this. pipecat replaces the video buffer through the same private attribute; aiortc
is pinned to 1.16 and ``tests/pipeline/test_jitter.py`` holds the names used here.
"""

from __future__ import annotations

from collections.abc import Callable

from aiortc import RTCPeerConnection, RTCRtpReceiver
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtp import RtpPacket

from pipeline.concealment import LONGEST

REORDER_PACKETS = 2  # later packets that may overtake one before it is given up: 40 ms
RESTART_GAP = 1000  # packets; a jump this wide is a new stream, not a hole (20 s)
SEQUENCE = 1 << 16  # RFC 3550: sequence numbers are 16 bits
TIMESTAMP = 1 << 32  # and timestamps 32

REPEATS = 2  # a vowel bears 40 ms of repetition; after that, silence
G711_SILENCE = {"pcmu": b"\xff" * 160, "pcma": b"\xd5" * 160}  # 20 ms

StandIns = Callable[[bytes, int], list[bytes]]
"""Payloads for so many that were lost after the last one that came, at least 1."""


def opus_stand_ins(last: bytes, missing: int) -> list[bytes]:
    """``last`` with frames of no length, which stand for lost ones (RFC 6716, 3.2.1)."""
    kind, frames = last[0] & 0xFC, last[0] & 3
    if frames == 3 and len(last) > 1:  # counted: as many, of equal length, no padding
        return [bytes([last[0], last[1] & 0x3F])] * missing
    return [bytes([kind | min(frames, 1)])] * missing  # one, or two of equal length


def g711_stand_ins(silence: bytes) -> StandIns:
    """Two repetitions, then ``silence``, the payload of 20 ms."""
    return lambda last, missing: [last if nth < REPEATS else silence for nth in range(missing)]


class AudioJitterBuffer:
    """Takes RTP packets as they arrive, gives payloads in order. Duck-types
    ``aiortc.jitterbuffer.JitterBuffer``.

    Args:
        deliver: takes every payload but the one ``add`` returns, before it returns: ``(packet, timestamp,
        payload)``
            with the packet that caused it.
        stand_ins: what is given for lost ones, of one codec.
    """

    def __init__(
        self, deliver: Callable[[RtpPacket, JitterFrame], None], stand_ins: StandIns = opus_stand_ins
    ) -> None:
        """See the class."""
        self._deliver = deliver
        self._stand_ins = stand_ins
        self._expected: int | None = None  # sequence number of the next payload to give
        self._waiting: dict[int, RtpPacket] = {}  # came before their turn
        self._last = b""
        self._last_timestamp = 0
        self._unbroken = False  # the last payload given was a real one, the one before ``_expected``
        self._step = 960  # timestamp units a packet: 20 ms at 48 kHz until seen otherwise
        self.concealed = 0

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        """Take a packet; return ``(False, payload or None)`` as aiortc expects it."""
        ready = self._accept(packet)
        for frame in ready[:-1]:
            self._deliver(packet, frame)
        return False, ready[-1] if ready else None

    def _accept(self, packet: RtpPacket) -> list[JitterFrame]:
        if not packet._data:  # type: ignore[attr-defined] # depayloaded by the receiver
            return []  # to FFmpeg it would be the end of the stream: nothing after it would be decoded
        number = packet.sequence_number
        if self._expected is None:
            self._expected = number
        ahead = (number - self._expected) % SEQUENCE
        if ahead >= SEQUENCE - RESTART_GAP:
            return []  # came after its turn was given up
        if ahead > RESTART_GAP:
            self._waiting.clear()
            self._expected, self._unbroken = number, False
        self._waiting[number] = packet
        ready = self._drain()
        # What still waits, waits for a hole: give it up when enough came after it.
        while len(self._waiting) > REORDER_PACKETS:
            ready += self._conceal()
            ready += self._drain()
        return ready

    def _drain(self) -> list[JitterFrame]:
        ready: list[JitterFrame] = []
        while self._expected is not None and self._expected in self._waiting:
            packet = self._waiting.pop(self._expected)
            data: bytes = packet._data  # type: ignore[attr-defined] # as above
            gap = (packet.timestamp - self._last_timestamp) % TIMESTAMP
            if self._unbroken and 0 < gap <= 5760:  # 120 ms, Opus's longest packet: a step, not a pause
                self._step = gap
            self._unbroken = True
            self._last, self._last_timestamp = data, packet.timestamp
            self._expected = (packet.sequence_number + 1) % SEQUENCE
            ready.append(JitterFrame(data, packet.timestamp))
        return ready

    def _conceal(self) -> list[JitterFrame]:
        """Stand-ins for what is missing before the first packet that waits."""
        assert self._expected is not None
        missing = min((number - self._expected) % SEQUENCE for number in self._waiting)
        pieces = self._stand_ins(self._last, min(missing, LONGEST))
        self._expected = (self._expected + missing) % SEQUENCE
        self._unbroken = False
        self.concealed += len(pieces)
        first = missing - len(pieces) + 1  # of a longer hole the end is filled
        return [
            JitterFrame(piece, (self._last_timestamp + (first + i) * self._step) % TIMESTAMP)
            for i, piece in enumerate(pieces)
        ]


def install(peer: RTCPeerConnection) -> None:
    """Give every audio receiver of ``peer`` a buffer of ours. Call it when the peer is connected."""
    for receiver in peer.getTransceivers():
        if receiver.kind == "audio":
            _install(receiver.receiver)


def _install(receiver: RTCRtpReceiver) -> None:
    private = vars(receiver)
    codecs = private["_RTCRtpReceiver__codecs"]
    mapper = private["_RTCRtpReceiver__timestamp_mapper"]
    queue = private["_RTCRtpReceiver__decoder_queue"]

    def deliver(packet: RtpPacket, frame: JitterFrame) -> None:
        codec = codecs.get(packet.payload_type)
        if codec is not None:
            frame.timestamp = mapper.map(frame.timestamp)
            queue.put((codec, frame))

    names = [codec.name.lower() for codec in codecs.values()]
    name = next((name for name in names if name == "opus" or name in G711_SILENCE), "opus")
    stand_ins = opus_stand_ins if name == "opus" else g711_stand_ins(G711_SILENCE[name])
    private["_RTCRtpReceiver__jitter_buffer"] = AudioJitterBuffer(deliver, stand_ins)
