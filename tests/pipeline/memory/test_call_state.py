"""Bringing a store up to date step by step, whatever the call tells meanwhile and whatever gets lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_runtime.protocol import HistoryEntry
from pipeline.conversation import Conversation
from pipeline.memory import Remembered, call_state
from pipeline.memory.call_state import CallState, Step, size
from pipeline.memory.keys import F_REVISION
from pipeline.memory.stored import unpack
from tests.pipeline.memory.redis_server import entry, talk

Store = dict[bytes, bytes]


def apply(step: Step, store: Store) -> None:
    """As the writer's transaction does."""
    if step.anew:
        store.clear()
    for field in step.deleted():
        store.pop(field, None)
    store.update(step.fields())


def bring_up_to_date(state: CallState, store: Store) -> int:
    """Every step that is left. How many there were."""
    steps = 0
    while state.behind or steps == 0:
        step = state.next_step(store.get(F_REVISION))
        apply(step, store)
        state.done(step)
        steps += 1
    return steps


def test_what_fits_is_one_step_and_the_rest_is_only_what_changed() -> None:
    state, store = CallState("a", "me"), Store()
    for place in range(5):
        state.entry(entry(place))
    state.note({"agent": "Bluebird"})
    assert state.behind == 6
    assert bring_up_to_date(state, store) == 1
    state.entry(entry(5))
    step = state.next_step(store[F_REVISION])
    assert [one.place for one in step.entries] == [5]
    assert not step.anew
    assert not step.small


def test_a_long_history_takes_steps_of_a_bounded_size() -> None:
    state, store = CallState("a", "me"), Store()
    for place in range(10):
        state.entry(entry(place, size=call_state.STEP_BYTES // 3))
    state.entry(entry(10, size=2 * call_state.STEP_BYTES))  # larger than a step may be
    assert state.waiting_bytes == sum(
        size(entry(n, size=call_state.STEP_BYTES // 3)) for n in range(10)
    ) + size(entry(10, size=2 * call_state.STEP_BYTES))
    assert bring_up_to_date(state, store) == 6
    assert state.waiting_bytes == 0
    assert unpack("a", store) == state.remembered()


def test_what_is_said_again_unchanged_is_not_written_again() -> None:
    state, store = CallState("a", "me"), Store()
    state.converse(talk("Hello"))
    bring_up_to_date(state, store)
    state.converse(talk("Hello"))
    assert state.behind == 0
    assert state.next_step(store[F_REVISION]).empty


def test_a_call_that_has_told_nothing_leaves_what_is_there_alone() -> None:
    step = CallState("a", "me").next_step(b"somebody:7")
    assert step.empty
    assert not step.fields()


Change = st.one_of(
    st.tuples(st.just("entry"), st.integers(0, 6), st.integers(0, 3)),
    st.tuples(st.just("converse"), st.integers(0, 3), st.just(0)),
    st.tuples(st.just("note"), st.integers(0, 3), st.just(0)),
)
Act = st.tuples(
    st.sampled_from(["done", "lost", "done but not heard of", "emptied", "older again"]),
    st.lists(Change, max_size=4),  # before the step
    st.lists(Change, max_size=3),  # while it is under way
)


@given(st.lists(Act, max_size=12))
def test_the_store_is_a_true_beginning_at_every_moment_and_all_of_it_in_the_end(
    acts: list[tuple[str, list[tuple[str, int, int]], list[tuple[str, int, int]]]],
) -> None:
    state, store = CallState("a", "me"), Store()
    older = dict(store)
    expected = Remembered("a", {}, [], Conversation())

    def change(kind: str, number: int, mark: int) -> None:
        nonlocal expected
        facts, history, said = expected.facts, expected.history, expected.conversation
        if kind == "entry":
            told = entry(number, mark, size=400_000)
            if number <= len(history):
                state.entry(told)
                history = [*history[:number], told]
        elif kind == "converse":
            said = talk(*map(str, range(number)))
            state.converse(said)
        else:
            facts = facts | {"fact": str(number)}
            state.note({"fact": str(number)})
        expected = Remembered("a", facts, history, said)

    for outcome, before, during in acts:
        for one in before:
            change(*one)
        if outcome == "emptied":
            store.clear()
        elif outcome == "older again":
            store = dict(older)
        true = expected
        step = state.next_step(store.get(F_REVISION))
        for one in during:
            change(*one)
        older = dict(store)
        if outcome != "lost":
            apply(step, store)
        if outcome in ("lost", "done but not heard of"):
            state.lose_track()
        else:
            state.done(step)
            assert not store or unpack("a", store).history == true.history[: step.count]
        assert state.remembered() == expected
    bring_up_to_date(state, store)
    assert (unpack("a", store) if store else Remembered("a", {}, [], Conversation())) == expected
    assert set(store) <= {b"schema", b"revision", b"facts", b"conversation", b"count"} | {
        b"%d" % place for place in range(len(expected.history))
    }


@pytest.mark.parametrize("place", [-1, 2])
def test_an_entry_that_would_leave_a_gap_changes_nothing(place: int) -> None:
    state = CallState("a", "me")
    state.entry(entry(0))
    with pytest.raises(ValueError, match=f"place {place}"):
        state.entry(HistoryEntry(place, [1]))
    assert state.remembered().history == [entry(0)]
