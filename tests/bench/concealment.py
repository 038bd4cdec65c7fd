"""What stands in for lost packets, and what is understood of it: ``python -m tests.bench.concealment``.

Festival's voices ask known wordings over Opus as browsers send it (32 kbit/s, 20 ms, for speech) and over
G.711. Packets are lost alone or in bursts of three on average (Gilbert's model), the same ones each way:

* Opus: the last packet twice, then silence; libopus's own concealment, as the call's jitter buffer asks for
  it; and in-band FEC, for which FFmpeg's decoder cannot be asked, so libopus itself is, in
  PyAV's wheel.
* G.711: the last frame twice, then silence; and the last pitch period, as the phone's line has it.

What is told is the distance between log-mels of a frame that was lost (or the next) while somebody spoke and
of the same frame of the line without losses, whether webrtcvad still takes it for what it was, and at 20 %
how many of nano's answers are right, by its text.
"""

from __future__ import annotations

import argparse
import ctypes
import random
import secrets
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import soxr
import webrtcvad
from aiortc.codecs import get_decoder
from aiortc.jitterbuffer import JitterFrame
from aiortc.rtcrtpparameters import RTCRtpCodecParameters
from av import AudioCodecContext, AudioFrame, CodecContext
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from bot.ingress.sip.resampler import Resampler
from model_runtime.listening.features import log_mel
from model_runtime.protocol import INPUT_RATE
from model_runtime.training.gate import Caller
from model_runtime.training.synthesise import FESTIVAL, Voice, speak
from model_runtime.training.texts import Question, intents, question, shop
from pipeline.concealment import Concealer
from pipeline.jitter import REPEATS, opus_stand_ins
from pipeline.segmenter import FRAME_SAMPLES as FRAME
from tests.bench import report
from tests.bench.duplex.line import Line
from tests.bench.engine import NANO
from tests.e2e.sipp import mu_law

OPUS_RATE, OPUS_FRAME = 48_000, 960
OPUS = RTCRtpCodecParameters(mimeType="audio/opus", clockRate=OPUS_RATE, channels=2, payloadType=96)
OPUS_SILENCE = b"\xf8\xff\xfe"  # one frame of 20 ms that decodes to silence
PCMU = RTCRtpCodecParameters(mimeType="audio/pcmu", clockRate=8000, channels=1, payloadType=0)
LINES = [Line(), *(Line(loss, burst) for burst in (1.0, 3.0) for loss in (0.05, 0.1, 0.2))]
ASKED_AT = 0.2  # loss at which nano is asked
DECIBELS = 40.0  # in one unit of ``log_mel``
HEARD_DB = -40.0  # of full scale: a frame below is no speech
Wave = NDArray[np.float32]
Pcm = NDArray[np.int16]
Lost = Sequence[bool]


def said(one: Question, draw: random.Random) -> Wave:
    """The question, 16 kHz, with a little silence around it."""
    voice = Voice("festival", draw.choice(FESTIVAL), pace=draw.uniform(0.9, 1.15))
    with tempfile.TemporaryDirectory() as scratch:
        pcm, _ = speak(one.words, voice, Path(scratch))
    return around(np.asarray(pcm / np.float32(32768), dtype=np.float32))


