"""The jitter buffer: order, holes, and the private names of aiortc that it hangs on."""

from __future__ import annotations

from aiortc import RTCPeerConnection
from aiortc.codecs import get_decoder
from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtp import RtpPacket
from av import AudioFrame
from hypothesis import given
from hypothesis import strategies as st

from pipeline import jitter
from pipeline.concealment import LONGEST, REPEATS
from pipeline.jitter import OPUS_SILENCE, REORDER_PACKETS, AudioJitterBuffer

QUIET = b"quiet"


def packet(number: int) -> RtpPacket:
    made = RtpPacket(payload_type=96, sequence_number=number % (1 << 16), timestamp=number * 960 % (1 << 32))
    made._data = str(number).encode()  # type: ignore[attr-defined] # as the receiver does
    return made


class Receiver:
    """Feeds a buffer and collects what would be decoded."""

    def __init__(self) -> None:
        self.out: list[JitterFrame] = []
        self.buffer = AudioJitterBuffer(lambda _, frame: self.out.append(frame), QUIET)

    def feed(self, *numbers: int) -> list[bytes]:
        """What comes out at once."""
        before = len(self.out)
        for number in numbers:
            picture_lost, frame = self.buffer.add(packet(number))
            assert picture_lost is False
            if frame is not None:
                self.out.append(frame)
        return [frame.data for frame in self.out[before:]]


def test_packets_in_order_come_out_at_once() -> None:
    receiver = Receiver()
    for number in range(5, 50):
        assert receiver.feed(number) == [str(number).encode()]


def test_packets_out_of_order_come_out_in_order() -> None:
    receiver = Receiver()
    assert receiver.feed(1, 3) == [b"1"]
    assert receiver.feed(2) == [b"2", b"3"]


def test_a_lost_packet_is_replaced_and_no_backlog_stays() -> None:
    receiver = Receiver()
    assert receiver.feed(1, 3, 4) == [b"1"]
    assert receiver.feed(5) == [b"1", b"3", b"4", b"5"]
    assert receiver.feed(6) == [b"6"]
    assert receiver.buffer.concealed == 1
    assert receiver.feed(2) == []  # too late
    stamps = [frame.timestamp for frame in receiver.out]
    assert stamps == [number * 960 for number in range(1, 7)]


def test_a_long_hole_is_filled_with_silence_and_in_part() -> None:
    receiver = Receiver()
    receiver.feed(1)
    out = receiver.feed(*range(51, 51 + REORDER_PACKETS + 1))
    assert out[:LONGEST] == [b"1"] * REPEATS + [QUIET] * (LONGEST - REPEATS)
    assert out[LONGEST:] == [b"51", b"52", b"53"]
    stamps = [frame.timestamp for frame in receiver.out]
    assert stamps == sorted(stamps)


def test_two_holes_are_given_up_one_after_the_other() -> None:
    receiver = Receiver()
    assert receiver.feed(1, 3, 5, 6) == [b"1", b"1", b"3"]
    assert receiver.feed(7) == [b"3", b"5", b"6", b"7"]


def test_numbers_wrap_around() -> None:
    receiver = Receiver()
    around = [65534, 65535, 65536, 65537]
    assert receiver.feed(*around) == [str(number).encode() for number in around]


def test_a_new_stream_starts_afresh() -> None:
    receiver = Receiver()
    receiver.feed(1, 2, 4)
    assert receiver.feed(30_000) == [b"30000"]
    assert receiver.feed(30_001) == [b"30001"]


@given(st.lists(st.integers(0, 200), max_size=150))
def test_whatever_comes_goes_out_in_order_and_nothing_is_kept(numbers: list[int]) -> None:
    receiver = Receiver()
    receiver.feed(*numbers)
    stamps = [frame.timestamp for frame in receiver.out]
    assert stamps == sorted(stamps)
    real = [int(frame.data) for frame in receiver.out if frame.data != QUIET]
    assert set(real) <= set(numbers)
    assert len(receiver.buffer._waiting) <= REORDER_PACKETS


def test_a_packet_without_a_payload_is_one_that_was_lost() -> None:
    """It would be the end of the stream to FFmpeg's decoder, and all that follows unheard."""
    receiver, padding = Receiver(), packet(2)
    padding._data = b""  # type: ignore[attr-defined]
    receiver.feed(1)
    assert receiver.buffer.add(padding) == (False, None)
    assert receiver.feed(3, 4, 5) == [b"1", b"3", b"4", b"5"]


def test_the_silence_it_uses_is_silence_to_the_decoder() -> None:
    codec = RTCRtpCodecParameters(mimeType="audio/opus", clockRate=48000, channels=2, payloadType=96)
    decoder = get_decoder(codec)
    for i in range(3):
        (frame,) = decoder.decode(JitterFrame(OPUS_SILENCE, i * 960))
        assert isinstance(frame, AudioFrame)
        assert frame.samples == 960
        assert not frame.to_ndarray().any()


async def test_install_replaces_the_buffer_of_every_audio_receiver() -> None:
    """Fails when aiortc renames what ``install`` hangs on."""
    peer = RTCPeerConnection()
    try:
        peer.addTransceiver("audio")
        receiver = peer.getTransceivers()[0].receiver
        assert isinstance(vars(receiver)["_RTCRtpReceiver__jitter_buffer"], JitterBuffer)
        vars(receiver)["_RTCRtpReceiver__codecs"][96] = RTCRtpCodecParameters(
            mimeType="audio/opus", clockRate=48000, channels=2, payloadType=96
        )
        jitter.install(peer)
        buffer = vars(receiver)["_RTCRtpReceiver__jitter_buffer"]
        assert isinstance(buffer, AudioJitterBuffer)
        for number in (1, 3, 4, 5):  # one lost: three frames leave by the decoder's queue, one by add
            buffer.add(packet(number))
        queue = vars(receiver)["_RTCRtpReceiver__decoder_queue"]
        assert queue.qsize() == 3
        codec, frame = queue.get_nowait()
        assert codec.name == "opus"
        assert isinstance(frame.timestamp, int)
    finally:
        await peer.close()
