from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.interleave import (
    Code,
    End,
    Event,
    Group,
    InterleaveParser,
    MalformedToolCall,
    Slot,
    SpeechEnd,
    Text,
    Thought,
    ThoughtEnd,
    ToolCall,
    parse_tool_call,
)
from tests.model_runtime import tiny

TOKENIZER = tiny.tokenizer(think=True)
TOKENS = TOKENIZER.tokens
A = [TOKENS.audio0 + k for k in range(6562)]
PAD, TTS_START, TTS_END, EOT = TOKENS.tts_pad, TOKENS.tts_start, TOKENS.tts_end, TOKENS.eot
assert TOKENS.tool_call is not None
assert TOKENS.tool_call_end is not None
assert TOKENS.think is not None
assert TOKENS.think_end is not None
CALL, CALL_END, THINK, THINK_END = TOKENS.tool_call, TOKENS.tool_call_end, TOKENS.think, TOKENS.think_end


def byte(text: str | bytes) -> list[int]:
    """A token for each byte."""
    raw = text if isinstance(text, bytes) else text.encode()
    return [id for b in raw for id in range(256) if TOKENIZER.bytes_of(id) == bytes([b])]


H, I, SPACE = byte("H")[0], byte("I")[0], byte(" ")[0]  # noqa: E741 - the letter I


def parser(speaking: bool = True, thinking: bool = False) -> InterleaveParser:
    return InterleaveParser(TOKENS, TOKENIZER.bytes_of, speaking=speaking, thinking=thinking)


def read(ids: Sequence[int], speaking: bool = True, thinking: bool = False) -> list[Event]:
    reader = parser(speaking, thinking)
    return reader.push(ids) + reader.finish()


def groups(events: list[Event]) -> list[Group]:
    return [event for event in events if isinstance(event, Group)]


def codes(events: list[Event]) -> list[int]:
    return [event.code for event in events if isinstance(event, Code)]


def test_a_well_formed_answer() -> None:
    events = read([H, *A[:4], I, *A[4:8], PAD, *A[8:10], A[6561], A[6561], TTS_END, EOT])
    assert groups(events) == [Group(4, "H", 5), Group(4, "I", 10), Group(2, "", 15)]
    assert codes(events) == list(range(10))
    assert events[-2:] == [SpeechEnd(), End()]


def test_a_code_is_known_before_its_group_is() -> None:
    reader = parser()
    assert reader.push([H, A[7]]) == [Code(7)]
    assert reader.groups == 0
    assert reader.push(A[:3])[-1] == Group(4, "H", 5)
    assert reader.groups == 1


def test_slots_are_known_beforehand() -> None:
    reader = parser()
    seen = []
    for id in [H, *A[:4], PAD, *A[:4], TTS_END, SPACE]:
        seen.append(reader.slot)
        reader.push([id])
    assert seen == [Slot.TEXT, *[Slot.AUDIO] * 4, Slot.TEXT, *[Slot.AUDIO] * 4, Slot.TEXT, Slot.FREE]


def test_a_letter_split_over_groups_belongs_to_the_one_that_completes_it() -> None:
    first, second = byte("é")
    assert [g.text for g in groups(read([first, *A[:4], second, *A[:4]]))] == ["", "é"]


def test_half_a_letter_at_the_end_is_left_out() -> None:
    assert [g.text for g in groups(read([byte("é")[0], *A[:4], TTS_END, *byte("ok"), EOT]))] == [""]
    assert Text("o") in read([byte("é")[0], *A[:4], TTS_END, *byte("o"), EOT])


@pytest.mark.parametrize(
    ("ids", "wanted"),
    [
        ([H, *A[:2], I, *A[:4]], [Group(2, "H", 3), Group(4, "I", 8)]),  # audio tokens are missing
        ([H, I, *A[:4]], [Group(0, "H", 1), Group(4, "I", 6)]),  # two texts
        ([H, *A[:5], I, *A[:4]], [Group(4, "H", 5), Group(1, "", 6), Group(4, "I", 11)]),  # one too many
        ([*A[:4], H, *A[:4]], [Group(4, "", 4), Group(4, "H", 9)]),  # no text at the start
        ([H, *A[:4], TOKENS.audio_patch, I, *A[:4]], [Group(4, "H", 5), Group(4, "I", 11)]),  # a stray token
        ([H, A[6561], *A[:2], TTS_START], [Group(2, "H", 5)]),  # speech begun once more
    ],
)
def test_malformed_groups_lose_no_sound(ids: list[int], wanted: list[Group]) -> None:
    events = read([*ids, TTS_END, EOT])
    assert groups(events) == wanted
    assert len(codes(events)) == sum(group.codes for group in wanted)


def test_an_open_group_is_closed_by_the_end() -> None:
    assert read([H, *A[:2], EOT]) == [Code(0), Code(1), Group(2, "H", 3), SpeechEnd(), End()]
    assert read([H, *A[:2]])[-3:] == [Group(2, "H", 3), SpeechEnd(), End()]  # a length limit


def test_nothing_at_all() -> None:
    assert read([]) == [SpeechEnd(), End()]
    assert read([], speaking=False) == [End()]


def test_what_follows_the_end_means_nothing() -> None:
    reader = parser()
    reader.push([EOT])
    assert reader.over
    assert reader.push([H, *A[:4]]) == []
    assert (reader.read, reader.finish()) == (1, [])


