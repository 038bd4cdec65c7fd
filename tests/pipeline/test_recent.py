"""The caller's last seconds are kept, and known by the call's clock."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.recent import RecentAudio


@given(st.lists(st.integers(1, 150), max_size=30))
def test_the_last_samples_are_kept_and_memory_is_bounded(sizes: list[int]) -> None:
    recent, whole = RecentAudio(100), b""
    for size in sizes:
        pcm = b"".join((len(whole) // 2 + n).to_bytes(2, "little") for n in range(size))
        whole += pcm
        recent.push(pcm)
        assert recent.end == len(whole) // 2
        assert recent.pcm == whole[2 * recent.begin :]
        assert recent.begin <= max(0, recent.end - 100)
        assert len(recent.pcm) <= 2 * 200


@given(st.integers(0, 900), st.integers(-50, 1000), st.integers(0, 1000))
def test_a_piece_of_it_is_what_is_still_there(size: int, start: int, end: int) -> None:
    recent = RecentAudio(100)
    whole = b"".join(n.to_bytes(2, "little") for n in range(size))
    for at in range(0, size, 90):
        recent.push(whole[2 * at : 2 * (at + 90)])
    assert recent.cut(start, end) == whole[2 * max(start, recent.begin) : 2 * max(end, 0)]
