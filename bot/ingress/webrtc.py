"""Callers from a browser: SmallWebRTC signalling, one peer connection a call.

pipecat's own request handler is not used because it loses hold of a peer connection whose offer turns out bad
after half of it was taken, knows no limit of calls, and answers faults with their insides. The connection and
the transport are pipecat's.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Protocol

from aiortc import RTCIceServer
from aiortc.sdp import SessionDescription, candidate_from_sdp
from loguru import logger
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StringConstraints

from bot.calls import Calls, Place
from bot.settings import IceServer
from pipeline.call import CallEnd

OFFER_S = 15.0  # finding our own addresses, a slow STUN server's included; it holds a caller's place
Sdp = Annotated[str, StringConstraints(min_length=1, max_length=32_000)]
Id = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class BadOffer(Exception):  # noqa: N818 - the caller's fault
    """What the caller sent cannot be answered. The message says why, for whoever wrote the client."""


class UnknownConnection(Exception):  # noqa: N818 - the caller's fault
    """There is no such peer connection, or not any more."""


class Offer(BaseModel):
    """``POST /api/offer``: an SDP offer; with ``pc_id``, a new one for a connection that exists."""

    model_config = ConfigDict(extra="ignore")

    sdp: Sdp
    type: Literal["offer"]
    pc_id: Id | None = None
    restart_pc: bool = False
    request_data: dict[str, Any] | None = Field(
        None, validation_alias=AliasChoices("request_data", "requestData")
    )


class Candidate(BaseModel):
    """One ICE candidate as browsers name its parts; an empty ``candidate`` ends them (RFC 8840)."""

    candidate: Annotated[str, StringConstraints(max_length=1000)]
    sdp_mid: str | None = Field(None, validation_alias=AliasChoices("sdp_mid", "sdpMid"))
    sdp_mline_index: int | None = Field(
        None, validation_alias=AliasChoices("sdp_mline_index", "sdpMLineIndex")
    )


class Candidates(BaseModel):
    """``PATCH /api/offer``: ICE candidates found after the offer was sent."""

    pc_id: Id
    candidates: Annotated[list[Candidate], Field(max_length=50)]


class Answer(BaseModel):
    """What an offer is answered with."""

    sdp: str
    type: str
    pc_id: str


class LiveCall(Protocol):
    """What the ingress needs of a call."""

    async def run(self) -> CallEnd:
        """Be the call, from its first frame to its last."""

    async def end(self, reason: str = "ended") -> None:
        """Finish soon; the first reason counts."""


MakeCall = Callable[[SmallWebRTCConnection, str], LiveCall]


class WebRTCIngress:
    """Takes offers, and owns the peer connection of every call that comes this way."""

    def __init__(
        self,
        calls: Calls,
        make_call: MakeCall,
        *,
        ice_servers: Sequence[IceServer] = (),
    ) -> None:
        """``make_call`` builds a call on a connection under an id."""
        self._calls = calls
        self._make_call = make_call
        self._ice_servers = [RTCIceServer(**server.model_dump()) for server in ice_servers]
        self._connections: dict[str, SmallWebRTCConnection] = {}

    async def offer(self, offer: Offer) -> Answer:
        """Answer an offer with a new call, or renegotiate one. Raises ``Refused``, ``BadOffer``."""
        _check_sdp(offer.sdp)
        known = self._connections.get(offer.pc_id or "")
        if known is not None:
            try:
                await known.renegotiate(offer.sdp, offer.type, offer.restart_pc)
            except Exception as error:
                logger.debug("renegotiation failed: {!r}", error)
                raise BadOffer("The new offer does not fit the connection.") from None
            return _answer(known)
        place = self._calls.admit()
        connection = SmallWebRTCConnection(self._ice_servers)
        try:
            try:
                async with asyncio.timeout(OFFER_S):
                    await connection.initialize(offer.sdp, offer.type)
                answer = _answer(connection)
            except TimeoutError:
                raise BadOffer("The offer could not be answered in time.") from None
            except Exception as error:
                logger.debug("offer failed: {!r}", error)
                raise BadOffer("The offer's SDP cannot be answered.") from None
            self._begin(connection, place)
        except BaseException:
            place.release()
            await connection.disconnect()  # type: ignore[no-untyped-call] # pipecat has no types here
            raise
        return answer

    def _begin(self, connection: SmallWebRTCConnection, place: Place) -> None:
        call_id = connection.pc_id.rpartition("-")[2]
        call = self._make_call(connection, call_id)
        self._connections[connection.pc_id] = connection
        self._calls.start(place, call_id, lambda: self._live(connection, call), lambda: call.end("stopping"))

    async def _live(self, connection: SmallWebRTCConnection, call: LiveCall) -> None:
        """The call, and whatever became of it, the end of its connection."""
        try:
            end = await call.run()
            logger.info("call ended: {} after {:.1f} s", end.reason, end.seconds)
        finally:
            self._connections.pop(connection.pc_id, None)
            await connection.disconnect()  # type: ignore[no-untyped-call] # pipecat has no types here

    async def candidates(self, patch: Candidates) -> None:
        """Add ICE candidates to a connection. Raises ``UnknownConnection``, ``BadOffer``."""
        connection = self._connections.get(patch.pc_id)
        if connection is None:
            raise UnknownConnection("There is no such connection, or not any more.")
        for given in patch.candidates:
            candidate = None
            if given.candidate:
                try:
                    candidate = candidate_from_sdp(given.candidate.removeprefix("candidate:"))
                except (ValueError, AssertionError, IndexError, KeyError):
                    raise BadOffer("A candidate cannot be read.") from None
                candidate.sdpMid = given.sdp_mid
                candidate.sdpMLineIndex = given.sdp_mline_index
                if candidate.sdpMid is None and candidate.sdpMLineIndex is None:
                    raise BadOffer("A candidate names neither sdp_mid nor sdp_mline_index.")
            try:
                await connection.add_ice_candidate(candidate)  # type: ignore[no-untyped-call] # pipecat has no types here
            except Exception as error:
                logger.debug("candidate refused: {!r}", error)
                raise BadOffer("A candidate does not fit the connection.") from None


def _check_sdp(sdp: str) -> None:
    """Refuse early what could not become a call. Raises ``BadOffer``."""
    try:
        session = SessionDescription.parse(sdp)
    except Exception:
        # The parser asserts, indexes and unpacks its way through: every kind of fault means the same.
        raise BadOffer("The offer's SDP cannot be read.") from None
    if not session.media or session.media[0].kind != "audio":
        raise BadOffer("The offer's first media section must be audio.")
    if not all(re.search(f"^a={name}:", sdp, re.MULTILINE) for name in ("ice-ufrag", "fingerprint")):
        raise BadOffer("The offer has no ICE or DTLS parameters.")


def _answer(connection: SmallWebRTCConnection) -> Answer:
    answer = connection.get_answer()  # type: ignore[no-untyped-call] # pipecat has no types here
    if answer is None:
        raise BadOffer("The offer's SDP cannot be answered.")
    return Answer.model_validate(answer)
