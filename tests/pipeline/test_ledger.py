"""The account of what was heard."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from model_runtime.protocol import GROUP_SAMPLES
from pipeline.ledger import Ledger, Slice

G = GROUP_SAMPLES


def test_a_piece_is_cut_at_its_groups() -> None:
    ledger = Ledger()
    assert ledger.queue(2 * G, 2, ["a", "b"]) == [Slice(0, G, "a"), Slice(G, 2 * G, "b")]
    assert ledger.groups == 2
    assert ledger.queued == 2 * G


def test_the_beginning_of_a_group_to_come_has_no_text_yet() -> None:
    ledger = Ledger()
    assert ledger.queue(G + 100, 1, ["a"]) == [Slice(0, G, "a"), Slice(G, G + 100, "")]
    assert ledger.queue(G - 100, 2, ["b"]) == [Slice(0, G - 100, "b")]


def test_a_group_ends_within_the_piece_that_completes_it() -> None:
    short = Ledger()  # the vocoder is behind
    assert short.queue(G - 50, 1, ["a"]) == [Slice(0, G - 50, "a")]
    early = Ledger()  # the vocoder is ahead
    early.queue(G + 50, 0, [])
    assert early.queue(10, 1, ["a"]) == [Slice(0, 0, "a"), Slice(0, 10, "")]


def test_text_that_does_not_match_its_groups_is_not_lost() -> None:
    ledger = Ledger()
    assert [piece.text for piece in ledger.queue(2 * G, 2, ["a"])] == ["a", ""]
    assert [piece.text for piece in ledger.queue(G, 3, ["b", "c"])] == ["bc"]


def test_heard_is_what_was_played_to_its_last_sample() -> None:
    ledger = Ledger()
    ledger.queue(2 * G, 2, ["a", "b"])
    assert ledger.play(G - 1) == ""
    assert ledger.heard_groups == 0
    assert ledger.play(1) == "a"
    assert (ledger.heard_groups, ledger.heard_text) == (1, "a")
    assert not ledger.complete
    assert ledger.play(2 * G) == "b"  # padding counts for nothing
    assert ledger.played == 2 * G
    assert ledger.complete


def test_the_end_settles_what_rounding_kept_back() -> None:
    ledger = Ledger()
    ledger.queue(G, 1, ["a"])
    ledger.play(G - 200)
    assert ledger.settle() == "a"
    assert ledger.complete


def test_the_end_does_not_settle_what_was_never_written() -> None:
    ledger = Ledger()
    ledger.queue(2 * G, 2, ["a", "b"])
    ledger.play(G)
    assert ledger.settle() == ""
    assert ledger.heard_groups == 1


pieces = st.lists(st.tuples(st.integers(0, 3 * G), st.integers(0, 4)), max_size=12)


@given(pieces, st.lists(st.integers(0, 2 * G), max_size=40))
def test_slices_cover_every_piece_and_heard_text_is_a_prefix(
    made: list[tuple[int, int]], played: list[int]
) -> None:
    ledger, groups, sent = Ledger(), 0, ""
    for samples, new in made:
        texts = [f"<{groups + i}>" for i in range(new)]
        groups += new
        slices = ledger.queue(samples, groups, texts)
        assert "".join(piece.text for piece in slices) == "".join(texts)
        position = 0
        for piece in slices:
            assert piece.start == position
            position = piece.stop
        assert position == samples
        sent += "".join(texts)
    heard = ""
    already = "".join(f"<{i}>" for i in range(ledger.heard_groups))  # groups without any sound of their own
    for samples in played:
        heard += ledger.play(samples)
        assert already + heard == ledger.heard_text
        assert sent.startswith(ledger.heard_text)
        assert ledger.played <= ledger.queued
