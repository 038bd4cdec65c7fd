"""The library's folder under an engine's eyes, while somebody changes it."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from model_runtime.errors import VoiceError
from model_runtime.library.entry import About, codec_of
from model_runtime.library.shelf import KEPT, Shelf, put
from model_runtime.speaking.voice import Voice

CODEC = "0123456789abcdef"


def voice(seed: int = 0) -> Voice:
    draw = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 6561, (20,), generator=draw, dtype=torch.int32)
    return Voice(codes, torch.randn(192, generator=draw), torch.randn(40, 80, generator=draw))


def about(codec: str = CODEC, checkpoint: str = "nano") -> About:
    return About(
        codec=codec,
        checkpoint=checkpoint,
        description="a test",
        consent="nobody was recorded",
        added="2026-01-02",
    )


def looked(folder: Path, codec: str = CODEC) -> Shelf:
    shelf = Shelf(folder, codec)
    shelf.look()
    return shelf


def test_voices_come_and_go_while_it_looks(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "voices"
    shelf = looked(folder)
    assert shelf.names == []
    put(folder, "anna", voice(1), about())
    put(folder, "bert", voice(2), about())
    shelf.look()
    assert shelf.names == ["anna", "bert"]
    first = shelf.take("anna")
    assert first is not None
    assert first is shelf.take("anna")  # so that its prompt is taken in once
    put(folder, "anna", voice(3), about())
    shelf.look()
    again = shelf.take("anna")
    assert again is not None
    assert torch.equal(again.speaker, voice(3).speaker)
    (folder / "anna.safetensors").unlink()
    shelf.look()
    assert (shelf.names, shelf.take("anna")) == (["bert"], None)


def test_a_folder_that_rests_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, "anna", voice(), about())
    os.utime(tmp_path, (1, 1))
    shelf = looked(tmp_path)
    monkeypatch.setattr(Path, "iterdir", None)
    shelf.look()
    assert shelf.names == ["anna"]


def test_what_is_stored_with_a_voice_is_read_back_and_only_its_owner_may(tmp_path: Path) -> None:
    path = put(tmp_path / "voices", "anna", voice(), about())
    assert looked(tmp_path / "voices").about("anna") == (about(), 0.8)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [found.name for found in path.parent.iterdir()] == ["anna.safetensors"]


def test_files_that_are_no_good_are_named_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, "good", voice(), about())
    put(tmp_path, "other", voice(), about("fedcba9876543210", "Step-Audio-2-mini"))
    put(tmp_path, "cut", voice(), about())
    whole = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "noise.safetensors").write_bytes(os.urandom(200))
    (tmp_path / "empty.safetensors").touch()
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "A b.safetensors").write_bytes(whole)
    voice().save(tmp_path / "bare.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "thing.safetensors", {"parley_voice": "{"})
    (tmp_path / "notes.txt").touch()
    with caplog.at_level(logging.WARNING):
        shelf = looked(tmp_path)
        shelf.look()
    assert shelf.names == ["good"]
    assert len(caplog.records) == 8  # each once
    for name, fault in shelf.faults.items():
        assert f"{name}.safetensors" in fault
        with pytest.raises(VoiceError, match="safetensors"):
            shelf.take(name)
    assert "prepared for another checkpoint (Step-Audio-2-mini): add the voice again" in shelf.faults["other"]
    assert "which checkpoint it is for" in shelf.faults["bare"]


def test_a_voice_of_nonsense_is_left_out_once_somebody_wants_it(tmp_path: Path) -> None:
    bad = voice()
    bad.mel[3, 3] = float("nan")
    put(tmp_path, "bad", bad, about())
    shelf = looked(tmp_path)
    for _ in range(2):
        with pytest.raises(VoiceError, match=r"bad\.safetensors: mel holds a value that is not a number"):
            shelf.take("bad")
    assert shelf.names == []


def test_of_many_voices_only_the_last_few_are_held(tmp_path: Path) -> None:
    names = [f"v{number}" for number in range(KEPT + 1)]
    for name in names:
        put(tmp_path, name, voice(), about())
    shelf = looked(tmp_path)
    taken = [shelf.take(name) for name in names]
    assert shelf.take(names[-1]) is taken[-1]
    assert shelf.take(names[0]) is not taken[0]


def test_a_codec_is_known_by_its_two_models(tmp_path: Path) -> None:
    for folder, content in (("a", b"1" * 3_000_000), ("b", b"1" * 3_000_000), ("c", b"1" * 2_999_999 + b"2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "speech_tokenizer_v2_25hz.onnx").write_bytes(content)
        (tmp_path / folder / "campplus.onnx").write_bytes(b"same")
    a, b, c = (codec_of(tmp_path / folder) for folder in "abc")
    assert a == b != c
    assert len(a) == 16
