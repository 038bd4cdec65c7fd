"""A caller without a browser: a real WebRTC call in which WAV files are asked and everything is recorded.

What is sent and what is received are laid on one clock. A sample sent lies where its packet left, a sample
received where its packet came in (taken before any jitter buffer), so that a delay read from the recording is
the delay on the wire and nobody's own word.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av
import httpx
import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCSessionDescription,
)
from numpy.typing import NDArray

from bot.headset import FRAME, RATE, Listener, Microphone
from bot.waveform import Pcm, delay_ms, first_loud, last_loud, spoken

PING_S = 1.0  # the server takes a caller silent for 3 s for gone
QUIET_S = 1.0  # of silence after which the bot has said what it had to say
ANSWER_S = 12.0  # longest wait for an answer to begin
GREETING_S = 10.0  # longest wait for the greeting to begin
CONNECT_S = 15.0


class CallFailed(Exception):  # noqa: N818 - what happened
    """The call did not come about or broke. The message is a sentence for the person who placed it."""


@dataclass(frozen=True)
class Message:
    """One message on the data channel: what it said and when, in seconds of the recording's clock."""

    at_s: float
    data: dict[str, Any]


@dataclass(frozen=True)
class Turn:
    """One question and its answer. Times are seconds of the recording's clock; None: there was no sound."""

    asked_from_s: float
    asked_to_s: float
    answered_from_s: float | None
    answered_to_s: float | None
    cut_in: bool  # the bot was sounding when the caller's last sound was sent
    voice_to_voice_ms: float | None  # from the waveforms
    reported_ms: int | None  # what the server said of the same turn
    answer: str  # the bot's words, as they were heard
    question: str  # the caller's, where the model transcribes


@dataclass(frozen=True)
class PlacedCall:
    """A whole call: both sides as mono float32 at ``rate`` Hz on one clock, and what came beside them."""

    rate: int
    caller: Pcm
    bot: Pcm
    turns: list[Turn]
    greeting: str
    messages: list[Message]
    info: dict[str, Any]  # the server's ``call`` message: checkpoint, label, voice, agent
    packet_s: NDArray[np.float64]  # when each of the bot's packets came
    packet_media_s: NDArray[np.float64]  # and where in its own time it belongs
    setup_s: float  # from the offer to the connection


def read_wav(path: Path) -> Pcm:
    """Any audio file as mono float32 at 48 kHz. Raises ``CallFailed`` naming the file."""
    try:
        with av.open(str(path)) as container:
            resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
            pieces = [
                piece.to_ndarray()[0]
                for frame in container.decode(audio=0)
                for piece in resampler.resample(frame)
            ]
            pieces += [piece.to_ndarray()[0] for piece in resampler.resample(None)]
    except (OSError, av.FFmpegError, IndexError) as error:
        raise CallFailed(f"{path}: cannot be read as audio ({error.__class__.__name__}).") from None
    if not pieces:
        raise CallFailed(f"{path}: holds no audio.")
    return np.concatenate(pieces).astype(np.float32)


