"""The transport of a call over WebRTC: pipecat's, with our jitter buffer."""

from __future__ import annotations

from pipecat.transports.base_transport import BaseTransport
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection
from pipecat.transports.smallwebrtc.transport import SmallWebRTCTransport

from pipeline import jitter
from pipeline.call import transport_params
from pipeline.fader import Fader


def webrtc_transport(connection: SmallWebRTCConnection, fader: Fader) -> BaseTransport:
    """What a ``Call`` needs to run on ``connection``; the call gets the same ``fader``."""
    transport = SmallWebRTCTransport(connection, params=transport_params(fader))

    async def connected(_transport: BaseTransport, client: SmallWebRTCConnection) -> None:
        jitter.install(client.pc)

    transport.add_event_handler("on_client_connected", connected)
    return transport
