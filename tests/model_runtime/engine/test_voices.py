"""A library of voices beside the checkpoint's own, changed while the engine runs."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from model_runtime.engine.refusal import Refusal
from model_runtime.engine.voices import KEPT
from model_runtime.errors import VoiceError
from model_runtime.library.entry import About, codec_of
from model_runtime.library.shelf import put
from model_runtime.protocol import Close, Error, Open, Opened, Respond, SetVoice, Speech
from model_runtime.speaking.voice import Voice
from tests.model_runtime.engine.live import running
from tests.model_runtime.engine.rig import GREEDY, Rig, model


def add(folder: Path, name: str, seed: int, codec: str = "", checkpoint: str = "tiny") -> Voice:
    draw = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 6561, (20,), generator=draw, dtype=torch.int32)
    voice = Voice(codes, torch.randn(192, generator=draw), torch.randn(40, 80, generator=draw))
    about = About(
        codec=codec or codec_of(model().checkpoint.token2wav),
        checkpoint=checkpoint,
        description="Low and warm.",
        consent="",
        added="",
    )
    put(folder, name, voice, about)
    return voice


async def test_a_voice_added_to_a_running_engine_is_the_next_calls(tmp_path: Path) -> None:
    folder = tmp_path / "voices"
    async with running(voices=folder) as engine, engine.session("before") as before:
        async with engine.client() as early:
            await early.send(Open("early", voice="carl"))
            assert "no voice 'carl'; there are: anna, bert" in (await early.read(Error)).message
        add(folder, "carl", 7)
        async with engine.client() as client:
            await client.send(Open("after", voice="carl", sampling=GREEDY))
            opened = await client.read(Opened)
            assert (opened.voice, opened.voices) == ("carl", ["anna", "bert", "carl"])
            assert opened.descriptions["carl"] == "Low and warm."
            await client.talk(0)
            assert (await client.read(Speech)).pcm
        await before.send(SetVoice("carl"), SetVoice("nobody"), Close())
        assert "nobody" in (await before.read(Error)).message


def spoken(rig: Rig) -> bytes:
    rig.hear()
    rig.kit.script = [*rig.kit.spoken(6), rig.tokens.tts_end, rig.tokens.eot]
    rig.send(Respond(0, spans=[(0, 16_000)]))
    rig.run()
    return b"".join(speech.pcm for speech in rig.told(Speech))


def test_it_sounds_otherwise_and_goes_on_so_when_its_file_is_removed(tmp_path: Path) -> None:
    add(tmp_path, "carl", 7)
    anna = spoken(Rig(Open("test", voice="anna", sampling=GREEDY), voices=tmp_path))
    rig = Rig(Open("test", voice="carl", sampling=GREEDY), voices=tmp_path)
    (tmp_path / "carl.safetensors").unlink()
    carl = spoken(rig)
    assert len(carl) == len(anna) > 0
    assert carl != anna


def test_of_two_voices_of_one_name_the_checkpoints_speaks(tmp_path: Path) -> None:
    add(tmp_path, "anna", 7)
    rig = Rig(voices=tmp_path)
    assert rig.kit.voices.find("anna") is model().voices["anna"]
    assert rig.kit.voices.names == ["anna", "bert"]


def test_what_it_cannot_use_is_refused_in_words_and_harms_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add(tmp_path, "carl", 7)
    add(tmp_path, "strange", 8, codec="0" * 16, checkpoint="Step-Audio-2-mini")
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with caplog.at_level(logging.WARNING):
        rig = Rig(Open("test", voice="carl"), voices=tmp_path)
    assert rig.last(Opened).voices == ["anna", "bert", "carl"]
    assert {name for name in ("strange", "torn", "carl") if name in caplog.text} == {"strange", "torn"}
    with pytest.raises(Exception, match=r"prepared for another checkpoint \(Step-Audio-2-mini\)"):
        rig.send(SetVoice("strange"))


def file_of(folder: Path, name: str, seed: int, **more: str) -> bytes:
    """The file of a voice that some other machine has in its folder."""
    add(folder / "elsewhere", name, seed, **more)
    return (folder / "elsewhere" / f"{name}.safetensors").read_bytes()


def test_a_call_brings_the_voice_that_the_engine_does_not_have(tmp_path: Path) -> None:
    add(tmp_path, "carl", 7)
    from_its_folder = spoken(Rig(Open("test", voice="carl", sampling=GREEDY), voices=tmp_path))
    timbre = file_of(tmp_path, "carl", 7)
    opened = Rig(Open("test", voice="carl", sampling=GREEDY, timbre=timbre))
    assert (opened.last(Opened).voice, opened.last(Opened).voices) == ("carl", ["anna", "bert"])
    assert spoken(opened) == from_its_folder
    changed = Rig(Open("test", voice="anna", sampling=GREEDY))
    changed.send(SetVoice("carl", timbre))
    assert spoken(changed) == from_its_folder


def test_it_is_that_calls_alone_and_taken_in_once_for_all_who_bring_it(tmp_path: Path) -> None:
    rig = Rig()
    timbre = file_of(tmp_path, "carl", 7)
    voice = rig.kit.voices.find("carl", timbre)
    assert rig.kit.voices.find("carl", timbre) is voice
    assert rig.kit.voices.find("carl", file_of(tmp_path, "carl", 8)) is not voice  # of that name, another one
    with pytest.raises(VoiceError, match="no voice 'carl'"):
        rig.kit.voices.find("carl")
    files = [file_of(tmp_path, "v", seed) for seed in range(KEPT)]
    others = [rig.kit.voices.find("v", file) for file in files]
    assert [rig.kit.voices.find("v", file) for file in files] == others
    assert rig.kit.voices.find("carl", timbre) is not voice  # given up meanwhile


def test_the_engines_own_are_spoken_in_whatever_is_brought(tmp_path: Path) -> None:
    add(tmp_path, "carl", 7)
    rig = Rig(voices=tmp_path)
    own = rig.kit.voices.find("carl")
    other = file_of(tmp_path, "carl", 8)
    assert rig.kit.voices.find("carl", other) is own
    assert rig.kit.voices.find("anna", other) is model().voices["anna"]


def test_a_brought_one_that_is_no_good_is_refused_in_words_and_ends_nothing(tmp_path: Path) -> None:
    rig = Rig()
    good = file_of(tmp_path, "carl", 7)
    for timbre, says in (
        (b"torn", "does not say which checkpoint"),
        (good[:-1], "cannot be read as a voice file"),
        (file_of(tmp_path, "carl", 7, codec="0" * 16, checkpoint="mini"), r"another checkpoint \(mini\)"),
    ):
        with pytest.raises(Refusal, match=f"'carl' that was brought along.*{says}") as refused:
            rig.send(SetVoice("carl", timbre))
        assert (refused.value.error.code, refused.value.error.fatal) == ("voice", False)
    assert spoken(rig)
