"""The history keeps its ids; when it must shrink, sound goes before words and old before new."""

import pytest
import torch

from model_runtime.engine.history import ContextFull, Entry, History, Tokens


def heard(turn: int, rows: int) -> Entry:
    ids = [turn] * (rows + 2)
    return Entry(
        Tokens(ids, [(1, torch.full((rows, 4), float(turn)))]), Tokens([turn] * 3), turn=turn, heard=True
    )


def test_a_piece_of_tokens_brings_its_rows_along() -> None:
    whole = Tokens([1])
    whole.extend(Tokens([7] * 6, [(1, torch.arange(8.0).reshape(4, 2))]))
    piece = whole.piece(3, 5)
    assert piece.ids == [7, 7]
    [(at, rows)] = piece.rows
    assert at == 0
    assert rows.tolist() == [[2.0, 3.0], [4.0, 5.0]]
    assert whole.piece(0, 2).rows == []


def filled() -> History:
    history = History()
    history.append([Entry(Tokens([0] * 10), kept=True), *(heard(turn, 18) for turn in range(1, 6))])
    return history


def test_below_the_limit_nothing_changes() -> None:
    history = filled()
    assert history.shorten(110, 60) is None
    assert len(history) == 110


def test_the_oldest_sound_goes_first_and_its_words_stay() -> None:
    history = filled()
    assert history.shorten(100, 80) == 10  # all that follows the system turn changes
    assert history.tokens().ids == [0] * 10 + [1] * 3 + [2] * 3 + [3] * 20 + [4] * 20 + [5] * 20
    assert history.shorten(70, 60) == 16  # the turns that were shortened before stay as they are


def test_when_words_are_too_many_the_oldest_turns_go() -> None:
    history = filled()
    assert history.shorten(100, 18) == 10
    assert history.tokens().ids == [0] * 10 + [4] * 3 + [5] * 3


def test_words_that_came_late_are_the_ones_that_stay() -> None:
    history = filled()
    history.in_words(1, Tokens([9, 9, 9, 9]))
    history.shorten(100, 95)
    assert history.tokens().ids[10:14] == [9, 9, 9, 9]


def test_what_can_never_fit_is_refused_and_nothing_lost() -> None:
    history = filled()
    with pytest.raises(ContextFull):
        history.shorten(5, 4)
    assert len(history) == 110


def test_what_has_not_been_answered_goes_only_if_it_must() -> None:
    history = filled()
    history.append([Entry(Tokens([8] * 40)), Entry(Tokens([9] * 40))])  # what tools returned
    assert history.shorten(100, 60) == 10
    assert history.tokens().ids == [0] * 10 + [8] * 40 + [9] * 40
    assert history.shorten(80, 60) == 10
    assert history.tokens().ids == [0] * 10 + [9] * 40