def around(wave: Wave) -> Wave:
    """Half of full scale, 200 ms before and 400 ms after, whole frames."""
    padded = np.pad(wave * np.float32(0.5 / np.abs(wave).max()), (3200, 6400))
    return padded[: len(padded) // FRAME * FRAME].astype(np.float32)


def opus(wave: Wave, fec: bool) -> list[bytes]:
    """Packets of 20 ms, as a browser's encoder makes them."""
    encoder = CodecContext.create("libopus", "w")
    assert isinstance(encoder, AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format, encoder.bit_rate = OPUS_RATE, "mono", "s16", 32_000
    encoder.options = {"application": "voip"} | ({"fec": "1", "packet_loss": "10"} if fec else {})
    pcm = (np.clip(soxr.resample(wave, INPUT_RATE, OPUS_RATE), -1, 1) * 32767).astype(np.int16)
    packets = []
    for at in range(0, len(pcm), OPUS_FRAME):
        frame = AudioFrame.from_ndarray(pcm[None, at : at + OPUS_FRAME], "s16", "mono")
        frame.sample_rate = OPUS_RATE
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    return packets


def decoded(payloads: Sequence[bytes], codec: RTCRtpCodecParameters) -> Pcm:
    """[n, samples]: by aiortc's decoder, one channel."""
    decoder, heard = get_decoder(codec), []
    for number, payload in enumerate(payloads):
        (frame,) = decoder.decode(JitterFrame(payload, number * codec.clockRate // 50))
        assert isinstance(frame, AudioFrame)
        heard.append(frame.to_ndarray().reshape(-1, len(frame.layout.channels))[:, 0])
    return np.array(heard)


def opus_with(stand_ins: Callable[[bytes, int], bytes]) -> Callable[[list[bytes], Lost], Wave]:
    """Lost packets by what ``stand_ins`` makes of the last one for the nth in a row."""

    def heard(packets: list[bytes], lost: Lost) -> Wave:
        given, last, nth = [], OPUS_SILENCE, 0
        for packet, gone in zip(packets, lost, strict=True):
            nth = nth + 1 if gone else 0
            last = last if gone else packet
            given.append(stand_ins(last, nth) if gone else packet)
        pcm = decoded(given, OPUS).ravel() / np.float32(32768)
        return np.asarray(soxr.resample(pcm, OPUS_RATE, INPUT_RATE), np.float32)

    return heard


def opus_fec(packets: list[bytes], lost: Lost) -> Wave:
    """Lost packets by what the next one says of them, where that came."""
    (library,) = (Path(av.__file__).parents[1] / "av.libs").glob("libopus-*")
    libopus, fault = ctypes.CDLL(str(library)), ctypes.c_int()
    libopus.opus_decoder_create.restype = ctypes.c_void_p
    decoder = ctypes.c_void_p(libopus.opus_decoder_create(INPUT_RATE, 1, ctypes.byref(fault)))
    heard, pcm = [], (ctypes.c_int16 * FRAME)()
    for number, (packet, gone) in enumerate(zip(packets, lost, strict=True)):
        told = gone and number + 1 < len(packets) and not lost[number + 1]
        data = packets[number + 1] if told else b"" if gone else packet
        libopus.opus_decode(decoder, data or None, len(data), pcm, FRAME, int(told))
        heard.append(np.array(pcm, np.int16))
    libopus.opus_decoder_destroy(decoder)
    return (np.concatenate(heard) / 32768).astype(np.float32)


class Repeated:
    """What a phone's line had before: the last frame twice, then silence."""

    def __init__(self) -> None:
        self._last, self._nth = bytes(2 * FRAME), 0

    def heard(self, pcm: bytes) -> bytes:
        self._last, self._nth = pcm, 0
        return pcm

    def lost(self, count: int) -> bytes:
        self._nth += 1
        return self._last if self._nth <= REPEATS else bytes(2 * count)


def frames_with(kind: type[Concealer] | type[Repeated]) -> Callable[[Pcm, Lost], Wave]:
    """A phone's frames [n, 160], resampled without the lost ones, which a concealer makes up for."""

    def heard(line: Pcm, lost: Lost) -> Wave:
        concealer, resampler = kind(), Resampler(8000, 1, INPUT_RATE, 1)
        given = [
            concealer.lost(FRAME) if gone else concealer.heard(resampler(frame.tobytes()))
            for frame, gone in zip(line, lost, strict=True)
        ]
        return (np.frombuffer(b"".join(given), np.int16) / 32768).astype(np.float32)

    return heard


def ways(wave: Wave) -> dict[str, Callable[[Lost], Wave]]:
    """What is heard of ``wave``, by how what was lost is made up for."""
    plain, protected = opus(wave, fec=False), opus(wave, fec=True)
    eighth = soxr.resample(wave, INPUT_RATE, 8000)
    phone = decoded([mu_law(eighth[at : at + 160]) for at in range(0, len(eighth), 160)], PCMU)
    repeated = opus_with(lambda last, nth: last if nth <= REPEATS else OPUS_SILENCE)
    concealed = opus_with(lambda last, nth: opus_stand_ins(last, 1)[0])
    repeated_frames, concealed_frames = frames_with(Repeated), frames_with(Concealer)
    return {
        "Opus, repeated": lambda lost: repeated(plain, lost),
        "Opus, concealed": lambda lost: concealed(plain, lost),
        "Opus, FEC": lambda lost: opus_fec(protected, lost),
        "G.711, repeated": lambda lost: repeated_frames(phone, lost),
        "G.711, pitch": lambda lost: concealed_frames(phone, lost),
    }


def astray(heard: Wave, whole: Wave, lost: Lost) -> tuple[list[float], list[bool]]:
    """For frames that were spoken in and lost or came next: the distance of log-mels; for the lost: a voice?

    The distance is the mean over mels, in dB.
    """
    frames = whole[: len(lost) * FRAME].reshape(-1, FRAME)
    spoken = 10 * np.log10((frames**2).mean(axis=1) + 1e-12) > HEARD_DB
    away = DECIBELS * np.abs(np.asarray(log_mel(heard) - log_mel(whole))).mean(axis=0)
    near = np.array(lost) | np.roll(lost, 1)
    same = voiced(heard) == voiced(whole)
    by_frame = away[: 2 * len(lost)].reshape(-1, 2).mean(axis=1)
    return by_frame[near & spoken].tolist(), same[: len(lost)][np.array(lost)].tolist()


def voiced(wave: Wave) -> NDArray[np.bool_]:
    """By webrtcvad, as the segmenter has it, of each frame."""
    vad, pcm = webrtcvad.Vad(3), (wave * 32767).astype("<i2")
    frames = pcm[: len(pcm) // FRAME * FRAME].reshape(-1, FRAME)
    return np.array([vad.is_speech(frame.tobytes(), INPUT_RATE) for frame in frames])


@dataclass
class Found:
    """What became of one way to make up for one line's losses."""

    away: list[float] = field(default_factory=list)  # dB, of each frame
    same: list[bool] = field(default_factory=list)
    right: int = 0  # answers


def main() -> None:
    """Print the tables, write ``build/bench/concealment.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=24)
    parser.add_argument("--seed", type=int, help="to make a set again (default: a new one)")
    options = parser.parse_args()
    seed = secrets.randbelow(10**8) if options.seed is None else options.seed
    console, where, draw = Console(), report.machine(), random.Random(seed)
    caller = Caller(NANO)
    found: dict[Line, dict[str, Found]] = {line: {} for line in LINES}
    for number in tqdm(range(options.questions), desc="questions"):
        one = question(draw.choice(intents()), draw)
        wave = said(one, draw)
        for way, hear in ways(wave).items():
            whole = hear([False] * (len(wave) // FRAME))
            for line, ones in found.items():
                lost = losses(line, len(wave) // FRAME, random.Random(f"{seed}/{number}/{line}"))
                heard, here = hear(lost), ones.setdefault(way, Found())
                away, same = astray(heard, whole, lost)
                here.away += away
                here.same += same
                if line.loss in (0.0, ASKED_AT):
                    reply, _ = caller.write(heard, seed * 100_000 + number, greeted=False)
                    here.right += reply.text.strip() == shop().answer(one.intent, "")
    tell(found, options.questions, seed, console)
    metrics = [
        {"loss": line.loss, "burst": line.burst, "way": way, "log_mel_db": mean(here.away)}
        | {"same_voice": mean(here.same), "right": here.right}
        for line, ones in found.items()
        for way, here in ones.items()
    ]
    about = {"seed": seed, "asked": options.questions, "lines": metrics}
    console.print(report.write("concealment", where, about, []))


def losses(line: Line, count: int, draw: random.Random) -> list[bool]:
    """Which of so many packets are lost; never the first."""
    lost = [False]
    while len(lost) < count:
        lost.append(line.loses(lost[-1], draw))
    return lost


def mean(values: Sequence[float]) -> float | None:
    """Of none: None."""
    return round(float(np.mean(values)), 3) if values else None


def tell(found: dict[Line, dict[str, Found]], asked: int, seed: int, console: Console) -> None:
    """Print a table of each measure, a column for each way."""
    answers = f"answered rightly, of {asked}"
    measures: dict[str, Callable[[Found], object]] = {
        "log-mel off, dB": lambda here: mean(here.away),
        "a voice or none, as it was": lambda here: mean(here.same),
        answers: lambda here: here.right,
    }
    for name, measure in measures.items():
        shown = Table("lost", "in a row", *next(iter(found.values())), title=f"{name}, seed {seed}")
        for line, ones in found.items():
            if line.loss in (0.0, ASKED_AT) if name == answers else line.loss > 0:
                cells = (str(measure(here)) for here in ones.values())
                shown.add_row(f"{line.loss:.0%}", f"{line.burst:g}", *cells)
        console.print(shown)


if __name__ == "__main__":
    main()
