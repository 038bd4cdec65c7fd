"""The transport of a call over WebRTC: pipecat's, with our jitter buffer, and a voice lowered at the line.

A chunk handed to pipecat's track waits there for 10 to 30 ms until it is taken for a packet. Whoever begins
to speak meanwhile is given way to in the very next packet, since the track's frames pass the fader as they
are taken. pipecat has no hook there: ``tests/pipeline/test_webrtc.py`` holds the name used here.
"""

from __future__ import annotations

from av import AudioFrame
from pipecat.transports.base_transport import BaseTransport, TransportParams
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection
from pipecat.transports.smallwebrtc.transport import RawAudioTrack, SmallWebRTCTransport

from pipeline import jitter
from pipeline.fader import Fader


def webrtc_transport(connection: SmallWebRTCConnection, params: TransportParams) -> BaseTransport:
    """What a ``Call`` needs to run on ``connection``; ``params`` are ``pipeline.call.transport_params``."""
    transport = SmallWebRTCTransport(connection, params=params)

    async def connected(_transport: BaseTransport, client: SmallWebRTCConnection) -> None:
        jitter.install(client.pc)
        track = vars(transport._client)["_audio_output_track"]
        if isinstance(params.audio_out_filter, Fader):
            lower_at_the_line(track, params.audio_out_filter)

    transport.add_event_handler("on_client_connected", connected)
    return transport


def lower_at_the_line(track: RawAudioTrack, fader: Fader) -> None:
    """Have ``fader`` lower what is taken from ``track``, and no more what is put into it."""
    take = track.recv

    async def at_the_line() -> AudioFrame:
        frame: AudioFrame = await take()  # type: ignore[no-untyped-call] # pipecat has no types here
        samples = frame.to_ndarray()[0]
        lowered = fader.lower(samples, frame.sample_rate)
        if lowered is samples:
            return frame
        changed = AudioFrame.from_ndarray(lowered[None, :], format="s16", layout="mono")
        changed.sample_rate, changed.pts, changed.time_base = frame.sample_rate, frame.pts, frame.time_base
        return changed

    fader.at_line = True
    track.recv = at_the_line  # type: ignore[method-assign] # the one place between its queue and a packet
