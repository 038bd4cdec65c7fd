"""Callers from a browser: SmallWebRTC signalling, one peer connection a call.

pipecat's own request handler is not used because it loses hold of a peer connection whose offer turns out bad
after half of it was taken, knows no limit of calls, and answers faults with their insides. The connection and
the transport are pipecat's.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from aiortc import RTCIceServer
from aiortc.sdp import SessionDescription, candidate_from_sdp
from loguru import logger
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, StringConstraints

from bot.calls import Calls, Place, Refused
from bot.remembering import F_AGENT
from bot.settings import IceServer
from pipeline.call import STOPPING, CallEnd
from pipeline.memory import Remembered

OFFER_S = 15.0  # finding our own addresses, a slow STUN server's included; it holds a caller's place
Sdp = Annotated[str, StringConstraints(min_length=1, max_length=32_000)]
Id = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Token = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{32}$")]
REPLACED_S = 3.0  # a call whose caller has called again gets so long to end
RESUME_S = 60.0  # after its connection broke, a call may be gone on with for so long without being looked up


class BadOffer(Exception):  # noqa: N818 - the caller's fault
    """What the caller sent cannot be answered. The message says why, for whoever wrote the client."""


class UnknownConnection(Exception):  # noqa: N818 - the caller's fault
    """There is no such peer connection, or not any more."""


class Offer(BaseModel):
    """``POST /api/offer``: an SDP offer; with ``pc_id``, a new one for a connection that exists.

    ``resume``: the token of an earlier answer, to go on with that call's conversation.
    """

    model_config = ConfigDict(extra="ignore")

    sdp: Sdp
    type: Literal["offer"]
    pc_id: Id | None = None
    restart_pc: bool = False
    resume: Token | None = None
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
    """What an offer is answered with. ``resume``: who has it may go on with the call after it broke."""

    sdp: str
    type: str
    pc_id: str
    resume: str = ""


class LiveCall(Protocol):
    """What the ingress needs of a call."""

    async def run(self) -> CallEnd:
        """Be the call, from its first frame to its last."""

    async def end(self, reason: str = "ended") -> None:
        """Finish soon; the first reason counts."""


MakeCall = Callable[[str, SmallWebRTCConnection, str, str, Remembered | None], LiveCall]
"""Builds an agent's call on a connection: under an id, in the conversation of a name, going on from what was
said."""

Choose = Callable[[str], str]
"""The agent who answers, given whose conversation goes on, if any. Raises what the caller is to be told."""

Recall = Callable[[str], Awaitable[Remembered | None]]
"""What is remembered of the conversation of that name. Raises ``Refused`` if another process holds it."""


@dataclass
class _Talk:
    """A conversation that goes on here, or has ended of late."""

    call: LiveCall
    agent: str
    task: asyncio.Task[None] | None = None
    remembered: Remembered | None = None
    over_at: float = math.inf


class WebRTCIngress:
    """Takes offers, and owns the peer connection of every call that comes this way."""

    def __init__(
        self,
        calls: Calls,
        make_call: MakeCall,
        recall: Recall,
        *,
        ice_servers: Sequence[IceServer] = (),
    ) -> None:
        """``recall`` is asked for conversations that this process does not know."""
        self._calls = calls
        self._make_call = make_call
        self._recall = recall
        self._ice_servers = [RTCIceServer(**server.model_dump()) for server in ice_servers]
        self._connections: dict[str, SmallWebRTCConnection] = {}
        self._talks: dict[str, _Talk] = {}  # by the conversation's name

    async def offer(self, offer: Offer, choose: Choose) -> Answer:
        """Answer an offer with a new call, or renegotiate one.

        Raises ``Refused``, ``BadOffer``, and as ``choose`` does.
        """
        _check_sdp(offer.sdp)
        known = self._connections.get(offer.pc_id or "")
        if known is not None:
            try:
                await known.renegotiate(offer.sdp, offer.type, offer.restart_pc)
            except Exception as error:
                logger.debug("renegotiation failed: {!r}", error)
                raise BadOffer("The new offer does not fit the connection.") from None
            return _answer(known)
        token = offer.resume or secrets.token_urlsafe(24)
        # The name is written to logs and stores; who only knows it cannot take the call over.
        name = hashlib.sha256(token.encode()).hexdigest()[:32]
        remembered = await self._earlier(name) if offer.resume else None
        began_with = remembered.facts.get(F_AGENT, "") if remembered else ""
        agent = choose(began_with)
        if began_with not in ("", agent):
            logger.info("a caller came back to {}, who is gone: {} begins anew", began_with, agent)
            remembered = None
        place = self._calls.admit()
        connection = SmallWebRTCConnection(self._ice_servers)
        try:
            try:
                async with asyncio.timeout(OFFER_S):
                    await connection.initialize(offer.sdp, offer.type)
                answer = _answer(connection, token)
            except TimeoutError:
                raise BadOffer("The offer could not be answered in time.") from None
            except Exception as error:
                logger.debug("offer failed: {!r}", error)
                raise BadOffer("The offer's SDP cannot be answered.") from None
            self._begin(connection, place, name, agent, remembered)
        except BaseException:
            place.release()
            await connection.disconnect()  # type: ignore[no-untyped-call] # pipecat has no types here
            raise
        return answer

    async def _earlier(self, name: str) -> Remembered | None:
        """What was said before in that conversation, which ends here if it still goes on."""
        talk = self._talks.get(name)
        if talk is None:
            return await self._recall(name)
        if talk.task is not None and not talk.task.done():
            await talk.call.end("replaced")
            _, late = await asyncio.wait({talk.task}, timeout=REPLACED_S)
            if late:
                raise Refused("busy", "The earlier call is still ending. Please try again.", retry_s=1)
        return talk.remembered

    def _begin(
        self,
        connection: SmallWebRTCConnection,
        place: Place,
        name: str,
        agent: str,
        remembered: Remembered | None,
    ) -> None:
        call_id = connection.pc_id.rpartition("-")[2]
        call = self._make_call(agent, connection, call_id, name, remembered)
        self._connections[connection.pc_id] = connection
        talk = self._talks[name] = _Talk(call, agent)
        talk.task = self._calls.start(
            place, call_id, lambda: self._live(connection, talk, name), lambda: call.end(STOPPING)
        )

    def _forget_old(self) -> None:
        before = time.monotonic() - RESUME_S
        self._talks = {name: talk for name, talk in self._talks.items() if talk.over_at > before}

    async def _live(self, connection: SmallWebRTCConnection, talk: _Talk, name: str) -> None:
        """The call, and whatever became of it, the end of its connection."""
        try:
            end = await talk.call.run()
            facts = end.facts | {F_AGENT: talk.agent}
            talk.remembered = Remembered(name, facts, end.history, end.conversation)
            logger.info("call ended: {} after {:.1f} s", end.reason, end.seconds)
        finally:
            talk.over_at = time.monotonic()
            asyncio.get_running_loop().call_later(RESUME_S, self._forget_old)
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


def _answer(connection: SmallWebRTCConnection, token: str = "") -> Answer:
    answer = connection.get_answer()  # type: ignore[no-untyped-call] # pipecat has no types here
    if answer is None:
        raise BadOffer("The offer's SDP cannot be answered.")
    return Answer.model_validate(answer | {"resume": token})
