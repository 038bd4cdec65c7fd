"""The transport of a call over WebRTC: pipecat's, with our jitter buffer."""

from __future__ import annotations

from pipecat.transports.base_transport import BaseTransport, TransportParams
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection
from pipecat.transports.smallwebrtc.transport import SmallWebRTCTransport

from pipeline import jitter


def webrtc_transport(connection: SmallWebRTCConnection, params: TransportParams) -> BaseTransport:
    """What a ``Call`` needs to run on ``connection``; ``params`` are ``pipeline.call.transport_params``."""
    transport = SmallWebRTCTransport(connection, params=params)

    async def connected(_transport: BaseTransport, client: SmallWebRTCConnection) -> None:
        jitter.install(client.pc)

    transport.add_event_handler("on_client_connected", connected)
    return transport
