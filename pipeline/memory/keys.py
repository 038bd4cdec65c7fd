"""Where everything is in Redis: the one place that knows the names of keys and of a hash's fields.

::

    parley:{TENANT}:call:ID         hash    everything about one call, see below
    parley:{TENANT}:set-aside:ID            what was found in its place once and could not be read
    parley:{TENANT}:lease:ID        string  the process that has the call on the line; expires soon after it
    parley:{TENANT}:forgotten:ID    string  it was erased: whoever still knows of it writes no more
    parley:{TENANT}:caller:HASH     hash    what is remembered of a caller, see below
    parley:{TENANT}:placed:HASH     hash    the call that was placed for an idempotency key, see below
    parley:{TENANT}:voice:NAME      hash    a voice of the library, see below
    parley:{TENANT}:voice-set-aside:NAME    what was found in its place once and could not be read
    parley:{TENANT}:voices          hash    by name the hash of each voice's file, empty if it was removed;
                                            and by "#" a number that grows whenever one changes
    parley:{TENANT}:vectors:EDITION         vector set: an edition of a knowledge base, see below
    parley:{TENANT}:vectors-making:EDITION  the same while it is being written; whoever looks for it has none
    parley:{TENANT}:vectors-lease:EDITION   string  the process that writes it; expires soon after it
    parley:{TENANT}:vectors-set-aside:EDITION   what was found in its place once and is not what was written

The braces are really there: Redis Cluster puts all keys with the same text in braces on one node, which a
transaction over several of them needs.

A call is one hash, so that one command reads it as it was at one moment::

    schema          the version of all this, ``SCHEMA``
    revision        new at every write; who finds another than their own last was not the last to write
    facts           msgpack: a map of strings, see below
    conversation    msgpack: ``pipeline.conversation.Conversation``
    count           entries in the history; what stands at this place or behind it does not count
    0, 1, ...       msgpack: the ``model_runtime.protocol.HistoryEntry`` of that place

Facts can be added without another ``SCHEMA``: who does not know one leaves it alone. These are there::

    agent, checkpoint   who answered, by which model
    agent_file          the name of that agent's file: who goes on with the conversation
    ingress, caller     the way the call came, and from whom: a SIP URI, or "browser"
    began, ended        ISO 8601, UTC; no ``ended``: it goes on, or its process died
    end                 how it ended, ``pipeline.call.CallEnd.reason``

A caller is known by a hash of their SIP URI (``pipeline.memory.callers``)::

    schema          the version of this, ``CALLER_SCHEMA``
    caller          their URI
    voice AGENT     the voice they chose when they last spoke with that agent

An idempotency key is known by its hash, for a day (``pipeline.memory.placed``)::

    schema          the version of this, ``PLACED_SCHEMA``
    request         SHA-256 of what was asked for, in hex
    call            the id of the call
    at              when it was placed: ISO 8601, UTC

A voice is written once, whole, and then only read, by one command::

    schema          the version of this, ``VOICE_SCHEMA``
    digest          of the file: SHA-256, in hex
    entry           what is told of it: JSON, ``model_runtime.library.entry.Entry``, with the consent
    file            the library's file: prompt tokens, speaker embedding, prompt mel, and all that is stored
                    with them (``model_runtime.library.packed``)

An edition is what a knowledge base holds at one moment, and its name a hash of that and of
``VECTORS_SCHEMA`` (``bot.knowledge.edition``): bases of equal content are one edition, on whatever machine.
A vector set has it (Redis 8: VADD, VSIM), in 8 bits; its elements are named ``DOCUMENT:PLACE``, a hash of the
document and the place of a passage in it. It is renamed to its name when it is whole, is only read then,
and expires an hour after nobody uses it any more. There is no text in it.
"""

from __future__ import annotations

import re

SCHEMA = 1  # to be raised when an older or newer Parley would misread what this one writes
VOICE_SCHEMA = 1  # likewise
CALLER_SCHEMA = 1  # likewise
PLACED_SCHEMA = 1  # likewise
VECTORS_SCHEMA = 1  # likewise: it is a part of every edition's name

