"""Replies that are more, or less, than speech: tools, thoughts, transcripts, loops, silence, no room."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from model_runtime.engine.guards import MUTE_GROUPS
from model_runtime.engine.job import Purpose
from model_runtime.engine.ops import Op, Prefill
from model_runtime.engine.refusal import Refusal
from model_runtime.protocol import (
    Cancel,
    Commit,
    Done,
    Drop,
    Error,
    HistoryEntry,
    Open,
    Respond,
    Speech,
    Thinking,
    ToolCall,
    ToolResult,
    Transcript,
)
from tests.model_runtime.engine.rig import GREEDY, Rig
from tests.model_runtime.engine.test_session import HELLO, answered, assert_exact, history

# --- tools ---


def call(rig: Rig, body: str) -> list[int]:
    start, end = rig.kit.model.tokenizer.id_of("<tool_call>"), rig.kit.model.tokenizer.id_of("</tool_call>")
    assert start is not None
    assert end is not None
    return [start, *rig.text(body), end]


def test_tool_calls_follow_the_speech_and_stay_in_the_history() -> None:
    rig = Rig()
    calls = call(rig, 'function\nweather\n{"city": "Ulm"}') + call(rig, 'function\nsay\n{"it": "é"}')
    ids = answered(rig, after=calls)
    assert rig.told(ToolCall) == [
        ToolCall(0, "weather", {"city": "Ulm"}, raw='function\nweather\n{"city": "Ulm"}'),
        ToolCall(0, "say", {"it": "é"}, raw='function\nsay\n{"it": "é"}'),
    ]
    kinds = [type(message) for message in rig.said]
    assert kinds.index(ToolCall) > max(i for i, kind in enumerate(kinds) if kind is Speech)
    assert rig.last(Done).reason == "end"
    rig.send(Commit(0, len(HELLO)))
    assert history(rig)[-len(ids) - 1 :] == [*ids, rig.tokens.eot]
    assert_exact(rig)


def test_a_call_that_was_cut_off_with_the_speech_is_not_in_the_history() -> None:
    rig = Rig()
    answered(rig, after=call(rig, "function\nweather\n{}"))
    rig.send(Commit(0, 2))
    assert rig.kit.model.tokenizer.id_of("<tool_call>") not in history(rig)


@pytest.mark.parametrize("body", ["function\nweather\n{", "weather", "function\nweather\n[1]", ""])
def test_a_malformed_call_is_told_with_its_text(body: str) -> None:
    rig = Rig()
    answered(rig, after=call(rig, body))
    told = rig.last(ToolCall)
    assert told.raw == body
    assert told.error
    assert rig.last(Done).reason == "end"


def test_a_call_without_speech_is_no_silence() -> None:
    rig = Rig()
    ids = answered(rig, words=[], after=call(rig, "function\nweather\n{}"))
    assert rig.last(Done).reason == "end"
    rig.send(Commit(0, 0))
    assert history(rig)[-len(ids) - 1 : -1] == ids


def test_tool_results_come_into_the_history_in_order() -> None:
    rig = Rig()
    rig.send(ToolResult("a", "1"), ToolResult("b", "2"))
    text = rig.kit.model.tokenizer.decode(history(rig))
    assert text.endswith("function_output\na\n1function_output\nb\n2")


def test_the_engine_says_by_its_id_that_it_has_a_result() -> None:
    rig = Rig()
    rig.send(ToolResult("a", "1", "the first"), ToolResult("b", "2"))
    rig.run()
    assert [entry.result for entry in rig.told(HistoryEntry)][-2:] == ["the first", ""]


# --- replies that do not end well ---


def test_a_reply_that_loops_is_cut_short() -> None:
    rig = Rig()
    rig.hear()
    rig.kit.script = rig.groups(["n", "o"] * 100)
    rig.send(Respond(0, spans=[(0, 16_000)]))
    rig.run()
    assert rig.last(Done).reason == "length"
    assert rig.last(Done).groups < 40
    rig.send(Commit(0))
    assert history(rig)[-2:] == [rig.tokens.tts_end, rig.tokens.eot]
    assert_exact(rig)


def test_a_reply_is_as_long_as_a_reply_may_be_and_no_longer() -> None:
    rig = Rig(max_reply_s=3.2, slot_masking=True)
    rig.hear()
    rig.send(Respond(0, spans=[(0, 16_000)]))
    rig.run()
    assert rig.last(Done).groups <= 20
    assert sum(len(piece.pcm) for piece in rig.told(Speech)) <= 2 * 24_000 * 3.2


MUTE = [*"hello you"]  # more words than a reply has before its first sound


@pytest.mark.parametrize("masked", [False, True])
def test_words_without_sound_are_taken_back_and_the_model_has_to_sound_then(
    masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it draws then is its own, and it would rather pad: it is not let."""
    rig = Rig(slot_masking=masked, max_reply_s=1.6)
    backbone, pad = rig.kit.model.backbone, rig.tokens.audio_pad
    logits = backbone.logits

    def rather_pads(hidden: Tensor, rows: tuple[int, int] | None = None) -> Tensor:
        scores, (first, stop) = logits(hidden, rows).clone(), rows or (0, pad + 1)
        if pad < stop:
            scores[..., pad - first] = 1e4
        return scores

    monkeypatch.setattr(backbone, "logits", rather_pads)
    rig.hear()
    rig.kit.script = rig.groups(MUTE, codes=0)[: 5 * MUTE_GROUPS]
    rig.send(Respond(0, spans=[(0, 16_000)]))
    rig.run()
    assert not rig.kit.script  # read to the last of it, and no further
    done = rig.last(Done)
    assert done.reason in ("end", "length")
    assert sum(len(piece.pcm) for piece in rig.told(Speech)) == 2 * 960 * 4 * done.groups
    assert done.text == "".join(text for piece in rig.told(Speech) for text in piece.group_text)
    assert not done.text.startswith("hello")
    rig.send(Commit(0))
    assert "hello" not in rig.kit.model.tokenizer.decode(history(rig))
    assert_exact(rig)


