"""What the model's tokens mean: speech in groups, text, thoughts, tool calls. Pure, one token at a time.

Speech ("TA4") is groups of one text slot and four audio slots, from ``<tts_start>`` to ``<tts_end>``. A side
that has run out is padded. Nothing forces a model to keep to this, so a group is closed by whatever does not
fit into it any more: a text token after sound, or a fifth audio token. What a token stream means never
depends on how it was split.
"""

from __future__ import annotations

import codecs
import enum
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

from model_runtime.tokens import SpecialTokens

GROUP_AUDIO = 4  # audio slots a group; 40 ms each

_CALL = re.compile(r"\s*function\n([^\n]+)\n(.*)", re.DOTALL)
_THINK_END = "</think>"


@dataclass(frozen=True, slots=True)
class Code:
    """One audio code 0..6560, as soon as it is known. The group it belongs to is still open."""

    code: int


@dataclass(frozen=True, slots=True)
class Group:
    """A group is complete. ``codes`` it really holds (0 to 4), its ``text``, and ``end``: ids read up to its
    end.
    """

    codes: int
    text: str
    end: int


@dataclass(frozen=True, slots=True)
class SpeechEnd:
    """No more sound in this turn, unless the model opens speech again."""


@dataclass(frozen=True, slots=True)
class Text:
    """Text outside speech: a written answer, or what follows the spoken one."""

    text: str


@dataclass(frozen=True, slots=True)
class Thought:
    """A piece of what the model thinks."""

    text: str


@dataclass(frozen=True, slots=True)
class ThoughtEnd:
    """The thought is complete; the answer has to be opened (``Template.after_thought``)."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model asks for a tool. ``raw`` is the text between the tags."""

    name: str
    arguments: dict[str, Any]
    raw: str


@dataclass(frozen=True, slots=True)
class MalformedToolCall:
    """A call that cannot be carried out, and why: one sentence."""

    raw: str
    error: str


@dataclass(frozen=True, slots=True)
class End:
    """The turn is over. Ids read after this mean nothing."""


Event: TypeAlias = Code | Group | SpeechEnd | Text | Thought | ThoughtEnd | ToolCall | MalformedToolCall | End


class Slot(enum.Enum):
    """What a well-formed stream holds next. ``FREE``: outside speech, anything."""

    TEXT = "text"
    AUDIO = "audio"
    FREE = "free"


class _Mode(enum.Enum):
    SPEECH = enum.auto()
    TEXT = enum.auto()
    THOUGHT = enum.auto()
    TOOL = enum.auto()
    OVER = enum.auto()