@dataclass
class Caller:
    """One call being placed: the connection, what is said on its data channel, and both sides' sound."""

    url: str
    key: str = ""
    peer: RTCPeerConnection = field(
        default_factory=lambda: RTCPeerConnection(RTCConfiguration(iceServers=[]))
    )
    microphone: Microphone = field(default_factory=Microphone)
    listener: Listener = field(default_factory=Listener)
    messages: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    lost: asyncio.Event = field(default_factory=asyncio.Event)

    async def connect(self) -> float:
        """Place the call. Returns how many seconds that took. Raises ``CallFailed``."""
        begun = time.monotonic()
        connected = asyncio.Event()
        channel = self.peer.createDataChannel("parley", ordered=True)
        channel.on("message", self._heard)
        channel.on("open", lambda: self._introduce(channel))
        channel.on("close", self.lost.set)

        @self.peer.on("connectionstatechange")
        def state() -> None:
            if self.peer.connectionState == "connected":
                connected.set()
            elif self.peer.connectionState in ("failed", "closed"):
                self.lost.set()

        @self.peer.on("track")
        def track(received: MediaStreamTrack) -> None:
            self.listener.attach(self.peer, received)

        self.peer.addTrack(self.microphone)
        await self.peer.setLocalDescription(await self.peer.createOffer())
        await self.peer.setRemoteDescription(await self._signal())
        waits = [asyncio.create_task(event.wait()) for event in (connected, self.lost)]
        await asyncio.wait(waits, timeout=CONNECT_S, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        if not connected.is_set():
            raise CallFailed("No connection came about.")
        return time.monotonic() - begun

    async def _signal(self) -> RTCSessionDescription:
        offer = self.peer.localDescription
        try:
            async with httpx.AsyncClient(timeout=CONNECT_S, trust_env=False) as client:
                response = await client.post(
                    f"{self.url}/api/offer",
                    json={"sdp": offer.sdp, "type": offer.type},
                    headers={"Authorization": f"Bearer {self.key}"} if self.key else {},
                )
            answer = response.json()
        except httpx.HTTPError:
            raise CallFailed(f"Nobody answers at {self.url}. Is Parley running there?") from None
        except ValueError:
            raise CallFailed(f"What answers at {self.url} is not Parley.") from None
        if response.status_code != httpx.codes.OK:
            error = answer.get("error", {}) if isinstance(answer, dict) else {}
            raise CallFailed(error.get("message", f"The call was refused ({response.status_code})."))
        return RTCSessionDescription(sdp=answer["sdp"], type=answer["type"])

    def _introduce(self, channel: RTCDataChannel) -> None:
        about = {"library": "parley-talk", "library_version": "1"}
        ready = {"id": "talk-1", "label": "rtvi-ai", "type": "client-ready"}
        channel.send(json.dumps(ready | {"data": {"version": "2.0.0", "about": about}}))
        self._ping(channel)

    def _ping(self, channel: RTCDataChannel) -> None:
        if channel.readyState == "open":
            channel.send(f"ping: {time.time():.0f}")
            asyncio.get_running_loop().call_later(PING_S, self._ping, channel)

    def _heard(self, text: str | bytes) -> None:
        with suppress(ValueError):
            message = json.loads(text)
            if message.get("type") == "server-message" and isinstance(message.get("data"), dict):
                self.messages.append((time.monotonic(), message["data"]))
            elif message.get("type") == "signalling" and message.get("message", {}).get("type") == "peerLeft":
                self.lost.set()

    async def wait_until(self, reached: Callable[[], bool], seconds: float) -> bool:
        """Wait until ``reached()``, for ``seconds`` at most. Raises ``CallFailed`` if the call breaks."""
        deadline = time.monotonic() + seconds
        while not reached():
            if self.lost.is_set():
                told = [data["text"] for _, data in self.messages if data.get("type") == "notice"]
                raise CallFailed(" ".join(["The other side ended the call.", *told[-1:]]))
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.02)
        return True

    async def hear_out(self, since: float, begin_s: float, quiet_s: float, limit_s: float = 60.0) -> bool:
        """Wait for the bot to begin after ``since`` (monotonic), and then to be quiet for ``quiet_s``."""
        listener = self.listener
        if not await self.wait_until(lambda: listener.last_loud_at > since, begin_s):
            return False
        await self.wait_until(lambda: time.monotonic() - listener.last_loud_at > quiet_s, limit_s)
        return True

    async def hang_up(self) -> None:
        """End the call and free everything."""
        await self.listener.stop()
        await self.peer.close()


