"""The history told to the media process is enough for another engine to go on exactly where this stopped."""

from __future__ import annotations

import pytest
import torch
from msgspec.structs import replace

from model_runtime.engine.refusal import Refusal
from model_runtime.protocol import (
    Audio,
    Commit,
    Drop,
    HistoryEntry,
    Open,
    Respond,
    Speech,
    ToolResult,
    decode_client,
    encode,
)
from tests.model_runtime.engine.rig import GREEDY, Rig
from tests.model_runtime.engine.test_session import answered, assert_exact, history


def told(rig: Rig) -> list[HistoryEntry]:
    """What a media process holds after all that was said to it."""
    held: list[HistoryEntry] = []
    for entry in rig.told(HistoryEntry):
        assert entry.place <= len(held)
        held = [*held[: entry.place], entry]
    return held


def resumed(entries: list[HistoryEntry]) -> Rig:
    rig = Rig(Open("again", sampling=GREEDY, history=len(entries)))
    for entry in entries:
        message = decode_client(encode(entry))  # as it comes over the wire
        rig.send(message)
    rig.run()
    return rig


def talk() -> Rig:
    rig = Rig()
    answered(rig, 0)
    rig.send(Commit(0, 3))  # interrupted
    answered(rig, 1)
    rig.send(Commit(1))
    rig.run()
    return rig


def test_a_session_goes_on_elsewhere_id_for_id_and_score_for_score() -> None:
    first = talk()
    second = resumed(told(first))
    assert history(second) == history(first)
    assert torch.allclose(second.next_scores(), first.next_scores(), atol=1e-4)
    assert_exact(second)


def test_what_is_said_next_is_the_same() -> None:
    first = talk()
    second = resumed(told(first))
    sounds = []
    for rig in (first, second):
        rig.kit.script = [*rig.groups(["o", "k", ""]), rig.tokens.tts_end, rig.tokens.eot]
        before = len(rig.told(Speech))
        rig.send(Respond(5, text="And then?"))
        rig.run()
        sounds.append(b"".join(speech.pcm for speech in rig.told(Speech)[before:]))
    assert sounds[0] == sounds[1] != b""


def test_each_entry_is_told_once_and_anew_when_it_changes() -> None:
    rig = talk()
    places = [entry.place for entry in rig.told(HistoryEntry)]
    assert places == list(range(len(rig.session._history.entries)))
    size = len(rig.session._history)
    rig.session._history.shorten(limit=size - 1, goal=size - 10)  # the context runs full
    answered(rig, 2)
    rig.send(Commit(2))
    rig.run()
    again = [entry.place for entry in rig.told(HistoryEntry)][len(places) :]
    assert again[0] < len(places)
    assert [id for entry in told(rig) for id in entry.ids] == history(rig)


def test_that_nothing_is_left_is_told_too() -> None:
    rig = Rig(Open("test", sampling=GREEDY), max_context=260)
    rig.send(ToolResult("find", "boats " * 50))
    rig.run()
    assert len(told(rig)[0].ids) > 260
    answered(rig, 0)  # for which there would be no room else
    rig.send(Drop(0))
    assert history(rig) == []
    assert [entry.ids for entry in told(rig)] == [[]]
    assert history(resumed(told(rig))) == []


def test_nothing_may_come_before_the_whole_history() -> None:
    entries = told(talk())
    rig = Rig(Open("again", history=len(entries)))
    rig.send(entries[0], Audio(bytes(320)))
    with pytest.raises(Refusal, match=f"{len(entries) - 1} entries"):
        rig.send(Respond(9, text="Hello?"))


def test_a_history_of_another_model_is_refused() -> None:
    entries = told(talk())
    heard = next(entry for entry in entries if entry.rows)
    bad = [
        replace(heard, place=0, rows=[(0, b"123")]),
        replace(heard, place=0, ids=[10**6]),
        replace(heard, place=0, rows=[(len(heard.ids), heard.rows[0][1])]),
        replace(heard, place=0, rows=[heard.rows[0], heard.rows[0]]),
        replace(heard, place=1),
    ]
    for entry in bad:
        rig = Rig(Open("again", history=1))
        with pytest.raises(Refusal) as refused:
            rig.send(entry)
        assert refused.value.error.fatal
        assert "0" in refused.value.error.message or "due" in refused.value.error.message


def test_instructions_that_fill_the_context_are_refused_here_too() -> None:
    long = HistoryEntry(0, [5] * 1500, kept=True)
    with pytest.raises(Refusal, match="half the context"):
        Rig(Open("again", history=1)).send(long)
