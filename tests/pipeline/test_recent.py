"""The caller's last seconds can be had again, by the call's clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.recent import RecentAudio


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(0, 400), st.integers(0, 100))
def test_what_is_cut_is_what_was_said_as_far_as_it_is_kept(sizes: list[int], start: int, length: int) -> None:
    recent, whole = RecentAudio(100), b""
    for size in sizes:
        pcm = b"".join((len(whole) // 2 + n).to_bytes(2, "little") for n in range(size))
        whole += pcm
        recent.push(pcm)
    assert recent.end == len(whole) // 2
    kept = max(0, recent.end - 100)
    cut = recent.cut([(start, start + length)])
    expected = whole[2 * start : 2 * (start + length)]
    assert expected.endswith(cut)
    if start >= kept:
        assert cut == expected


def test_spans_are_joined() -> None:
    recent = RecentAudio(100)
    recent.push(bytes(range(40)))
    assert recent.cut([(0, 2), (5, 6)]) == bytes([0, 1, 2, 3, 10, 11])