async def place_call(
    url: str,
    questions: Sequence[Pcm],
    *,
    key: str = "",
    greeting: bool = True,
    wait_s: float = 0.5,
    quiet_s: float = QUIET_S,
    answer_s: float = ANSWER_S,
    on_turn: Callable[[str], None] = lambda what: None,
) -> PlacedCall:
    """Call Parley at ``url``, ask ``questions`` (mono float32, 48 kHz) one after another, hang up.

    One of its agents is called at ``.../a/NAME``, with ``key`` if it wants one.
    With ``greeting`` the bot is heard out first; without, the first question comes ``wait_s`` seconds after
    connecting. ``on_turn`` is told what is going on. Raises ``CallFailed``.
    """
    caller = Caller(_base(url), key)
    try:
        on_turn("calling")
        setup_s = await caller.connect()
        connected = time.monotonic()
        await caller.wait_until(lambda: caller.microphone.began is not None, CONNECT_S)
        if greeting:
            on_turn("hearing the greeting")
            await caller.hear_out(connected, GREETING_S, quiet_s)
        else:
            await caller.wait_until(lambda: time.monotonic() - connected > wait_s, wait_s + 1)
        spans = []
        for number, question in enumerate(questions, 1):
            on_turn(f"asking question {number}")
            span = caller.microphone.say(question)
            spans.append(span)
            # Its last speech, not its last sample: a file may end in silence, and the answer begin within it.
            ended = span[0] + (spoken(question, RATE) or (0, len(question)))[1]
            await caller.wait_until(partial(caller.microphone.passed, ended), len(question) / RATE + 5)
            on_turn(f"hearing answer {number}")
            await caller.hear_out(time.monotonic(), answer_s, quiet_s)
            await caller.wait_until(partial(caller.microphone.passed, span[1]), len(question) / RATE + 5)
    finally:
        await caller.hang_up()
    return _record(caller, spans, setup_s)


def _base(url: str) -> str:
    parts = urlsplit(url if "://" in url else f"http://{url}")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _record(caller: Caller, spans: list[tuple[int, int]], setup_s: float) -> PlacedCall:
    """Lay both sides on one clock, which starts where the microphone's first sample does."""
    assert caller.microphone.began is not None  # it has been waited for
    # A packet leaves when its last sample has been spoken, so its samples lie in the 20 ms before.
    began = caller.microphone.began - FRAME / RATE
    said = np.concatenate(caller.microphone.sent).astype(np.float32) / np.float32(32768)
    bot = caller.listener.recording(began, len(said))
    said = np.pad(said, (0, max(0, len(bot) - len(said))))
    messages = [Message(at - began, data) for at, data in caller.messages]
    bounds = [*(start for start, _ in spans), len(bot)]
    stamps = sorted(caller.listener.arrivals)
    return PlacedCall(
        rate=RATE,
        caller=said,
        bot=bot,
        turns=[_turn(said, bot, messages, span, bounds[i + 1]) for i, span in enumerate(spans)],
        greeting=words_of(messages, "bot-text", 0.0, bounds[0] / RATE),
        messages=messages,
        info=next((m.data for m in messages if m.data.get("type") == "call"), {}),
        packet_s=np.array([caller.listener.arrivals[stamp] - began for stamp in stamps]),
        packet_media_s=np.array([stamp / RATE for stamp in stamps]),
        setup_s=setup_s,
    )


def _turn(said: Pcm, bot: Pcm, messages: list[Message], span: tuple[int, int], until: int) -> Turn:
    asked = (spoken(said, RATE, *span) or span)[1]
    answered, ended = first_loud(bot, asked, until), last_loud(bot, asked, until)
    reported = [
        m.data["ms"] for m in messages if m.data.get("type") == "latency" and asked <= m.at_s * RATE < until
    ]
    return Turn(
        asked_from_s=span[0] / RATE,
        asked_to_s=asked / RATE,
        answered_from_s=None if answered is None else answered / RATE,
        answered_to_s=None if ended is None else ended / RATE,
        cut_in=first_loud(bot, asked - RATE // 10, asked) is not None,
        voice_to_voice_ms=delay_ms(said, bot, RATE, span[0], span[1], until),
        reported_ms=int(reported[0]) if reported else None,
        answer=words_of(messages, "bot-text", asked / RATE, until / RATE),
        question=words_of(messages, "user-text", span[0] / RATE, until / RATE),
    )


def words_of(messages: list[Message], kind: str, start_s: float, end_s: float) -> str:
    """The texts of that kind that came between two moments, each turn's for itself."""
    turns: dict[int, str] = {}  # an answer whose tool has a result goes on in a turn of its own
    for message in messages:
        if message.data.get("type") == kind and start_s <= message.at_s < end_s:
            turn = message.data["turn"]
            turns[turn] = turns.get(turn, "") + message.data["text"]
    return " ".join(map(str.strip, turns.values()))
