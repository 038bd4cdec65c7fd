"""What the page is told during a call, in one place: the shapes of Parley's own messages.

They travel over the WebRTC data channel as RTVI server messages. The page receives each as

    {"label": "rtvi-ai", "type": "server-message", "data": MESSAGE}

where MESSAGE is one of the objects below, told apart by its ``type``. A page ignores types and fields it
does not know. Every ``turn`` is the number of one exchange: 0 is the greeting, then 1, 2, ... Numbers grow
but may skip (an answer that was started and thrown away unheard used one up). The caller's words and the
bot's answer to them carry the same number.

A page may ask for another voice, if ``call`` named some, by an RTVI client message: ``{"t": "set-voice",
"d": {"voice": NAME}}``. It is answered by ``voice``, and by a ``notice`` if it cannot be.

Beside these, pipecat's own RTVI messages arrive (``bot-ready``, ``bot-started-speaking``,
``bot-stopped-speaking``, ``user-started-speaking``, ``user-stopped-speaking``, ...); a page may use or
ignore them.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec


class CallInfo(msgspec.Struct, tag="call", frozen=True):
    """Whom the caller talks to.

    Sent once the engine has opened the session, and again if a new session replaces it.
    """

    checkpoint: str  # the checkpoint's name, e.g. "nano"
    label: str  # what must be shown beside the name ("demo model ..."); empty for a full model
    examples: list[str]  # things worth asking, to show before the first words; may be empty
    voice: str  # the name of the bot's voice
    agent: str = ""  # the agent's name
    transcribes: bool = False  # whether ``user-text`` is to be expected
    voices: list[str] = []  # those that the caller may choose among; empty: none
    descriptions: dict[str, str] = {}  # of each of them; empty: nothing is said of it


class Voice(msgspec.Struct, tag="voice", frozen=True):
    """From the next words on the bot speaks in this voice; empty: in the checkpoint's own."""

    voice: str


class UserText(msgspec.Struct, tag="user-text", frozen=True):
    """What the caller said in ``turn``, whole, as the model itself transcribed it.

    May come after the answer began.
    """

    turn: int
    text: str


class BotText(msgspec.Struct, tag="bot-text", frozen=True):
    """The next piece of the bot's words in ``turn``, sent when its sound was played. Append it as it is."""

    turn: int
    text: str


class BotDone(msgspec.Struct, tag="bot-done", frozen=True):
    """The bot has said all of ``turn`` and the caller has heard it to its end."""

    turn: int


class Interrupted(msgspec.Struct, tag="interrupted", frozen=True):
    """The caller spoke over ``turn``; no more ``bot-text`` of it follows."""

    turn: int


class Withdrawn(msgspec.Struct, tag="withdrawn", frozen=True):
    """The caller went on before ``turn`` was answered: forget its words. A later turn holds them all."""

    turn: int


class Latency(msgspec.Struct, tag="latency", frozen=True):
    """How long ``turn``'s answer took: from the caller's last voiced sample to the answer's first sent."""

    turn: int
    ms: int


class Sources(msgspec.Struct, tag="sources", frozen=True):
    """Where what the bot said in ``turn`` was looked up: documents and sites, for people to read."""

    turn: int
    names: list[str]


class ToolUsed(msgspec.Struct, tag="tool", frozen=True):
    """A tool is run for ``turn``: first ``running``, then ``done`` or ``failed``."""

    turn: int
    name: str
    state: Literal["running", "done", "failed"]


class Decided(msgspec.Struct, tag="decided", frozen=True):
    """What the turn machine decided over ``turn``'s answer, or was told of what it heard. For who tunes it.

    ``what`` is an action of ``pipeline.turns.events`` in lower case ("speculate", "speak", "duck", "hold",
    "resume", ...) or the word that it was told by a judge of sounds ("back-channel", "finished", ...). Sent
    only where ``PARLEY_TURNS__TELL`` asks for it.
    """

    turn: int
    what: str


Level = Literal["info", "warning", "error"]


class Notice(msgspec.Struct, tag="notice", frozen=True):
    """Something the caller should read, in a whole sentence. ``ended``: the call is over after this.

    ``again``: who calls again within a minute goes on with it.
    """

    level: Level
    text: str
    ended: bool = False
    again: bool = False


PageMessage = (
    CallInfo
    | Voice
    | UserText
    | BotText
    | BotDone
    | Interrupted
    | Withdrawn
    | Latency
    | Sources
    | ToolUsed
    | Decided
    | Notice
)


def to_data(message: PageMessage) -> dict[str, Any]:
    """The message as the plain object that goes into ``data``."""
    data: dict[str, Any] = msgspec.to_builtins(message)
    return data