ALL_LEASES = "parley:{*}:lease:*"  # of all tenants, as Redis's patterns go

F_SCHEMA = b"schema"
F_REVISION = b"revision"
F_FACTS = b"facts"
F_CONVERSATION = b"conversation"
F_COUNT = b"count"


F_CALLER = b"caller"
F_DIGEST = b"digest"
F_ENTRY = b"entry"
F_FILE = b"file"
F_GROWS = b"#"  # no voice has such a name


def f_place(place: int) -> bytes:
    """The field of the history's entry at ``place``."""
    return b"%d" % place


def f_voice(agent: str) -> bytes:
    """The field of a caller's voice with an agent."""
    return f"voice {agent}".encode(errors="backslashreplace")


class Keys:
    """The keys of one tenant. Raises ``ValueError`` for a tenant that would make keys ambiguous."""

    def __init__(self, tenant: str) -> None:
        """``tenant``: 1 to 64 letters, digits, dots, dashes and underscores."""
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", tenant):
            raise ValueError(f"{tenant!r} is no name for a tenant: letters, digits, '.', '_' and '-' only.")
        self._prefix = f"parley:{{{tenant}}}:"

    def call(self, call_id: str) -> bytes:
        """The hash of a call."""
        return self._key("call", call_id)

    def set_aside(self, call_id: str) -> bytes:
        """Where a call's hash is put that cannot be read."""
        return self._key("set-aside", call_id)

    def lease(self, call_id: str) -> bytes:
        """Who has the call on the line."""
        return self._key("lease", call_id)

    def forgotten(self, call_id: str) -> bytes:
        """Whether the call was erased of late."""
        return self._key("forgotten", call_id)

    def caller(self, known_as: str) -> bytes:
        """The hash of a caller."""
        return self._key("caller", known_as)

    def placed(self, known_as: str) -> bytes:
        """The hash of an idempotency key."""
        return self._key("placed", known_as)

    @property
    def callers(self) -> str:
        """All callers, as Redis's patterns go."""
        return f"{self._prefix}caller:*"

    def voice(self, name: str) -> bytes:
        """The hash of a voice."""
        return self._key("voice", name)

    def voice_set_aside(self, name: str) -> bytes:
        """Where a voice's hash is put that cannot be read."""
        return self._key("voice-set-aside", name)

    @property
    def voices(self) -> bytes:
        """Which voices there are."""
        return f"{self._prefix}voices".encode()

    def vectors(self, edition: str) -> bytes:
        """The vector set of an edition, whole."""
        return self._key("vectors", edition)

    def vectors_making(self, edition: str) -> bytes:
        """The same while it is being written."""
        return self._key("vectors-making", edition)

    def vectors_lease(self, edition: str) -> bytes:
        """Who writes it."""
        return self._key("vectors-lease", edition)

    def vectors_set_aside(self, edition: str) -> bytes:
        """Where is put what was found in its place and is not what was written."""
        return self._key("vectors-set-aside", edition)

    def kept(self, call_id: str) -> list[bytes]:
        """Every key that holds something of what was said in a call."""
        return [self.call(call_id), self.set_aside(call_id)]

    @property
    def everything(self) -> str:
        """All the tenant's keys, as Redis's patterns go: nothing in a tenant's name has a meaning there."""
        return f"{self._prefix}*"

    def call_of(self, key: bytes) -> str | None:
        """The id of the call of which ``key`` holds something; ``None``: it is no such key."""
        try:
            _, _, rest = key.decode().partition(self._prefix)
        except UnicodeDecodeError:
            return None  # nothing of Parley's
        call_id = rest.partition(":")[2]
        return call_id if key in self.kept(call_id) else None

    def _key(self, kind: str, call_id: str) -> bytes:
        # Ids come from outside, and JSON can carry half a surrogate pair, which UTF-8 cannot.
        return f"{self._prefix}{kind}:{call_id}".encode(errors="backslashreplace")