@pytest.mark.parametrize("ending", ["speech", "beside", "never"])
def test_a_short_reply_in_words_alone_is_tried_again_at_its_end(ending: str) -> None:
    rig = Rig(max_text_tokens=8)
    rig.hear()
    end, eot = rig.tokens.tts_end, rig.tokens.eot
    mute = {
        "speech": [*rig.groups([*"hey"], codes=0), end, eot],
        "beside": [end, *rig.text("hey"), eot],
        "never": [end, *8 * rig.text("h")],
    }
    spoken = [*rig.groups(HELLO), end]
    rig.kit.script = [*mute[ending], *spoken, eot]
    rig.send(Respond(0, spans=[(0, 16_000)]))
    rig.run()
    assert (rig.last(Done).reason, rig.last(Done).text) == ("end", "hello")
    assert [text for piece in rig.told(Speech) for text in piece.group_text] == HELLO
    assert not rig.told(Error)
    rig.send(Commit(0))
    assert history(rig)[-len(spoken) - 2 :] == [rig.tokens.tts_start, *spoken, eot]
    assert_exact(rig)


def test_a_model_that_stays_mute_is_told_of_and_leaves_no_trace() -> None:
    rig = Rig()
    clean = history(rig)
    rig.hear()
    mute = rig.groups(MUTE, codes=0)[: 5 * MUTE_GROUPS]
    rig.kit.script = [*mute, *mute]
    rig.send(Respond(0, spans=[(0, 16_000)]))
    rig.run()
    assert not rig.kit.script
    assert rig.last(Error).turn == 0
    assert not rig.last(Error).fatal
    assert rig.last(Done).reason == "error"
    assert not rig.told(Speech)
    rig.send(Drop(0))
    assert history(rig) == clean
    answered(rig, 1)
    assert rig.last(Done).reason == "end"
    rig.send(Commit(1))
    assert_exact(rig)


def test_words_that_only_come_before_a_call_are_told_with_it() -> None:
    rig = Rig()
    rig.hear()
    words = rig.groups([*"wait"], codes=0)
    rig.kit.script = [*words, rig.tokens.tts_end, *call(rig, "function\nweather\n{}"), rig.tokens.eot]
    rig.send(Respond(0, spans=[(0, 16_000)]))
    rig.run()
    assert rig.last(ToolCall).name == "weather"
    assert rig.last(Speech).group_text == [*"wait"]
    assert rig.last(Done).reason == "end"