class InterleaveParser:
    """Reads the ids the model writes after its prompt.

    ``text_of`` gives the bytes of an id that is text (a character may be split over several). ``speaking``:
    the prompt ended with ``<tts_start>``. ``thinking``: it ended with an opened thought.
    """

    def __init__(
        self,
        tokens: SpecialTokens,
        text_of: Callable[[int], bytes],
        *,
        speaking: bool = True,
        thinking: bool = False,
    ) -> None:
        """Nothing read yet."""
        self._tokens = tokens
        self._ends = tokens.ends
        self._text_of = text_of
        self._mode = _Mode.THOUGHT if thinking else _Mode.SPEECH if speaking else _Mode.TEXT
        self._decoder = _utf8()
        self._open = False  # a group has begun
        self._slots = 0  # audio slots of the open group
        self._codes = 0  # of which hold a code
        self._text = ""  # of the open group
        self._held = ""  # the thought's last characters, while they may be the beginning of its end
        self._raw = bytearray()  # of the tool call
        self.read = 0  # ids so far
        self.groups = 0  # complete groups so far

    @property
    def slot(self) -> Slot:
        """What should come next; the basis of slot masking."""
        if self._mode is not _Mode.SPEECH:
            return Slot.FREE
        return Slot.AUDIO if self._open else Slot.TEXT

    @property
    def over(self) -> bool:
        """Whether the turn has ended."""
        return self._mode is _Mode.OVER

    def push(self, ids: Iterable[int]) -> list[Event]:
        """Read more ids; returns what has become known with them."""
        events: list[Event] = []
        for id in ids:
            self.read += 1
            match self._mode:
                case _Mode.SPEECH:
                    self._speech(id, events)
                case _Mode.TEXT:
                    self._plain(id, events)
                case _Mode.THOUGHT:
                    self._thought(id, events)
                case _Mode.TOOL:
                    self._tool(id, events)
                case _:  # over: this id was not read
                    self.read -= 1
        return events

    def finish(self) -> list[Event]:
        """The stream stops here, ended or not (a length limit): what was open is closed as it stands."""
        events: list[Event] = []
        if self._mode is not _Mode.OVER:
            self._end(events, self.read)
        return events

    # --- the modes ---

    def _speech(self, id: int, events: list[Event]) -> None:
        tokens = self._tokens
        if id in self._ends:
            self._end(events, self.read - 1)
        elif id == tokens.tts_end:
            self._end_speech(events, self.read - 1)
        elif id == tokens.tool_call:  # speech that was never closed
            self._end_speech(events, self.read - 1)
            self._mode = _Mode.TOOL
        elif tokens.is_audio(id):
            self._open = True
            self._slots += 1
            if (code := tokens.code(id)) is not None:
                self._codes += 1
                events.append(Code(code))
            if self._slots == GROUP_AUDIO:
                self._close_group(events, self.read)
        elif id == tokens.tts_pad or id not in tokens.control:
            if self._open:
                self._close_group(events, self.read - 1)
            self._open = True
            if id != tokens.tts_pad:
                self._text += self._decoder.decode(self._text_of(id))

    def _plain(self, id: int, events: list[Event]) -> None:
        tokens = self._tokens
        if id in self._ends:
            self._end(events, self.read - 1)
        elif id == tokens.tts_start:
            self._enter(_Mode.SPEECH)
        elif id == tokens.tool_call:
            self._enter(_Mode.TOOL)
        elif id == tokens.think:
            self._enter(_Mode.THOUGHT)
        elif id not in tokens.control and (text := self._decoder.decode(self._text_of(id))):
            events.append(Text(text))

    def _thought(self, id: int, events: list[Event]) -> None:
        if id in self._ends:
            self._end(events, self.read - 1)
        elif id == self._tokens.think_end:
            self._end_thought(events, self._held)
        elif id not in self._tokens.control:
            text = self._held + self._decoder.decode(self._text_of(id))
            thought, end, after = text.partition(_THINK_END)
            if end:
                self._end_thought(events, thought)
                if after:
                    events.append(Text(after))
                return
            held = next((n for n in range(len(_THINK_END) - 1, 0, -1) if text.endswith(_THINK_END[:n])), 0)
            sure, self._held = text[: len(text) - held], text[len(text) - held :]
            if sure:
                events.append(Thought(sure))

    def _tool(self, id: int, events: list[Event]) -> None:
        if id in self._ends:
            self._end(events, self.read - 1)
        elif id == self._tokens.tool_call_end:
            events.append(parse_tool_call(self._raw.decode("utf-8", "replace")))
            self._enter(_Mode.TEXT)
        elif id not in self._tokens.control:
            self._raw += self._text_of(id)

    # --- closing what is open ---

    def _close_group(self, events: list[Event], end: int) -> None:
        self.groups += 1
        events.append(Group(self._codes, self._text, end))
        self._open, self._slots, self._codes, self._text = False, 0, 0, ""

    def _end_speech(self, events: list[Event], end: int) -> None:
        if self._open:
            self._close_group(events, end)
        events.append(SpeechEnd())
        self._enter(_Mode.TEXT)

    def _end_thought(self, events: list[Event], rest: str) -> None:
        if rest:
            events.append(Thought(rest))
        events.append(ThoughtEnd())
        self._held = ""
        self._enter(_Mode.TEXT)

    def _end(self, events: list[Event], at: int) -> None:
        match self._mode:
            case _Mode.SPEECH:
                self._end_speech(events, at)
            case _Mode.THOUGHT:
                self._end_thought(events, self._held)
            case _Mode.TOOL:
                raw = self._raw.decode("utf-8", "replace")
                events.append(MalformedToolCall(raw, "The call is not closed."))
            case _:
                pass
        events.append(End())
        self._enter(_Mode.OVER)

    def _enter(self, mode: _Mode) -> None:
        # Half a character at such a border is no character: it is left out.
        self._mode = mode
        self._decoder = _utf8()
        self._raw.clear()


def _utf8() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("replace")


def parse_tool_call(raw: str) -> ToolCall | MalformedToolCall:
    """Read the text between the tags: ``function``, a name and a JSON object, each from a line of its own."""
    match = _CALL.fullmatch(raw)
    if match is None:
        return MalformedToolCall(
            raw, "A call is the line 'function', a line with the name, and JSON arguments."
        )
    name, body = match[1].strip(), match[2]
    try:
        arguments = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return MalformedToolCall(raw, f"The arguments of {name!r} are not JSON: {error}.")
    if not isinstance(arguments, dict):
        return MalformedToolCall(raw, f"The arguments of {name!r} are not a JSON object.")
    return ToolCall(name, arguments, raw)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")  # Python's reader would take NaN and Infinity
