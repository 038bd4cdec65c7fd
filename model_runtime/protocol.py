"""The messages between a media process and an engine: msgpack frames, one WebSocket a session.

The connection is the session: opening it claims a place in the engine, closing it (by either side, or by
dying) frees everything. Every frame is one struct below, tagged by its ``type`` field. This module loads no
torch.

Caller audio has one clock: 16 kHz samples counted from the first ``Audio`` of the session. The media process
streams audio all the time and names pieces of it by that clock, so nothing is sent twice and work can begin
before a turn is sure.

Spoken output is counted in *groups*: one text slot and four audio tokens, 160 ms of speech (Step-Audio 2's
TA4).
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

VERSION = 3
INPUT_RATE = 16_000  # Hz, mono s16le, what the audio encoder hears
OUTPUT_RATE = 24_000  # Hz, mono s16le, what the vocoder makes
GROUP_MS = 160  # one TA4 group: 4 audio tokens at 25 Hz
GROUP_SAMPLES = OUTPUT_RATE * GROUP_MS // 1000
MAX_FRAME_BYTES = 4 * 1024 * 1024  # no honest frame is larger; a WebSocket peer that sends one is cut off


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the next token is drawn. ``None`` leaves a value to the checkpoint's own defaults."""

    temperature: float | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None


# --- media process -> engine ---


class Open(msgspec.Struct, tag="open", frozen=True, omit_defaults=True):
    """First frame of a session. Answered by ``Opened``, or by a fatal ``Error`` that says why not.

    ``history`` says that a conversation goes on which another session had: so many ``HistoryEntry`` follow
    before anything else, and they hold the instructions and tools, too.
    """

    call_id: str
    instructions: str = ""  # the system turn, written by the operator
    tools: list[dict[str, Any]] = []  # OpenAI-style function schemas
    voice: str = ""  # empty: the checkpoint's default voice
    sampling: Sampling = Sampling()
    history: int = 0
    timbre: bytes = b""  # the library's file of ``voice``, for an engine that has none so named
    version: int = VERSION


class HistoryEntry(msgspec.Struct, tag="history_entry", frozen=True, omit_defaults=True):
    """One turn of the history exactly as the model reads it: what another engine needs to go on.

    From the engine, whenever the history has changed: the entry stands at ``place`` (0, 1, ...), and whatever
    stood there and behind it is void. To the engine: see ``Open.history``.
    """

    place: int
    ids: list[int]
    rows: list[tuple[int, bytes]] = []  # audio rows [n, hidden] over ids from an offset on, little-endian
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # of the rows
    short: list[int] | None = None  # the same turn without its sound; None if it has none to lose
    kept: bool = False  # never shortened: instructions and tools
    turn: int = -1  # the response it belongs to
    heard: bool = False  # the caller's side of it
    result: str = ""  # the ``ToolResult.id`` of what a tool returned


class Audio(msgspec.Struct, tag="audio", frozen=True):
    """The caller's next samples, from where the last ones ended: 16 kHz mono s16le, any whole number."""

    pcm: bytes


class Respond(msgspec.Struct, tag="respond", frozen=True, omit_defaults=True):
    """Answer now: ``spans`` of caller audio and/or ``text``; with neither, the history as it stands.

    ``turn`` numbers grow by the caller's choice and name the response in every later message. Nothing enters
    the history until ``Commit``: a response undone by ``Drop`` leaves no trace, its human turn included.
    """

    turn: int
    spans: list[tuple[int, int]] = []  # [from, to) in 16 kHz samples of the session's clock
    text: str = ""  # untrusted: can never become a control token
    transcribe: bool = False  # also send ``Transcript`` of the spans, where the checkpoint can
    think: bool = False


class ToolResult(msgspec.Struct, tag="tool_result", frozen=True, omit_defaults=True):
    """What a tool returned, to be read by the model in its next response. ``content`` is untrusted text.

    ``id`` comes back in the ``HistoryEntry``: from then on no engine's end can lose the result.
    """

    name: str
    content: str
    id: str = ""


class Cancel(msgspec.Struct, tag="cancel", frozen=True):
    """Stop making ``turn``. Answered by its ``Done`` (reason ``cancelled``), unless it was done already."""

    turn: int


class Commit(msgspec.Struct, tag="commit", frozen=True):
    """``turn`` is settled: it enters the history, cut after ``heard_groups`` groups (-1: all of it).

    ``heard_groups`` 0 keeps the human turn and closes the assistant's as if it had said nothing.
    A turn still being made is cancelled first.
    """

    turn: int
    heard_groups: int = -1


