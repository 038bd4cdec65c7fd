"""Groups count as spoken when their sound is out, and their words come with them."""

from hypothesis import given
from hypothesis import strategies as st

from model_runtime.engine.groups import CODE_SAMPLES, GroupLedger


def test_a_group_is_spoken_when_its_last_sample_is_out() -> None:
    ledger = GroupLedger()
    ledger.write(4, "one")
    ledger.write(4, " two")
    assert ledger.speak(4 * CODE_SAMPLES - 1, last=False) == []
    assert ledger.speak(1, last=False) == ["one"]
    assert ledger.spoken == 1
    assert ledger.speak(0, last=True) == [" two"]


def test_text_without_sound_comes_with_the_sound_before_it() -> None:
    ledger = GroupLedger()
    ledger.write(4, "a")
    ledger.write(0, "b")
    ledger.write(2, "c")
    assert ledger.speak(4 * CODE_SAMPLES, last=False) == ["a", "b"]
    assert ledger.speak(2 * CODE_SAMPLES, last=False) == ["c"]


@given(st.lists(st.integers(0, 4), max_size=30), st.lists(st.integers(0, 9000), max_size=30))
def test_every_group_is_told_once_and_in_order(groups: list[int], pieces: list[int]) -> None:
    ledger = GroupLedger()
    for number, codes in enumerate(groups):
        ledger.write(codes, str(number))
    told: list[str] = []
    for piece in pieces:
        told += ledger.speak(piece, last=False)
        assert len(told) == ledger.spoken
    told += ledger.speak(0, last=True)
    assert told == [str(number) for number in range(len(groups))]
    assert ledger.text == "".join(told)
    assert ledger.text_of(2) == "".join(told[:2])