def test_written_answer() -> None:
    events = read([*byte("né"), A[3], EOT], speaking=False)
    assert "".join(event.text for event in events if isinstance(event, Text)) == "né"
    assert codes(events) == []


def test_a_written_answer_may_turn_to_speech() -> None:
    assert groups(read([SPACE, TTS_START, H, *A[:4], EOT], speaking=False)) == [Group(4, "H", 7)]


def call(body: str) -> list[int]:
    return [CALL, *byte(body), CALL_END]


def test_tool_calls_after_speech() -> None:
    ids = [H, *A[:4], TTS_END, *call('function\nfind\n{"q": "zelt ü"}'), *call("function\nstop\n{}"), EOT]
    calls = [event for event in read(ids) if isinstance(event, ToolCall)]
    assert [(c.name, c.arguments) for c in calls] == [("find", {"q": "zelt ü"}), ("stop", {})]
    assert calls[1].raw == "function\nstop\n{}"


def test_a_tool_call_ends_speech_that_was_not_closed() -> None:
    events = read([H, *A[:2], *call("function\nstop\n{}"), EOT])
    assert events[2:] == [Group(2, "H", 3), SpeechEnd(), ToolCall("stop", {}, "function\nstop\n{}"), End()]


def test_a_tool_call_that_is_not_closed() -> None:
    events = read([TTS_END, CALL, *byte("function\nst"), A[0], EOT])
    assert events[1:] == [MalformedToolCall("function\nst", "The call is not closed."), End()]


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "function\nfind",
        "method\nfind\n{}",
        "function\nfind\n",
        "function\nfind\n{",
        "function\nfind\n[1]",
        'function\nfind\n{"x": NaN}',
        "function\nfind\n" + "[" * 100_000,
        'function\nfind\n{"x": ' + "9" * 5000 + "}",
    ],
)
def test_malformed_calls_are_told_of(raw: str) -> None:
    event = parse_tool_call(raw)
    assert isinstance(event, MalformedToolCall)
    assert event.raw == raw
    assert event.error.endswith(".")


@given(
    st.text("abc_", min_size=1),
    st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.booleans())),
)
def test_any_call_survives_being_written(name: str, arguments: dict[str, object]) -> None:
    raw = f"function\n{name}\n{json.dumps(arguments, ensure_ascii=True)}"
    assert parse_tool_call(raw) == ToolCall(name, arguments, raw)


def thought(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Thought))


def test_thought_ended_by_a_token() -> None:
    events = read([*byte("hm <"), THINK_END, *byte("x"), EOT], thinking=True)
    assert thought(events) == "hm <"
    assert events[-3:] == [ThoughtEnd(), Text("x"), End()]


def test_thought_ended_by_text() -> None:
    events = read([*byte("a </b </think>ok"), EOT], thinking=True)
    assert thought(events) == "a </b "
    assert [event for event in events if isinstance(event, Text)] == [Text("o"), Text("k")]


def test_a_token_may_hold_the_end_of_the_thought_and_more() -> None:
    reader = InterleaveParser(TOKENS, lambda id: {1: b"a</thi", 2: b"nk> b"}[id], thinking=True)
    assert reader.push([1, 2]) == [Thought("a"), ThoughtEnd(), Text(" b")]


def test_thought_cut_short() -> None:
    assert read([*byte("a</th"), A[0], EOT], thinking=True)[-3:] == [Thought("</th"), ThoughtEnd(), End()]


def test_a_thought_the_model_begins_itself() -> None:
    events = read([THINK, *byte("a"), THINK_END, EOT], speaking=False)
    assert events == [Thought("a"), ThoughtEnd(), End()]


CONTROLS = (PAD, TTS_START, TTS_END, CALL, CALL_END, THINK, THINK_END, EOT)
STRAYS = (TOKENS.audio_patch, TOKENS.audio_start)
ANY = st.sampled_from([*byte("Hé </think>"), *A[:3], A[6561], *CONTROLS, *STRAYS])
STREAM = st.lists(ANY, max_size=60) | st.lists(
    st.tuples(st.sampled_from([PAD, *byte("Hé")]), *[st.sampled_from(A[:9])] * 4), max_size=8
).map(lambda rows: [*(id for row in rows for id in row), TTS_END, EOT])


@given(STREAM, st.lists(st.integers(0, 60), max_size=6), st.booleans(), st.booleans())
def test_the_split_does_not_matter(ids: list[int], cuts: list[int], speaking: bool, thinking: bool) -> None:
    borders = sorted({0, len(ids), *(cut for cut in cuts if cut < len(ids))})
    reader = parser(speaking, thinking)
    events = [
        event
        for start, end in zip(borders, [*borders[1:], len(ids)], strict=True)
        for event in reader.push(ids[start:end])
    ]
    assert events + reader.finish() == read(ids, speaking, thinking)


@given(STREAM)
def test_every_code_belongs_to_one_group_and_ends_grow(ids: list[int]) -> None:
    events = read(ids)
    made = groups(events)
    assert sum(group.codes for group in made) == len(codes(events))
    assert all(0 <= group.codes <= 4 for group in made)
    ends = [group.end for group in made]
    assert ends == sorted(set(ends))
    assert ends[-1:] <= [len(ids)]
    assert events.count(End()) == 1
    assert events[-1] == End()
