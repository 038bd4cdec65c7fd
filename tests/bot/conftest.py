"""What several tests of the bot begin with."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiortc import RTCPeerConnection
from aiortc.mediastreams import AudioStreamTrack

from tests.pipeline.memory.redis_server import be_patient


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis is given the time that it takes."""
    be_patient(monkeypatch)


@pytest.fixture
async def offer() -> AsyncIterator[dict[str, str]]:
    """What a browser posts, made by aiortc."""
    peer = RTCPeerConnection()
    peer.addTrack(AudioStreamTrack())
    peer.createDataChannel("parley")
    await peer.setLocalDescription(await peer.createOffer())
    yield {"sdp": peer.localDescription.sdp, "type": "offer"}
    await peer.close()
