"""A checkpoint's voices and a person's own, told and changed together."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import msgspec
import numpy as np
import pytest

import model_runtime
from model_runtime.errors import VoiceError
from model_runtime.library import catalogue as module
from model_runtime.library.catalogue import Catalogue
from model_runtime.library.entry import Entry, codec_of
from model_runtime.library.listing import Listing
from model_runtime.library.shelf import put
from tests.model_runtime.library.recordings import RATE, espeak, hiss
from tests.model_runtime.library.test_shelf import about, voice

NANO = Path(model_runtime.__file__).parent / "checkpoints" / "nano"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "voices"


def likeness(one: list[float], other: list[float]) -> float:
    return float(np.dot(one, other))


@pytest.mark.e2e
def test_a_call_in_an_added_voice_sounds_like_its_recording(folder: Path, tmp_path: Path) -> None:
    """By nano's own speaker model, on what nano's own token2wav says in the voice."""
    opened = Catalogue(str(NANO), folder)
    added = opened.add("robot", espeak(tmp_path / "said.wav"), " A robot. ", "nobody: espeak-ng")
    assert (added.description, added.checkpoint, added.added[:2]) == ("A robot.", "nano", "20")
    entries = {entry.name: entry for entry in opened.entries()}
    assert entries["robot"] == added
    assert not any(entry.fault for entry in entries.values())
    heard = opened._token2wav.prepare_voice(opened.render("robot"), 24_000).speaker
    spoken = (heard / heard.norm()).tolist()
    others = [likeness(spoken, entry.speaker) for name, entry in entries.items() if name != "robot"]
    assert likeness(spoken, added.speaker) > max(others) + 0.15
    with pytest.raises(VoiceError, match="voice 'robot' already: choose another name, or add --replace"):
        opened.add("robot", tmp_path / "said.wav", "d", "c")
    assert opened.add("robot", tmp_path / "said.wav", "d", "c", replace=True).description == "d"


def test_the_checkpoints_voices_are_measured_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = list(Catalogue(str(NANO), folder).entries())
    monkeypatch.setattr(module, "measure", None)
    assert list(Catalogue(str(NANO), folder).entries()) == first
    pitch = {entry.name: entry.pitch_hz for entry in first}
    assert 75 < pitch["kal16"] < pitch["rms"] < pitch["awb"] < pitch["slt"] < 200


def test_of_voices_that_were_measured_a_list_is_made_without_torch(folder: Path) -> None:
    def told(*command: str) -> bytes:
        program = "import sys; sys.modules['torch'] = None\nfrom model_runtime.library.__main__ import main\n"
        options = ("--checkpoint", str(NANO), "--voices", str(folder))
        run = [sys.executable, "-c", f"{program}sys.exit(main())", *options, *command]
        return subprocess.run(run, stdout=subprocess.PIPE, check=True).stdout

    own = list(Catalogue(str(NANO), folder).entries())
    put(folder, "anna", voice(), about(codec_of(NANO / "token2wav")))
    *others, anna = msgspec.json.decode(told("list"), type=list[Entry])
    assert (others, anna.name, anna.seconds) == (own, "anna", 0.8)
    told("remove", "anna")
    assert msgspec.json.decode(told("list"), type=list[Entry]) == own


def test_a_voice_that_has_changed_is_measured_anew(folder: Path, tmp_path: Path) -> None:
    checkpoint = shutil.copytree(NANO, tmp_path / "checkpoint")
    list(Catalogue(str(checkpoint), folder).entries())
    assert Listing(checkpoint, folder).unmeasured == []
    os.utime(checkpoint / "voices" / "slt.safetensors", (1, 1))
    assert Listing(checkpoint, folder).unmeasured == ["slt"]


def test_what_cannot_be_used_is_listed_with_the_reason(folder: Path) -> None:
    opened = Catalogue(str(NANO), folder)
    put(folder, "strange", voice(), about("f" * 16, "Step-Audio-2-mini"))
    bad = voice()
    bad.mel[0, 0] = float("inf")
    put(folder, "bad", bad, about(opened.codec))
    put(folder, "rms", voice(), about(opened.codec))
    faults = {entry.name: entry.fault for entry in Catalogue(str(NANO), folder).entries() if entry.fault}
    assert "prepared for another checkpoint (Step-Audio-2-mini)" in faults["strange"]
    assert "not a number" in faults["bad"]
    assert "the checkpoint has a voice of that name" in faults["rms"]


def test_refusals_leave_the_folder_as_it_was(folder: Path, tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "hiss.wav"), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes((hiss(4) * 32767).astype("<i2").tobytes())
    opened = Catalogue(str(NANO), folder)
    for name, description, consent, said in (
        ("../up", "d", "c", "cannot be a voice's name"),
        ("rms", "d", "c", "The checkpoint has a voice 'rms' of its own"),
        ("mine", " ", "c", "The description is empty"),
        ("mine", "d", "", "The consent is empty"),
        ("mine", "d", "c", r"hiss\.wav: the recording is too noisy"),
    ):
        with pytest.raises(VoiceError, match=said):
            opened.add(name, tmp_path / "hiss.wav", description, consent)
    for name, said in (("rms", "is the checkpoint's own and stays"), ("mine", "is not in the library")):
        with pytest.raises(VoiceError, match=said):
            opened.listing.remove(name)
    with pytest.raises(
        VoiceError, match="There is no voice 'mine'; there are: awb, kal16, rms, rms-deep, slt, slt-low"
    ):
        opened.render("mine")
    assert not folder.exists()


def test_a_voice_is_removed_even_if_it_is_of_no_use(folder: Path) -> None:
    put(folder, "strange", voice(), about("f" * 16))
    Listing(NANO, folder).remove("strange")
    assert list(folder.glob("*.safetensors")) == []
