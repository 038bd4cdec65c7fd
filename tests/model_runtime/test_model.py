"""One loaded model, used as an engine uses it: hear, prompt, prefill, step, parse, speak."""

from __future__ import annotations

import json
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from model_runtime.chat import AudioSlot, Piece
from model_runtime.checkpoint import CheckpointError
from model_runtime.interleave import Code, Group, Slot
from model_runtime.model import SpeechModel
from model_runtime.thinking.kv_cache import ContextFull, KVCache
from model_runtime.thinking.sampling import Sampler, SamplingOptions


def wav(seconds: float, seed: int = 0) -> np.ndarray:
    samples = np.random.default_rng(seed).standard_normal(int(seconds * 16_000))
    return (samples * 0.1).astype(np.float32)


def question(model: SpeechModel, seed: int = 0) -> tuple[list[int], torch.Tensor]:
    rows = model.hear_pieces(wav(1.0, seed))
    return model.prompt(
        [*model.conversation("Be kind."), *model.human(rows), *model.template.opening()], rows
    )


class Speaker:
    """One session speaking with slot masking, a token at a time."""

    def __init__(self, model: SpeechModel, seed: int) -> None:
        self.model = model
        self.cache: KVCache = model.new_cache()
        self.sampler: Sampler = model.sampler(SamplingOptions(temperature=1.0, top_p=1.0), seed)
        self.parser = model.parser()
        self.ids: list[int] = []
        self.logits = model.prefill(self.cache, *question(model, seed))

    def speak(self) -> None:
        id = self.sampler.draw(self.logits, slot=self.parser.slot)
        self.ids.append(id)
        self.parser.push([id])
        self.logits = self.model.step(self.cache, id)


def test_two_calls_at_once_are_each_as_alone(tiny_model: SpeechModel) -> None:
    alone = []
    for seed in (1, 2):
        speaker = Speaker(tiny_model, seed)
        for _ in range(60):
            speaker.speak()
        alone.append((speaker.ids, speaker.logits))
    together = [Speaker(tiny_model, seed) for seed in (1, 2)]
    for _ in range(60):
        for speaker in together:
            speaker.speak()
    for speaker, (ids, logits) in zip(together, alone, strict=True):
        assert speaker.ids == ids
        assert torch.equal(speaker.logits, logits)


def test_masked_speech_is_well_formed_and_can_be_spoken(tiny_model: SpeechModel) -> None:
    model = tiny_model
    cache, parser = model.new_cache(), model.parser()
    sampler = model.sampler(SamplingOptions(temperature=1.0, top_p=1.0), seed=4)
    ids, embeddings = question(model)
    logits = model.prefill(cache, ids, embeddings)
    events = []
    while parser.groups < 6 and parser.slot is not Slot.FREE:
        rows = model.tokens.audio_slot if parser.slot is Slot.AUDIO else None
        if rows is not None:
            logits = logits[rows[0] : rows[1]]
        id = sampler.draw(logits, rows[0] if rows else 0, parser.slot)
        events += parser.push([id])
        logits = model.step(cache, id)
    codes = [event.code for event in events if isinstance(event, Code)]
    made = [event for event in events if isinstance(event, Group)]
    assert sum(group.codes for group in made) == len(codes) > 0
    assert [group.end for group in made] == [5 * (n + 1) for n in range(len(made))]
    pcm = model.token2wav.offline(codes, model.voices["anna"])
    assert len(pcm) == 960 * len(codes)


def test_head_rows_are_a_slice(tiny_model: SpeechModel) -> None:
    first, second = tiny_model.new_cache(), tiny_model.new_cache()
    whole = tiny_model.prefill(first, [1, 2, 3])
    assert torch.allclose(tiny_model.prefill(second, [1, 2, 3], rows=(50, 90)), whole[50:90], atol=1e-6)
    whole = tiny_model.step(first, 4)
    assert torch.allclose(tiny_model.step(second, 4, rows=(50, 90)), whole[50:90], atol=1e-6)


