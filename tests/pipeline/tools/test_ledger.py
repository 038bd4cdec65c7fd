"""The account of tool calls: one way forward, over every end."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.protocol import ToolCall
from pipeline.tools.ledger import KEPT, Errand, ToolLedger

BOOK, PAY = ToolCall(1, "book", {"day": "Monday"}), ToolCall(1, "pay")


def results(ledger: ToolLedger) -> list[tuple[str, str, str]]:
    return [(result.id, result.name, result.content) for result in ledger.undelivered]


def test_a_call_goes_from_asked_to_told() -> None:
    ledger = ToolLedger()
    book, pay = ledger.enter([BOOK, PAY])
    assert ledger.running
    assert results(ledger) == []
    ledger.begin(book)
    ledger.finish(book, "Booked.", outside=True)
    assert results(ledger) == [(book.id, "book", "Booked.")]
    assert ledger.outside is True
    ledger.begin(pay)
    ledger.finish(pay, "Paid.")
    ledger.told(book.id)
    ledger.told("nobody's")
    assert results(ledger) == [(pay.id, "pay", "Paid.")]


def test_nothing_is_running_when_all_is_done() -> None:
    ledger = ToolLedger()
    (book,) = ledger.enter([BOOK])
    ledger.finish(book, "Booked.")
    assert not ledger.running


def test_what_a_lost_turn_asked_for_is_not_run_for_its_question_again() -> None:
    ledger = ToolLedger()
    book, pay = ledger.enter([BOOK, PAY])
    ledger.begin(book)
    ledger.finish(book, "Booked.")
    assert ledger.lose(1)
    assert not ledger.lose(2)
    other = ToolCall(2, "book", {"day": "Tuesday"})
    again, still, new = ledger.enter([msgspec.structs.replace(BOOK, turn=2), PAY, other], again=True)
    assert "not run again" in again.content
    assert "is running" in still.content
    assert new.state == "asked"
    (fresh,) = ledger.enter([BOOK])  # another question, which wants the same
    assert fresh.state == "asked"
    assert pay.state == "asked"


def test_the_account_of_a_call_that_broke_off_says_what_is_not_known() -> None:
    ledger = ToolLedger()
    done, begun, asked, known = ledger.enter([BOOK, BOOK, PAY, PAY])
    for errand in (done, begun, known):
        ledger.begin(errand)
    ledger.finish(done, "Booked.", outside=True)
    ledger.finish(known, "Paid.")
    left = ToolLedger.load(ledger.dump(), known={known.id, ""})
    contents = {result.id: result.content for result in left.undelivered}
    assert contents.keys() == {done.id, begun.id, asked.id}
    assert contents[done.id] == "Booked."
    assert "not known whether it was done" in contents[begun.id]
    assert "was not done" in contents[asked.id]
    assert left.outside
    assert not left.running


def test_a_result_told_of_late_is_told_again_if_the_history_that_is_left_lacks_it() -> None:
    ledger = ToolLedger()
    (book,) = ledger.enter([BOOK])
    ledger.finish(book, "Booked.")
    ledger.told(book.id)
    assert [result.content for result in ToolLedger.load(ledger.dump()).undelivered] == ["Booked."]
    assert ToolLedger.load(ledger.dump(), {book.id}).undelivered == []


def test_results_told_long_ago_are_forgotten() -> None:
    ledger = ToolLedger()
    for _ in range(KEPT + 3):
        (book,) = ledger.enter([BOOK])
        ledger.finish(book, "Booked.")
        ledger.told(book.id)
    assert len(ToolLedger.load(ledger.dump()).undelivered) == KEPT + 1


@pytest.mark.parametrize("text", ["", "[]", "{", '{"errands": 1, "outside": false}'])
def test_what_is_no_account_is_refused(text: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        ToolLedger.load(text)


@given(
    st.lists(
        st.tuples(st.sampled_from(["enter", "begin", "finish", "told", "lose", "load"]), st.integers(0, 9))
    )
)
def test_no_call_ever_goes_back_and_the_account_stays_short(steps: list[tuple[str, int]]) -> None:
    ledger, errands = ToolLedger(), dict[str, Errand]()
    told: set[str] = set()
    for step, n in steps:
        errand = list(errands.values())[n % len(errands)] if errands else None
        if step == "enter":
            errands |= {one.id: one for one in ledger.enter([ToolCall(n, "book")])}
        elif step == "load":
            ledger = ToolLedger.load(ledger.dump(), told)
            errands = {one.id: one for one in ledger._errands}
        elif step == "lose":
            ledger.lose(n)
        elif errand and step == "begin" and errand.state == "asked":
            ledger.begin(errand)
        elif errand and step == "finish" and errand.state == "begun":
            ledger.finish(errand, "x")
        elif errand and step == "told" and errand.state == "done":
            ledger.told(errand.id)
            told.add(errand.id)
        assert not {result.id for result in ledger.undelivered} & told
        idle = [one for one in ledger._errands if one.state == "told" and not one.lost]
        assert len(idle) <= KEPT + sum(step == "told" for step, _ in steps)