def test_nothing_at_all_is_silence() -> None:
    rig = Rig()
    rig.hear()
    rig.kit.script = [rig.tokens.eot]
    rig.send(Respond(0, spans=[(0, 16_000)]))
    rig.run()
    assert rig.last(Done).reason == "silent"
    rig.send(Commit(0))
    assert history(rig)[-3:] == [rig.tokens.tts_start, rig.tokens.tts_end, rig.tokens.eot]


def test_a_reply_that_never_closes_its_speech_is_closed_in_the_history() -> None:
    rig = Rig()
    rig.hear()
    rig.kit.script = [*rig.groups(HELLO), rig.tokens.eot]
    rig.send(Respond(0, spans=[(0, 16_000)]))
    rig.run()
    assert rig.last(Done).reason == "end"
    rig.send(Commit(0))
    assert history(rig)[-2:] == [rig.tokens.tts_end, rig.tokens.eot]
    assert_exact(rig)


@pytest.mark.parametrize("words", [[], ["x", "y"]])
def test_speech_that_was_opened_again_and_never_closed_is_closed_in_the_history(words: list[str]) -> None:
    rig = Rig()
    again = [rig.tokens.tts_start, *rig.groups(words)]
    ids = answered(rig, after=again)
    assert rig.last(Done).reason == "end"
    rig.send(Commit(0))
    assert history(rig)[-len(ids) - 2 :] == [*ids, rig.tokens.tts_end, rig.tokens.eot]
    assert rig.session._history.entries[-1].short is not None
    assert rig.tokens.tts_start not in rig.session._history.entries[-1].short.ids
    assert_exact(rig)


def test_endless_text_beside_the_speech_ends() -> None:
    rig = Rig(max_text_tokens=50)
    answered(rig, after=rig.text("blah") * 100)
    assert rig.last(Done).reason == "length"
    assert rig.last(Done).text == "hello"


# --- thoughts ---


def thought(rig: Rig, words: str) -> None:
    rig.hear()
    rig.kit.script = [*rig.text(words), *rig.groups(HELLO), rig.tokens.tts_end, rig.tokens.eot]
    rig.send(Respond(0, spans=[(0, 16_000)], think=True))
    rig.run()


def test_thoughts_are_shown_and_not_kept() -> None:
    rig = Rig()
    thought(rig, "they say < hello</think>")
    assert "".join(piece.text for piece in rig.told(Thinking)) == "they say < hello"
    assert rig.last(Done).text == "hello"
    rig.send(Commit(0, 3))
    assert "they say" not in rig.kit.model.tokenizer.decode(history(rig))
    assert_exact(rig)


def test_a_thought_is_cut_at_its_budget_and_speech_follows() -> None:
    rig = Rig(max_thought_tokens=4)
    rig.hear()
    rig.kit.script = [*rig.text("abcdefgh")[:4], *rig.groups(HELLO), rig.tokens.tts_end, rig.tokens.eot]
    # The id drawn after the last thought token is thrown away: one more is needed.
    rig.kit.script.insert(4, rig.text("x")[0])
    rig.send(Respond(0, spans=[(0, 16_000)], think=True))
    rig.run()
    assert rig.last(Done).text == "hello"


def test_a_dropped_thought_leaves_no_trace() -> None:
    rig = Rig()
    clean = history(rig)
    rig.hear()
    rig.kit.script = rig.text("they say hello and so on")
    rig.send(Respond(0, spans=[(0, 16_000)], think=True))
    rig.run(until=lambda: bool(rig.told(Thinking)))
    rig.send(Drop(0))
    assert history(rig) == clean
    assert_exact(rig)