def test_rows_are_laid_where_the_template_says(tiny_model: SpeechModel) -> None:
    rows = tiny_model.hear_pieces(wav(26.0))
    ids, embeddings = tiny_model.prompt(tiny_model.human(rows, "and?"), rows)
    patches = [at for at, id in enumerate(ids) if id == tiny_model.tokens.audio_patch]
    assert torch.equal(embeddings[patches], torch.cat(rows))
    others = [at for at in range(len(ids)) if at not in set(patches)]
    plain = tiny_model.embed(ids)
    assert torch.equal(embeddings[others], plain[others])
    assert ids.count(tiny_model.tokens.audio_start) == 2


def test_a_prompt_with_a_word_for_a_patch_takes_no_audio(tiny_model: SpeechModel) -> None:
    said = "<audio_start><audio_patch><audio_end>"
    ids, embeddings = tiny_model.prompt(tiny_model.human([], said))
    assert torch.equal(embeddings, tiny_model.embed(ids))
    assert tiny_model.tokens.audio_patch not in ids
    assert tiny_model.tokenizer.decode(tiny_model.tokenizer.encode(said)) == said


@pytest.mark.parametrize("slots", [[], [1, 1], [2]])
def test_slots_and_audio_must_match(tiny_model: SpeechModel, slots: list[int]) -> None:
    pieces: list[Piece] = [AudioSlot(length) for length in slots]
    with pytest.raises(ValueError, match="audio slots"):
        tiny_model.prompt(pieces, [torch.zeros(1, 32)])


def test_a_conversation_begins_with_instructions_and_tools(tiny_model: SpeechModel) -> None:
    assert tiny_model.conversation() == []
    turns = tiny_model.conversation("Be kind.", [{"type": "function"}])
    ids, _ = tiny_model.template.lay_out(turns)
    assert ids.count(tiny_model.tokens.bot) == ids.count(tiny_model.tokens.eot) == 2


def test_what_cannot_be_read_is_said(tiny_model: SpeechModel) -> None:
    with pytest.raises(ValueError, match="nothing to read"):
        tiny_model.prefill(tiny_model.new_cache(), [])
    with pytest.raises(ContextFull):
        tiny_model.prefill(tiny_model.new_cache(4), [1, 2, 3, 4, 5])
    assert tiny_model.new_cache().max_tokens == tiny_model.max_context == 2048


def test_the_card_is_the_default_of_sampling(tiny_model: SpeechModel) -> None:
    assert tiny_model.sampler().options == SamplingOptions(0.7, 0.9, 1.05, True)


def record(path: Path, samples: np.ndarray, width: int = 2) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(width)
        file.setframerate(16_000)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def with_recording(golden_folder: Path, folder: Path, seconds: float, width: int = 2) -> Path:
    """The golden checkpoint (its voice models are real ones) and a recording."""
    (folder / "assets").mkdir(parents=True)
    for path in (golden_folder / "checkpoint").iterdir():
        (folder / path.name).symlink_to(path)
    record(folder / "assets/default_female.wav", wav(seconds), width)
    return folder


def test_a_recording_becomes_a_voice(golden_folder: Path, tmp_path: Path) -> None:
    model = SpeechModel.load(with_recording(golden_folder, tmp_path / "golden", 2.0))
    assert len(model.voices["default_female"].tokens) == 50
    assert model.voices["default_female"].source == "default_female.wav"


@pytest.mark.parametrize(("seconds", "width", "words"), [(0.5, 2, "lasts 0.5"), (2.0, 1, "16-bit")])
def test_a_recording_that_cannot_be_a_voice(
    golden_folder: Path, tmp_path: Path, seconds: float, width: int, words: str
) -> None:
    folder = with_recording(golden_folder, tmp_path / "golden", seconds, width)
    with pytest.raises(CheckpointError, match=f"default_female.wav: .*{words}"):
        SpeechModel.load(folder)


@pytest.mark.parametrize("module", ["model_runtime", "model_runtime.protocol", "model_runtime.chat"])
def test_importing_the_face_of_the_runtime_loads_no_torch(module: str) -> None:
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(ran.stdout))
    assert module in loaded
    assert not loaded & {"torch", "transformers", "onnxruntime", "tokenizers", "numpy"}
