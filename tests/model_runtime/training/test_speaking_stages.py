"""The speaking half's training stages, each at a size that takes no time."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from model_runtime.speaking.conformer import EncoderConfig
from model_runtime.speaking.dit import DiTConfig
from model_runtime.speaking.flow import Flow, FlowConfig
from model_runtime.speaking.loading import load_flow, load_hift
from model_runtime.speaking.mel import mel24k
from model_runtime.speaking.vocoder import HiFT, HiFTConfig
from model_runtime.training import (
    codec,
    flow,
    judge,
    speaker,
    speech_corpus,
    speech_loop,
    speech_measure,
    vocoder,
)
from model_runtime.training.speech_corpus import Utterance
from model_runtime.training.speech_export import halved, write_flow, write_hift
from model_runtime.training.speech_features import mels, to_rate, trimmed
from model_runtime.training.speech_loop import Loop, write_run

SMALL = FlowConfig(
    input_size=16,
    inference_cfg_rate=0.0,
    encoder=EncoderConfig(16, 16, num_blocks=1, num_up_blocks=1, attention_heads=2, linear_units=32),
    estimator=DiTConfig(depth=1, num_heads=2, head_dim=8, hidden_size=16),
)


@pytest.fixture(autouse=True)
def evaluate_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_loop, "LOG_EVERY", 1)
    monkeypatch.setattr(speech_loop, "EVALUATE_EVERY", 1)


def tone(seconds: float, hertz: float = 150.0) -> np.ndarray:
    at = np.arange(round(24000 * seconds)) / 24000
    return np.asarray(0.3 * np.sin(2 * np.pi * hertz * at), dtype=np.float32)


def utterance(speaker_name: str = "slt", seconds: float = 1.2) -> Utterance:
    wav = tone(seconds)
    mel = mel24k(wav).half()
    log_mel = torch.rand(128, 2 * len(mel)).half()
    return Utterance(
        speaker_name,
        "hello",
        (wav * 32767).astype(np.int16),
        log_mel,
        mel,
        np.full(len(mel), 150, np.float32),
    )


def test_speech_is_trimmed_to_itself_and_a_short_edge() -> None:
    wav = np.concatenate([np.zeros(24000, np.float32), tone(0.5), np.zeros(24000, np.float32)])
    assert len(trimmed(wav, 24000)) == pytest.approx(24000 * (0.5 + 0.12), abs=480)


def test_the_batched_mel_is_the_product_s() -> None:
    wav = torch.from_numpy(tone(0.4))
    torch.testing.assert_close(mels(wav[None])[0].T, mel24k(wav), atol=1e-5, rtol=0)


def test_answers_are_what_can_be_said_as_it_stands() -> None:
    found = speech_corpus.answers(speech_corpus.read_shop())
    assert "We are closed on Sundays." in found
    assert "One moment." in found
    assert not [text for text in found if "{" in text]
    assert len(found) == len(set(found))


def test_slot_sentences_are_the_same_for_the_same_seed() -> None:
    first = speech_corpus.slot_sentences(random.Random(3), 20)
    assert first == speech_corpus.slot_sentences(random.Random(3), 20)
    assert any(text.startswith("Order ") for text in first)


def test_no_voice_is_an_engine_that_is_kept_for_tests() -> None:
    assert {voice.engine for voice in speech_corpus.SPEAKERS} == {"flite", "espeak-ng"}
    assert not [voice for voice in speech_corpus.SPEAKERS if "mb" in voice.voice]


@pytest.mark.parametrize(("frames", "codes"), [(230, 57), (4, 1), (101, 25), (300, 75)])
def test_the_codec_gives_25_codes_a_second(frames: int, codes: int) -> None:
    net = codec.Codec(width=16, blocks=1).eval()
    found = net(torch.rand(1, 128, frames), torch.tensor([frames], dtype=torch.int32))
    assert found.shape == (1, codes)
    assert found.dtype == torch.int64
    assert int(found.min()) >= 0
    assert int(found.max()) < codec.CODES


def test_codes_do_not_change_with_loudness() -> None:
    net = codec.Codec(width=16, blocks=1).eval()
    feats, length = torch.rand(1, 128, 80), torch.tensor([80], dtype=torch.int32)
    assert torch.equal(net(feats, length), net(feats - 0.25, length))  # 20 dB quieter


def test_every_combination_of_levels_has_its_own_code() -> None:
    levels = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * codec.DIGITS)
    assert sorted(codec.code_of(levels).tolist()) == list(range(codec.CODES))


def test_rounding_lets_the_gradient_through() -> None:
    x = torch.randn(3, 8, requires_grad=True)
    codec.quantise(x).sum().backward()
    assert x.grad is not None
    assert bool((x.grad > 0).all())


def test_warping_by_one_changes_nothing() -> None:
    feats = torch.rand(128, 7)
    torch.testing.assert_close(codec.warp(feats, 1.0), feats)
    assert not torch.allclose(codec.warp(feats, 1.1), feats)


@pytest.mark.slow
def test_codec_and_speaker_stages_learn_something(tmp_path: Path) -> None:
    said = [utterance("slt"), utterance("rms", 2.5)]
    net, loop = codec.train(said, said, tmp_path, steps=2)
    assert loop.step == 2
    assert len(codec.encode(net, said[0])) == said[0].log_mel.shape[1] // 4
    speaking, _ = speaker.train(said, said, tmp_path, steps=2)
    assert speaking(torch.randn(2, 90, 80)).shape == (2, 192)


def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    def run(folder: Path, until: int) -> torch.Tensor:
        folder.mkdir(exist_ok=True)
        torch.manual_seed(0)
        net = nn.Linear(4, 1)
        # A long warm-up is the same plan whatever the last step is.
        loop = Loop("line", folder, {"net": net}, until, rate=0.1, warmup=20, average=("net",))
        loop.run(lambda step: {"loss": (net(torch.randn(8, 4)) ** 2).mean()})
        return torch.cat([net.weight[0], next(loop.average["net"].parameters())[0]])

    unbroken = run(tmp_path / "a", 8)
    run(tmp_path / "b", 3)
    torch.testing.assert_close(run(tmp_path / "b", 8), unbroken)


def test_the_learning_rate_warms_up_and_comes_down(tmp_path: Path) -> None:
    loop = Loop("rate", tmp_path, {"net": nn.Linear(1, 1)}, steps=1000, rate=1.0, warmup=100)
    assert loop.learning_rate(0) == pytest.approx(0.01)
    assert loop.learning_rate(100) == pytest.approx(1.0)
    assert loop.learning_rate(999) == pytest.approx(0.03, abs=0.01)


def spoken(voice: str, codes: int) -> flow.Spoken:
    return flow.Spoken(
        voice, torch.randint(0, 6561, (codes,)), torch.randn(2 * codes, 80).half(), torch.randn(192)
    )


def test_a_code_is_embedded_as_its_digits_are() -> None:
    book = flow.Codebook(16)
    levels = torch.randint(-1, 2, (50, codec.DIGITS)).float()
    codes = codec.code_of(levels)
    torch.testing.assert_close(book(codes), book.mix(levels))
    torch.testing.assert_close(book.table()[codes], book(codes))


def test_a_codebook_goes_on_from_what_one_like_it_shipped() -> None:
    book, other = flow.Codebook(16), flow.Codebook(16)
    other.learn(book.table().half())
    torch.testing.assert_close(other.table(), book.table(), atol=1e-3, rtol=1e-2)


def test_a_flow_batch_is_prompt_and_sentence_of_one_voice() -> None:
    sentences = flow.Sentences([spoken("slt", 40), spoken("slt", 60), spoken("rms", 30)])
    batch = sentences.batch(flow.Shape(6, 30, (10, 20)), random.Random(1))
    assert batch.mel.shape == (6, 2 * batch.codes.shape[1], 80)
    assert bool((batch.length > batch.prompt).all())
    assert int(batch.prompt.max()) <= 20


@pytest.mark.parametrize("schedule", [None, (3, 5)])
def test_padding_does_not_count_in_the_flow_s_loss(schedule: tuple[int, ...] | None) -> None:
    torch.manual_seed(0)
    net, book, head = Flow(SMALL), flow.Codebook(16), flow.Head(16)
    batch = flow.Sentences([spoken("slt", 14), spoken("slt", 40)]).batch(
        flow.Shape(4, 30, (8, 12)), random.Random(2)
    )
    other = flow.Batch(batch.codes, batch.mel.clone(), batch.speaker, batch.prompt, batch.length)
    for row, length in enumerate(batch.length):
        other.mel[row, 2 * length :] += 5
    found = []
    for each in (batch, other):
        torch.manual_seed(7)
        found.append(flow.losses_of(net, book, head, each, schedule))
    torch.testing.assert_close(found[0]["matching"], found[1]["matching"])
    torch.testing.assert_close(found[0]["regression"], found[1]["regression"])


def test_the_flow_stage_trains_and_its_files_are_read_by_the_product(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "REGRESSION_STEPS", 1)
    said = [spoken("slt", 20), spoken("slt", 30)]
    loop = flow.train(said, said, Flow(SMALL), tmp_path, steps=2)
    weights = flow.shipped(loop.average["flow"].state_dict(), loop.average["book"].state_dict())
    write_flow(weights, SMALL, tmp_path)
    read = load_flow(tmp_path)
    again = load_flow(tmp_path).train().requires_grad_(True)
    (tmp_path / "on").mkdir()
    on = flow.train(said, said, again, tmp_path / "on", steps=1, goes_on=True)
    assert "matching" in on.history[0]  # from the first step
    table = flow.shipped({}, on.average["book"].state_dict())["input_embedding.weight"]
    torch.testing.assert_close(table, read.input_embedding.weight, atol=1e-2, rtol=1e-2)
    assert read.config == SMALL
    for name, value in weights.items():
        torch.testing.assert_close(read.state_dict()[name], value, atol=2e-3, rtol=2e-3)


def test_the_quick_vocoder_is_the_vocoder() -> None:
    torch.manual_seed(0)
    hift = HiFT(HiFTConfig(32, 24))
    vocoder.initialise(hift)
    mel, excitation = torch.randn(1, 80, 10), torch.randn(1, 4800) * 0.05
    names = set(hift.state_dict())
    with torch.no_grad():
        plain = hift.decode(mel, excitation)
        vocoder.quicken(hift)
        with torch.autocast("cpu", torch.bfloat16):
            quick = hift.decode(mel, excitation)
    assert set(hift.state_dict()) == names
    assert float((plain - quick).abs().max()) < 0.05 * float(plain.abs().max())


def test_the_vocoder_stages_train_and_their_file_is_read_by_the_product(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocoder, "FRAMES", 12)
    crops = vocoder.Crops([utterance(), utterance("rms", 1.5)])
    hift = HiFT(HiFTConfig(32, 24))
    vocoder.initialise(hift)
    vocoder.train_pitch(crops, crops, hift, tmp_path, steps=1)
    loop = vocoder.train(crops, crops, hift, tmp_path, steps=2)
    write_hift(loop.average["hift"].state_dict(), tmp_path)
    assert load_hift(tmp_path).config == HiFTConfig(32, 24)


def test_the_same_waveform_has_no_spectral_loss() -> None:
    wav = torch.from_numpy(tone(0.3))[None]
    assert float(vocoder.spectral_loss(wav, wav)) == pytest.approx(0, abs=1e-4)
    assert float(vocoder.spectral_loss(wav, 0.5 * wav)) > 0.1


def test_weights_that_do_not_fit_half_precision_are_refused() -> None:
    with pytest.raises(ValueError, match="too_big"):
        halved({"too_big": torch.tensor([1e6])})


def test_the_onnx_models_have_the_published_inputs_and_say_what_the_networks_say(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="writing ONNX is one of the training extras")
    import onnxruntime

    from model_runtime.training import speech_onnx

    net, who = codec.Codec(width=16, blocks=1).eval(), speaker.SpeakerNet(width=16).eval()
    speech_onnx.write_codec(net, tmp_path / "codec.onnx")
    speech_onnx.write_speaker(who, tmp_path / "speaker.onnx")
    coder = onnxruntime.InferenceSession(tmp_path / "codec.onnx")
    assert [entry.name for entry in coder.get_inputs()] == ["feats", "feats_length"]
    feats = torch.rand(1, 128, 230)
    (codes,) = coder.run(None, {"feats": feats.numpy(), "feats_length": np.array([230], np.int32)})
    expected = net(feats, torch.tensor([230], dtype=torch.int32)).numpy()
    assert codes.shape == (1, 57)
    assert (
        codes == expected
    ).mean() > 0.9  # half-precision weights may tip a number at the edge of two levels
    namer = onnxruntime.InferenceSession(tmp_path / "speaker.onnx")
    bank = torch.randn(2, 150, 80)
    (vectors,) = namer.run(["output"], {"input": bank.numpy()})
    np.testing.assert_allclose(vectors, who(bank).detach().numpy(), atol=2e-2)


def test_what_was_heard_is_matched_to_the_nearest_answer() -> None:
    answers = ["We are closed on Sundays.", "You are very welcome."]
    assert judge.nearest("we are clothed on sunday", answers) == answers[0]
    assert judge.distance("kitten", "sitting") == 3
    figures, misheard = speech_measure.measure(
        lambda text: tone(0.1), answers, answers, lambda wav: "you are welcome"
    )
    assert figures["answer_id"] == 0.5
    assert misheard == [(answers[0], "you are welcome")]


def test_a_run_s_record_is_short_and_whole(tmp_path: Path) -> None:
    rows = [{"step": float(step)} for step in range(1000)]
    write_run(tmp_path / "runs" / "codec.json", "codec", {"minutes": 3}, rows)
    text = (tmp_path / "runs" / "codec.json").read_text()
    assert '"minutes": 3' in text
    assert '"step": 999.0' in text
    assert len(text) < 5000


def test_resampling_keeps_the_length_in_seconds() -> None:
    assert len(to_rate(tone(1.0), 24000, 16000)) == 16000
