"""The record of what was heard."""

from __future__ import annotations

from pipeline.conversation import Conversation, Exchange


def test_reads_as_messages() -> None:
    record = Conversation()
    record.add(Exchange(0, None, "Hello.", spoken=False))
    record.add(Exchange(1, "is it open", "Yes, un", interrupted=True))
    record.add(Exchange(2, None, ""))
    assert record.messages() == [
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "is it open"},
        {"role": "assistant", "content": "Yes, un"},
        {"role": "user", "content": "[speech]"},
    ]


def test_a_transcript_may_come_late() -> None:
    record = Conversation([Exchange(1, None), Exchange(3, None)])
    assert record.transcribe(1, "first")
    assert not record.transcribe(2, "never was")
    assert [exchange.caller for exchange in record.exchanges] == ["first", None]