class Drop(msgspec.Struct, tag="drop", frozen=True):
    """``turn`` never was: cancel it if it runs and forget it, its human turn included."""

    turn: int


class SetVoice(msgspec.Struct, tag="set_voice", frozen=True, omit_defaults=True):
    """Speak in another voice from the next chunk on, in the middle of a response if there is one.

    ``timbre`` as in ``Open``. ``Error`` (``voice``) if there is none so named, and none given that will do.
    """

    voice: str
    timbre: bytes = b""


class Close(msgspec.Struct, tag="close", frozen=True):
    """The call is over. The engine frees the session and closes the WebSocket."""


ClientMessage = Open | HistoryEntry | Audio | Respond | ToolResult | Cancel | Commit | Drop | SetVoice | Close

# --- engine -> media process ---


class Opened(msgspec.Struct, tag="opened", frozen=True, omit_defaults=True):
    """The session exists. ``checkpoint`` and ``label`` say whom the caller talks to.

    ``label`` is what must be shown beside a model that is not a full one, and empty for one that is.
    """

    checkpoint: str
    label: str = ""
    voice: str = ""
    voices: list[str] = []
    transcribes: bool = False
    examples: list[str] = []
    descriptions: dict[str, str] = {}  # of those of ``voices`` that have one
    version: int = VERSION


class Speech(msgspec.Struct, tag="speech", frozen=True, omit_defaults=True):
    """The next piece of ``turn``: 24 kHz mono s16le, and the text whose slots lie within it.

    ``groups`` counts whole groups spoken from the start of the turn to the end of this piece; ``group_text``
    holds one string a group that this piece completes, in order, so that text can be cut where the voice was.
    """

    turn: int
    pcm: bytes
    groups: int
    group_text: list[str] = []


class Transcript(msgspec.Struct, tag="transcript", frozen=True):
    """What the model heard in ``turn``'s spans, by its own transcription task."""

    turn: int
    text: str


class Thinking(msgspec.Struct, tag="thinking", frozen=True):
    """A piece of what the model thinks before it speaks (think mode): not spoken, not in the history."""

    turn: int
    text: str


class ToolCall(msgspec.Struct, tag="tool_call", frozen=True, omit_defaults=True):
    """The model asks for a tool. ``arguments`` is a JSON object; a malformed one has ``raw``, ``error``."""

    turn: int
    name: str = ""
    arguments: dict[str, Any] = {}
    raw: str = ""
    error: str = ""


class Timings(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where the time of a turn went, in ms from the engine's receipt of ``Respond``."""

    encode_ms: float = 0.0
    prefill_ms: float = 0.0
    first_audio_ms: float = 0.0
    total_ms: float = 0.0
    prompt_tokens: int = 0
    output_tokens: int = 0


class Done(msgspec.Struct, tag="done", frozen=True, omit_defaults=True):
    """``turn`` makes nothing more. ``groups`` is its whole length in groups.

    ``silent``: the model had nothing to say. One that wrote words without any sound, and did so again when
    it was tried once more, is an ``error``.
    """

    turn: int
    reason: Literal["end", "length", "cancelled", "silent", "error"]
    groups: int = 0
    text: str = ""  # the whole spoken text
    timings: Timings = Timings()


class Error(msgspec.Struct, tag="error", frozen=True, omit_defaults=True):
    """Something could not be done. With ``fatal`` the engine closes the session after this frame."""

    code: Literal["capacity", "version", "voice", "bad_request", "context", "internal"]
    message: str
    turn: int = -1
    fatal: bool = False


EngineMessage = Opened | HistoryEntry | Speech | Transcript | Thinking | ToolCall | Done | Error

_encoder = msgspec.msgpack.Encoder()
_client_decoder: msgspec.msgpack.Decoder[ClientMessage] = msgspec.msgpack.Decoder(ClientMessage)
_engine_decoder: msgspec.msgpack.Decoder[EngineMessage] = msgspec.msgpack.Decoder(EngineMessage)


def encode(message: ClientMessage | EngineMessage) -> bytes:
    """One frame for the wire."""
    return _encoder.encode(message)


def decode_client(frame: bytes) -> ClientMessage:
    """A frame from a media process. Raises ``msgspec.DecodeError`` (or its ``ValidationError``)."""
    return _client_decoder.decode(frame)


def decode_engine(frame: bytes) -> EngineMessage:
    """A frame from an engine. Raises ``msgspec.DecodeError`` (or its ``ValidationError``)."""
    return _engine_decoder.decode(frame)
