"""``parley voices`` as a person uses it, on nano and a folder of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bot.test_cli import run
from tests.model_runtime.library.recordings import espeak


@pytest.mark.e2e
def test_a_voice_is_added_found_heard_and_removed(tmp_path: Path) -> None:
    espeak(tmp_path / "said.wav")
    folder = tmp_path / "voices"

    def voices(*arguments: str) -> str:
        done = run(tmp_path, "voices", *arguments, PARLEY_VOICES_DIR=str(folder))
        assert done.returncode == 0, done.stderr
        return done.stdout

    words = ("--description", "A robot woman for tests.", "--consent", "nobody: espeak-ng")
    added = voices("add", "robot", "said.wav", *words)
    assert "robot is added: 5." in added
    assert "voice: robot" in added
    listed = {entry["name"]: entry for entry in json.loads(voices("list", "--json"))}
    assert list(listed) == ["awb", "kal16", "rms", "rms-deep", "slt", "slt-low", "robot"]
    robot = listed["robot"]
    assert (robot["origin"], robot["consent"]) == ("library", "nobody: espeak-ng")
    assert 190 < robot["pitch_hz"] < 240
    assert listed["rms"]["pitch_hz"] < 130 < listed["slt"]["pitch_hz"] < robot["pitch_hz"]
    found = voices("search", "a robot woman")
    assert found.splitlines()[1].split()[1] == "robot"
    assert "robot is removed" in voices("remove", "robot")
    assert list(folder.glob("*.safetensors")) == []


def test_what_cannot_be_added_is_said_in_a_sentence(tmp_path: Path) -> None:
    words = ("--description", "d", "--consent", "c")
    folder = tmp_path / "voices"
    done = run(tmp_path, "voices", "add", "mine", "missing.wav", *words, PARLEY_VOICES_DIR=str(folder))
    assert done.returncode == 1
    assert done.stderr == "missing.wav: cannot be read as audio (no such file or directory).\n"
    assert not folder.exists()
