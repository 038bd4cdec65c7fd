"""The values of a call in Redis as bytes, and back. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from model_runtime.protocol import HistoryEntry, decode_engine
from pipeline.conversation import Conversation
from pipeline.memory.keys import F_CONVERSATION, F_COUNT, F_FACTS, F_SCHEMA, SCHEMA, f_place

_encoder = msgspec.msgpack.Encoder()
_facts = msgspec.msgpack.Decoder(dict[str, str])
_conversation = msgspec.msgpack.Decoder(Conversation)


@dataclass(frozen=True)
class Remembered:
    """A call as it is remembered: small ``facts``, the engine's ``history``, what was said and heard."""

    call_id: str
    facts: dict[str, str]
    history: list[HistoryEntry]
    conversation: Conversation


class Unreadable(Exception):  # noqa: N818 - reads as what it is
    """What is stored of a call is not what Parley writes. The message says which part."""


class NewerSchema(Exception):  # noqa: N818 - reads as what it is
    """A call that a later version of Parley has written, which may want it back."""


def pack_facts(facts: Mapping[str, str]) -> bytes:
    """Small facts as stored. Raises ``UnicodeError`` for half a surrogate pair, ``TypeError``."""
    return _encoder.encode(facts)


def unpack_facts(packed: bytes) -> dict[str, str]:
    """Raises ``msgspec.DecodeError``."""
    return _facts.decode(packed)


def pack_conversation(conversation: Conversation) -> bytes:
    """A conversation as stored. Raises ``UnicodeError`` for half a surrogate pair, ``TypeError``."""
    return _encoder.encode(conversation)


def unpack_conversation(packed: bytes) -> Conversation:
    """Raises ``msgspec.DecodeError``."""
    return _conversation.decode(packed)


def unpack(call_id: str, fields: Mapping[bytes, bytes]) -> Remembered:
    """A call's hash, checked in every part. Raises ``NewerSchema``, ``Unreadable``."""
    try:
        schema = int(fields.get(F_SCHEMA, b""))
    except ValueError:
        raise Unreadable("has no version") from None
    if schema != SCHEMA:
        # There was no earlier version than the first. A later one may migrate here what it can.
        fault = NewerSchema if schema > SCHEMA else Unreadable
        raise fault(f"is of version {schema}, this Parley's is {SCHEMA}")
    part = "facts"
    try:
        facts = unpack_facts(fields[F_FACTS]) if F_FACTS in fields else {}
        part = "conversation"
        said = unpack_conversation(fields[F_CONVERSATION]) if F_CONVERSATION in fields else Conversation()
        part = "history"
        history = [_entry(fields, place) for place in range(int(fields.get(F_COUNT, b"0")))]
    except (ValueError, KeyError, RecursionError) as error:  # msgspec's and Unicode's are ValueErrors
        raise Unreadable(f"has a {part} that cannot be read: {error!r}") from None
    return Remembered(call_id, facts, history, said)


def _entry(fields: Mapping[bytes, bytes], place: int) -> HistoryEntry:
    entry = decode_engine(fields[f_place(place)])
    if not isinstance(entry, HistoryEntry) or entry.place != place:
        raise ValueError(f"something else stands at place {place}")
    return entry