def test_a_thought_leaves_room_for_speech_in_a_narrow_context() -> None:
    rig = Rig(max_context=300, max_thought_tokens=1000)
    rig.hear()
    rig.kit.script = rig.text("so it is ") * 100
    rig.send(Respond(0, spans=[(0, 16_000)], think=True))
    rig.run(until=lambda: bool(rig.told(Thinking)) and isinstance(rig.session._jobs[0].op, Prefill))
    rig.kit.script = [*rig.groups(HELLO), rig.tokens.tts_end, rig.tokens.eot]
    rig.run()
    assert (rig.last(Done).reason, rig.last(Done).text) == ("end", "hello")


# --- transcripts ---


def transcribed(rig: Rig) -> None:
    rig.hear()
    rig.kit.script = [*rig.groups([*"abcdefghijkl"]), rig.tokens.tts_end, rig.tokens.eot]
    rig.kit.heard = [*rig.text("what is it"), rig.tokens.eot]
    rig.send(Respond(0, spans=[(0, 16_000)], transcribe=True))


def test_a_transcript_comes_after_the_first_audio() -> None:
    rig = Rig()
    transcribed(rig)
    rig.run()
    assert rig.told(Transcript) == [Transcript(0, "what is it")]
    kinds = [type(message) for message in rig.said]
    assert kinds.index(Speech) < kinds.index(Transcript)
    rig.send(Commit(0))
    assert_exact(rig)


def test_a_transcript_of_a_committed_turn_comes_even_if_it_was_cut_early() -> None:
    rig = Rig()
    transcribed(rig)
    rig.send(Cancel(0), Commit(0, 0))
    rig.run()
    assert rig.told(Transcript) == [Transcript(0, "what is it")]


def test_a_dropped_turn_is_not_transcribed() -> None:
    rig = Rig()
    transcribed(rig)
    rig.run(until=lambda: bool(rig.told(Speech)))
    rig.send(Drop(0))
    rig.run()
    assert not rig.told(Transcript)


# --- a full context ---


def test_a_long_call_goes_on_and_keeps_its_words() -> None:
    rig = Rig(max_context=600)
    for turn in range(14):
        answered(rig, turn, words=[*"the number is", ""])
        assert rig.last(Done).reason == "end", turn
        rig.send(Commit(turn))
        assert len(history(rig)) <= 600
        assert_exact(rig)
    text = rig.kit.model.tokenizer.decode(history(rig))
    assert text.startswith("system\nBe kind.")
    assert text.count("the number is") > 600 // 80  # more than would fit with their sound


def read_in_replies(rig: Rig) -> list[int]:
    """Tokens read into the cache by each unit of work on a reply, from now on."""
    read: list[int] = []
    execute = rig.kit.execute

    def noting(op: Op) -> Any:
        if isinstance(op, Prefill) and rig.session._jobs[0].purpose is Purpose.RESPONSE:
            read.append(len(op.tokens))
        return execute(op)

    rig.kit.execute = noting  # type: ignore[method-assign]  # to see what is read
    return read


def test_no_reply_waits_for_room_in_a_full_context() -> None:
    rig = Rig(max_context=600)
    read = read_in_replies(rig)
    for turn in range(10):
        read.clear()
        answered(rig, turn)
        assert sum(read) < 40, turn  # a second of the caller and the opening, 30 tokens or so
        rig.send(Commit(turn))
        rig.run()
    assert rig.kit.model.tokenizer.decode(history(rig)).count("hello") > 4
    assert history(rig).count(rig.tokens.tts_start) < 10  # some have lost their sound
    assert_exact(rig)


def test_a_turn_longer_than_the_room_made_ahead_is_answered_all_the_same() -> None:
    rig = Rig(max_context=600)
    read = read_in_replies(rig)
    turn = 0
    while len(history(rig)) < 330:  # what is free would do for 5 s of the caller
        answered(rig, turn)
        rig.send(Commit(turn))
        turn += 1
    read.clear()
    start = rig.session._ring.end
    rig.hear(16.0)
    rig.kit.script = [*rig.groups(HELLO), rig.tokens.tts_end, rig.tokens.eot]
    rig.send(Respond(turn, spans=[(start, start + 16 * 16_000)]))
    rig.run()
    assert rig.last(Done).reason == "end"
    assert sum(read) > 16 * 12.5 + 30  # not without reading some of it anew
    rig.send(Commit(turn))
    assert_exact(rig)


