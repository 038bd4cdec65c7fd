"""A call over real WebRTC on the loopback, aiortc at both ends."""

from __future__ import annotations

import asyncio
import fractions
import json
from typing import Any

import numpy as np
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription
from av import AudioFrame
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection
from pipecat.transports.smallwebrtc.transport import RawAudioTrack

from model_runtime.protocol import GROUP_SAMPLES, Done, Respond, Speech
from pipeline.call import Call, CallAgent, Fader, transport_params
from pipeline.jitter import AudioJitterBuffer
from pipeline.volume import DUCKED
from pipeline.webrtc import lower_at_the_line, webrtc_transport
from tests.pipeline.scripted_engine import ScriptedEngine, eventually

TONE = (8000 * np.sin(2 * np.pi * 450 * np.arange(GROUP_SAMPLES) / 24_000)).astype("<i2").tobytes()


class Microphone(MediaStreamTrack):
    """Silence at 48 kHz, in real time: enough for a peer to be there."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._position = 0
        self._began = asyncio.get_running_loop().time()

    async def recv(self) -> AudioFrame:
        due = self._began + self._position / 48_000
        await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))
        frame = AudioFrame.from_ndarray(np.zeros((1, 960), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48_000, self._position
        frame.time_base = fractions.Fraction(1, 48_000)
        self._position += 960
        return frame


async def test_a_greeting_is_heard_and_read_at_the_far_end() -> None:
    def script(respond: Respond) -> list[Speech | Done]:
        return [Speech(respond.turn, TONE * 3, 3, ["Good ", "day", "."]), Done(respond.turn, "end", 3)]

    messages: list[dict[str, Any]] = []
    loudest = 0
    async with ScriptedEngine(script) as engine:
        far, near = RTCPeerConnection(), SmallWebRTCConnection()
        channel = far.createDataChannel("rtvi")
        channel.on("message", lambda text: messages.append(json.loads(text)))
        far.addTrack(Microphone())
        listening: list[asyncio.Task[None]] = []

        @far.on("track")
        def on_track(track: MediaStreamTrack) -> None:
            async def listen() -> None:
                nonlocal loudest
                while True:
                    frame = await track.recv()
                    assert isinstance(frame, AudioFrame)
                    loudest = max(loudest, int(np.abs(frame.to_ndarray().astype(int)).max()))

            listening.append(asyncio.create_task(listen()))

        fader = Fader()
        call = Call(
            webrtc_transport(near, transport_params(fader)),
            fader,
            engine.url,
            CallAgent("A", greeting="Good day."),
        )
        await far.setLocalDescription(await far.createOffer())
        await near.initialize(far.localDescription.sdp, far.localDescription.type)
        answer = near.get_answer()  # type: ignore[no-untyped-call] # pipecat's
        assert answer is not None
        running = asyncio.create_task(call.run())
        await far.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))

        def said() -> str:
            data = [m["data"] for m in messages if m.get("type") == "server-message"]
            return "".join(m["text"] for m in data if m["type"] == "bot-text")

        await eventually(lambda: said() == "Good day.", "the words on the page")
        await eventually(lambda: loudest > 4000, "the sound")
        receiver = near.pc.getTransceivers()[0].receiver
        assert isinstance(vars(receiver)["_RTCRtpReceiver__jitter_buffer"], AudioJitterBuffer)
        assert fader.at_line
        assert engine.samples > 0
        await far.close()
        assert (await running).reason == "hung-up"
        await eventually(lambda: engine.open_now == 0, "the end of the session")
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)


async def test_a_chunk_that_waits_for_its_packet_is_lowered_too() -> None:
    track, fader = RawAudioTrack(24_000), Fader()
    lower_at_the_line(track, fader)
    chunk = await fader.filter(np.full(480, 10_000, np.int16).tobytes())
    taken = track.add_audio_bytes(chunk)
    assert (await track.recv()).to_ndarray()[0, -1] == 10_000  # type: ignore[no-untyped-call] # pipecat's
    fader.duck()
    second = await track.recv()  # type: ignore[no-untyped-call] # pipecat's
    assert second.to_ndarray()[0, -1] == round(10_000 * DUCKED)
    assert (second.sample_rate, second.pts) == (24_000, 240)
    await taken
