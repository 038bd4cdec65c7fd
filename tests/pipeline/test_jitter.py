"""The jitter buffer: order, holes, and the private names of aiortc that it hangs on."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
from aiortc import RTCPeerConnection
from aiortc.codecs import get_decoder
from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from aiortc.rtp import RtpPacket
from av import AudioCodecContext, AudioFrame, CodecContext
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline import jitter
from pipeline.concealment import LONGEST
from pipeline.jitter import (
    G711_SILENCE,
    REORDER_PACKETS,
    REPEATS,
    AudioJitterBuffer,
    g711_stand_ins,
    opus_stand_ins,
)
from pipeline.onset import Onset
from pipeline.segmenter import RATE, Segmenter

QUIET = b"quiet"
OPUS = RTCRtpCodecParameters(mimeType="audio/opus", clockRate=48000, channels=2, payloadType=96)


def packet(number: int) -> RtpPacket:
    made = RtpPacket(payload_type=96, sequence_number=number % (1 << 16), timestamp=number * 960 % (1 << 32))
    made._data = str(number).encode()  # type: ignore[attr-defined] # as the receiver does
    return made


class Receiver:
    """Feeds a buffer and collects what would be decoded."""

    def __init__(self) -> None:
        self.out: list[JitterFrame] = []
        self.buffer = AudioJitterBuffer(lambda _, frame: self.out.append(frame), g711_stand_ins(QUIET))

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
    padding._data = b""  # type: ignore[attr-defined] # which the receiver sets
    receiver.feed(1)
    assert receiver.buffer.add(padding) == (False, None)
    assert receiver.feed(3, 4, 5) == [b"1", b"3", b"4", b"5"]


@pytest.mark.parametrize("name", ["pcmu", "pcma"])
def test_the_silence_of_g711_is_silence_to_its_decoder(name: str) -> None:
    codec = RTCRtpCodecParameters(mimeType=f"audio/{name}", clockRate=8000, channels=1, payloadType=96)
    (frame,) = get_decoder(codec).decode(JitterFrame(G711_SILENCE[name], 0))
    assert isinstance(frame, AudioFrame)
    assert frame.samples == 160
    assert np.abs(frame.to_ndarray()).max() <= 8


def encoded(sound: NDArray[np.float64]) -> list[bytes]:
    """Packets of 20 ms of a sound at 48 kHz, mono, as a browser's encoder is set."""
    encoder = CodecContext.create("libopus", "w")
    assert isinstance(encoder, AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format = 48_000, "mono", "s16"
    encoder.bit_rate, encoder.options = 32_000, {"application": "voip"}
    packets = []
    for at in range(0, len(sound), 960):
        frame = AudioFrame.from_ndarray(sound[None, at : at + 960].astype(np.int16), "s16", "mono")
        frame.sample_rate = 48_000
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    return packets


def decoded(payloads: list[bytes]) -> NDArray[np.float64]:
    """[n, 960]: what aiortc makes of each, its left channel."""
    decoder, heard = get_decoder(OPUS), []
    for number, payload in enumerate(payloads):
        (frame,) = decoder.decode(JitterFrame(payload, number * 960))
        assert isinstance(frame, AudioFrame)
        assert (frame.pts, frame.samples, frame.layout.name) == (number * 960, 960, "stereo")
        heard.append(frame.to_ndarray().reshape(-1, 2)[:, 0].astype(float))
    return np.array(heard)


def test_libopus_goes_on_with_a_vowel_where_packets_were_lost() -> None:
    """Through aiortc's own decoder: at its pitch, ever more faintly, and what follows is as it was."""
    phase = 2 * np.pi * 150 * np.arange(48_000) / 48_000
    packets = encoded(4000 * np.sum([np.sin(n * phase + n) / n for n in range(1, 11)], axis=0))
    whole = decoded(packets)
    for missing in (1, 2, LONGEST):
        gap = opus_stand_ins(packets[24], missing)
        heard = decoded([*packets[:25], *gap, *packets[25 + missing :]])
        assert (heard[:25] == whole[:25]).all()
        likeness = np.corrcoef(heard[25], whole[25])[0, 1]
        assert likeness > 0.8
        levels = np.sqrt((heard**2).mean(axis=1))
        assert levels[25] > 0.5 * levels[24]
        assert missing < LONGEST or levels[24 + missing] < 0.4 * levels[24]
        assert np.corrcoef(heard[28 + missing], whole[28 + missing])[0, 1] > 0.9
        steepest = np.abs(np.diff(whole[20:].ravel())).max()
        assert np.abs(np.diff(heard[20:].ravel())).max() < 1.5 * steepest


@pytest.mark.parametrize("missing", [1, 2, 4])
def test_losses_in_noise_are_neither_a_voice_nor_the_beginning_of_a_sound(missing: int) -> None:
    for seed in range(5):
        packets = encoded(np.random.default_rng(seed).standard_normal(960 * 75) * 500)
        gap = opus_stand_ins(packets[49], missing)
        heard, whole = (
            soxr.resample(decoded(payloads).ravel(), 48_000, RATE).astype("<i2").tobytes()
            for payloads in ([*packets[:50], *gap, *packets[50 + missing :]], packets)
        )
        onset = Onset()
        onset.push(heard[: 2 * RATE - 640])
        assert not onset.push(heard[2 * RATE - 640 :])
        # webrtcvad takes the first 100 ms of any noise for a voice.
        assert Segmenter().push(heard) == Segmenter().push(whole)


def test_a_loss_in_silence_is_silence() -> None:
    packets = encoded(np.zeros(960 * 20))
    heard = decoded([*packets[:10], *opus_stand_ins(packets[9], LONGEST), *packets[10:]])
    assert np.abs(heard).max() <= 2


@pytest.mark.parametrize(
    ("last", "samples"),
    [
        (b"\x78some", 960),
        (b"\x79", 1920),
        (b"\x79four", 1920),  # two frames of equal length
        (b"\x7a\x01nd", 1920),  # two of different lengths
        (b"\x7b\x03abc", 2880),  # three, of equal length
        (b"\x7b\xc2\x01\x01ab\x00", 1920),  # two, of different lengths, one byte of padding
        (b"\x7b", 1920),  # cut off: no decoder takes it, so anything will do
    ],
)
def test_a_stand_in_lasts_as_long_as_the_packet_before_it(last: bytes, samples: int) -> None:
    (payload,) = opus_stand_ins(last, 1)
    (frame,) = get_decoder(OPUS).decode(JitterFrame(payload, 0))
    assert isinstance(frame, AudioFrame)
    assert frame.samples == samples


async def test_install_replaces_the_buffer_of_every_audio_receiver() -> None:
    """Fails when aiortc renames what ``install`` hangs on."""
    peer = RTCPeerConnection()
    try:
        peer.addTransceiver("audio")
        receiver = peer.getTransceivers()[0].receiver
        assert isinstance(vars(receiver)["_RTCRtpReceiver__jitter_buffer"], JitterBuffer)
        vars(receiver)["_RTCRtpReceiver__codecs"][96] = OPUS
        jitter.install(peer)
        buffer = vars(receiver)["_RTCRtpReceiver__jitter_buffer"]
        assert isinstance(buffer, AudioJitterBuffer)
        for number in (1, 3, 4, 5):  # one lost: three frames leave by the decoder's queue, one by add
            buffer.add(packet(number))
        queue = vars(receiver)["_RTCRtpReceiver__decoder_queue"]
        waiting = [queue.get_nowait() for _ in range(queue.qsize())]
        assert [codec.name for codec, _ in waiting] == ["opus"] * 3
        assert [frame.data for _, frame in waiting] == [opus_stand_ins(b"1", 1)[0], b"3", b"4"]
        assert [frame.timestamp for _, frame in waiting] == sorted(frame.timestamp for _, frame in waiting)
    finally:
        await peer.close()