def test_a_result_that_waits_for_its_answer_does_not_go_for_what_may_be_said_later() -> None:
    rig = Rig(max_context=600)
    free = 600 - 600 // 4 - len(history(rig))
    words = "a" * (free - 30)  # with its frame and the opening it just leaves room for a reply
    assert len(rig.text(words)) == free - 30
    rig.send(ToolResult("find", words))
    assert words in rig.kit.model.tokenizer.decode(history(rig))
    rig.kit.script = [*rig.groups(HELLO), rig.tokens.tts_end, rig.tokens.eot]
    rig.send(Respond(0))
    rig.run()
    rig.send(Commit(0))
    rig.run()
    assert rig.last(Done).reason == "end"


def test_what_the_caller_said_stays_as_words_when_they_are_known() -> None:
    rig = Rig(max_context=500)
    transcribed(rig)
    rig.run()
    rig.send(Commit(0))
    for turn in range(1, 8):
        answered(rig, turn)
        rig.send(Commit(turn))
        rig.run()
    assert "human\nwhat is it" in rig.kit.model.tokenizer.decode(history(rig))


def test_instructions_that_fill_the_context_are_refused() -> None:
    with pytest.raises(Refusal) as refusal:
        Rig(Open("test", instructions="be kind " * 500), max_context=600)
    assert (refusal.value.error.code, refusal.value.error.fatal) == ("context", True)


def test_a_turn_that_cannot_fit_is_refused_and_the_session_goes_on() -> None:
    rig = Rig(max_context=400)
    rig.send(Respond(0, text="a " * 600))
    rig.run()
    assert (rig.last(Error).code, rig.last(Error).turn, rig.last(Error).fatal) == ("context", 0, False)
    assert rig.last(Done).reason == "error"
    rig.send(Drop(0))
    answered(rig, 1)
    assert rig.last(Done).reason == "end"


def test_a_long_result_that_fills_the_context_is_still_answered() -> None:
    rig = Rig(max_context=600)
    for turn in range(3):
        answered(rig, turn)
        rig.send(Commit(turn))
    rig.send(ToolResult("find", "boats " * 60))
    rig.kit.script = [*rig.groups(HELLO), rig.tokens.tts_end, rig.tokens.eot]
    rig.send(Respond(3))
    rig.run()
    assert rig.last(Done).reason == "end"
    assert rig.kit.model.tokenizer.decode(history(rig)).count("boats") == 60


def test_a_reply_that_meets_the_end_of_the_context_is_cut_there() -> None:
    rig = Rig(Open("test", sampling=GREEDY), max_context=128, slot_masking=True)
    rig.hear()
    rig.send(Respond(0, spans=[(0, 16_000)]))
    rig.run()
    assert rig.last(Done).reason == "length"
    rig.send(Commit(0))
    assert len(history(rig)) <= 128


def test_a_fault_in_the_middle_of_a_turn_ends_that_turn_alone() -> None:
    rig = Rig()
    answered(rig, 0)
    rig.send(Commit(0))
    rig.run()
    rig.hear()
    rig.send(Respond(1, spans=[(0, 16_000)]))
    rig.step()
    rig.step()
    job = rig.session._jobs[0]
    rig.session.abandon(job, Error("internal", "It broke.", turn=1))
    assert rig.last(Done) == Done(1, "error", timings=rig.last(Done).timings)
    answered(rig, 2)
    assert rig.last(Done).reason == "end"
    rig.send(Commit(2))
    assert torch.isfinite(rig.next_scores()).all()
    assert_exact(rig)


# --- as the reference implementation does it ---


def test_like_the_reference_a_reply_is_first_heard_after_28_codes() -> None:
    rig = Rig(like_reference=True)
    rig.kit.script = [*rig.kit.spoken(10), rig.tokens.tts_end, rig.tokens.eot]
    rig.send(Respond(0, text="Hello?"))
    rig.run()
    first, *_ = said = [len(message.pcm) // 2 for message in rig.told(Speech)]
    held = 8 * 480  # frames of the first chunk that the second is faded into
    assert first == 25 * 960 - held
    assert sum(said) == 40 * 960
