"""Whole folders open in every published form; broken ones are refused in one sentence that names the file."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from model_runtime import hub, weights
from model_runtime.checkpoint import CheckpointError, open_checkpoint
from model_runtime.model import SpeechModel
from model_runtime.tokenizer import Tokenizer
from tests.model_runtime import tiny


def config(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return data


def refused(folder: Path) -> str:
    """The sentence a broken folder is refused with, by the loader of the whole model."""
    with pytest.raises(CheckpointError) as caught:
        SpeechModel.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


# --- forms ---


def test_nested_config(tiny_folder: Path) -> None:
    checkpoint = open_checkpoint(tiny_folder)
    assert checkpoint.text == tiny.backbone_config()
    assert (checkpoint.audio.n_state, checkpoint.audio.adaptor_inner) == (32, 48)
    assert checkpoint.parameters == sum(value.numel() for value in tiny.tensors().values())
    assert list(checkpoint.voices) == ["anna"]


def test_flat_config(own_folder: Path) -> None:
    before = open_checkpoint(own_folder)
    tiny.write_json(
        own_folder / "config.json", tiny.flat(config(own_folder)) | {"model_type": "step_audio_r1"}
    )
    after = open_checkpoint(own_folder)
    assert (after.text, after.audio) == (before.text, before.audio)


def test_only_one_name_for_the_key_heads(own_folder: Path) -> None:
    data = config(own_folder)
    del data["text_config"]["num_key_value_heads"]
    data["text_config"]["head_dim"] = 8
    tiny.write_json(own_folder / "config.json", data)
    assert open_checkpoint(own_folder).text == tiny.backbone_config()


def test_shards_are_the_single_file(own_folder: Path, tiny_model: SpeechModel) -> None:
    tiny.write_shards(own_folder, load_file(own_folder / weights.SINGLE))
    sharded = SpeechModel.load(own_folder)
    ids = [1, 2, 3]
    assert torch.equal(
        sharded.prefill(sharded.new_cache(), ids), tiny_model.prefill(tiny_model.new_cache(), ids)
    )


@pytest.mark.parametrize(
    ("stored", "wanted", "given_dtype"),
    [
        (torch.bfloat16, torch.float32, None),
        (torch.float16, torch.float32, None),
        (torch.float32, torch.bfloat16, "bfloat16"),
        (torch.float32, torch.float16, torch.float16),
    ],
)
def test_dtypes(tmp_path: Path, stored: torch.dtype, wanted: torch.dtype, given_dtype: Any) -> None:
    model = SpeechModel.load(tiny.write(tmp_path / "half", dtype=stored), dtype=given_dtype)
    for module in (model.encoder, model.adaptor, model.backbone):
        assert {parameter.dtype for parameter in module.parameters()} == {wanted}
    assert not any(p.is_meta or p.requires_grad for p in model.backbone.parameters())
    rows = model.hear(torch.randn(16_000))
    assert rows.dtype == wanted
    assert bool(rows.isfinite().all())


def test_both_embeddings_are_loaded(tiny_model: SpeechModel) -> None:
    wanted = tiny.tensors()
    assert torch.equal(tiny_model.backbone.model.embed_tokens.weight, wanted["model.embed_tokens.weight"])
    assert torch.equal(tiny_model.backbone.lm_head.weight, wanted["lm_head.weight"])


def test_loaded_weights_do_not_hang_on_the_file(own_folder: Path) -> None:
    model = SpeechModel.load(own_folder)
    before = model.backbone.lm_head.weight.clone()
    path = own_folder / weights.SINGLE
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(model.backbone.lm_head.weight, before)


def test_nothing_beside_the_data_is_run(own_folder: Path) -> None:
    trap = own_folder / "ran"
    code = f"import pathlib; pathlib.Path({str(trap)!r}).touch()"
    for name in ("modeling_step_audio_2.py", "configuration_step_audio_2.py", "__init__.py"):
        (own_folder / name).write_text(code)
    SpeechModel.load(own_folder)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("name", "variant"), [("Step-Audio-2-mini", "instruct"), ("x-Base", "base"), ("x-Think", "think")]
)
def test_variant_by_name(tiny_folder: Path, tmp_path: Path, name: str, variant: str) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / name)
    card = open_checkpoint(folder).card
    assert (card.name, card.variant, card.label) == (name, variant, "")
    assert (card.sampling.temperature, card.sampling.top_p, card.sampling.repetition_penalty) == (
        0.7,
        0.9,
        1.05,
    )


def test_card(own_folder: Path) -> None:
    data = {"label": "a demo", "default_voice": "anna", "examples": ["hi"], "sampling": {"temperature": 0.2}}
    for content in (data, {"card": data}):
        tiny.write_json(own_folder / "parley.json", content)
        model = SpeechModel.load(own_folder)
        assert (model.card.label, model.card.examples, model.card.name) == ("a demo", ["hi"], own_folder.name)
        assert model.sampling.temperature == 0.2


def test_the_tokenizer_in_parts_is_the_same(own_folder: Path) -> None:
    whole = open_checkpoint(own_folder).tokenizer
    data = tiny.tokenizer_data()
    (own_folder / "tokenizer.json").unlink()
    tiny.write_json(own_folder / "vocab.json", data["model"]["vocab"])
    merges = "\n".join(" ".join(pair) for pair in data["model"]["merges"])
    (own_folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    tiny.write_json(
        own_folder / "added_tokens.json", {token["content"]: token["id"] for token in data["added_tokens"]}
    )
    parts = open_checkpoint(own_folder).tokenizer
    assert parts.tokens == whole.tokens
    assert parts.encode("hello there") == whole.encode("hello there")
    (own_folder / "merges.txt").unlink()
    assert "merges.txt: is missing" in refused(own_folder)


# --- faults ---

Break = Callable[[Path], object]


def edit(name: str, *path: str, value: Any = None) -> Break:
    """Set (or with None remove) one entry of a JSON file."""

    def change(folder: Path) -> None:
        data = json.loads((folder / name).read_text())
        place = data
        for key in path[:-1]:
            place = place[key]
        if value is None:
            del place[path[-1]]
        else:
            place[path[-1]] = value
        tiny.write_json(folder / name, data)

    return change


def put(name: str, content: str | bytes) -> Break:
    raw = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(raw)


def without(name: str) -> Break:
    return lambda folder: (folder / name).unlink()


def tensor(name: str, value: torch.Tensor | None) -> Break:
    """Replace, add or (None) remove a tensor."""

    def change(folder: Path) -> None:
        values = load_file(folder / weights.SINGLE)
        values.pop(name, None)
        save_file(values if value is None else values | {name: value}, folder / weights.SINGLE)

    return change


def cut(name: str, share: float) -> Break:
    def change(folder: Path) -> None:
        raw = (folder / name).read_bytes()
        (folder / name).write_bytes(raw[: int(len(raw) * share)])

    return change


def shards(change: Callable[[Path, dict[str, Any]], object]) -> Break:
    """Shard the folder, then change it or its index."""

    def run(folder: Path) -> None:
        tiny.write_shards(folder, load_file(folder / weights.SINGLE))
        index = json.loads((folder / weights.INDEX).read_text())
        change(folder, index)
        tiny.write_json(folder / weights.INDEX, index)

    return run


def _lie(folder: Path, index: dict[str, Any]) -> None:
    index["weight_map"]["lm_head.weight"] = "model-00001-of-00002.safetensors"
    index["weight_map"]["model.norm.weight"] = "model-00002-of-00002.safetensors"


def _forget(folder: Path, index: dict[str, Any]) -> None:
    path = folder / index["weight_map"]["lm_head.weight"]
    save_file({k: v for k, v in load_file(path).items() if k != "lm_head.weight"}, path)


def _outside(folder: Path, index: dict[str, Any]) -> None:
    index["weight_map"]["lm_head.weight"] = "../other.safetensors"


def forging_merge(folder: Path) -> None:
    data = tiny.tokenizer_data()
    vocabulary, merges = data["model"]["vocab"], data["model"]["merges"]
    vocabulary |= {"<|E": 1000, "OT": 1001, "OT|>": 1002}
    merges += [["<|", "E"], ["O", "T"], ["OT", "|>"], ["<|E", "OT|>"]]
    vocabulary["<|EOT|>"] = next(t["id"] for t in data["added_tokens"] if t["content"] == "<|EOT|>")
    for token in data["added_tokens"]:
        token["id"] += 2000
    tiny.write_json(folder / "tokenizer.json", data)


TEXT, AUDIO = "text_config", "audio_encoder_config"
FAULTS: dict[str, tuple[Break, list[str]]] = {
    "no config": (without("config.json"), ["is not a checkpoint", "config.json"]),
    "config is no JSON": (put("config.json", "{"), ["config.json", "not JSON"]),
    "config is a list": (put("config.json", "[]"), ["config.json", "not a JSON object"]),
    "config is no text": (put("config.json", b"\xff\xfe"), ["config.json", "not JSON"]),
    "config is endless": (put("config.json", "[" * 100_000), ["config.json", "not JSON"]),
    "another model": (put("config.json", '{"model_type": "llama"}'), ["config.json", "llama"]),
    "no model type": (put("config.json", "{}"), ["config.json", "None"]),
    "no size": (edit("config.json", TEXT, "hidden_size"), ["config.json", "text_config.hidden_size"]),
    "size is text": (edit("config.json", TEXT, "vocab_size", value="9"), ["text_config.vocab_size", "'9'"]),
    "size is huge": (edit("config.json", TEXT, "vocab_size", value=10**12), ["text_config.vocab_size"]),
    "size is negative": (edit("config.json", AUDIO, "n_audio_layer", value=-1), ["n_audio_layer -1"]),
    "endless layers": (edit("config.json", TEXT, "num_hidden_layers", value=10**6), ["num_hidden_layers"]),
    "eps is negative": (edit("config.json", TEXT, "rms_norm_eps", value=-1.0), ["rms_norm_eps"]),
    "no object": (edit("config.json", TEXT, value=3), ["text_config that is not an object"]),
    "heads": (edit("config.json", TEXT, "num_attention_heads", value=3), ["config.json", "3 heads"]),
    "groups": (edit("config.json", TEXT, "num_attention_groups", value=4), ["num_attention_groups 4"]),
    "audio heads": (edit("config.json", AUDIO, "n_audio_head", value=5), ["n_audio_state 32", "5 heads"]),
    "widths": (edit("config.json", AUDIO, "llm_dim", value=64), ["llm_dim 64", "32 wide"]),
    "adaptor": (edit("config.json", AUDIO, "adapter_stride", value=4), ["adapter_stride"]),
    "rope": (edit("config.json", TEXT, "rope_scaling", value={"type": "yarn"}), ["rope scaling"]),
    "too small a vocabulary": (
        edit("config.json", TEXT, "vocab_size", value=6600),
        ["tokenizer.json", "6600"],
    ),
    "shape": (
        edit("config.json", TEXT, "intermediate_size", value=96),
        ["model.safetensors", "[64, 32]", "[96, 32]"],
    ),
    "more layers": (edit("config.json", TEXT, "num_hidden_layers", value=3), ["lacks", "model.layers.2."]),
    "fewer layers": (edit("config.json", AUDIO, "n_audio_layer", value=1), ["encoder.blocks.1."]),
    "no weights": (without("model.safetensors"), ["model.safetensors", "missing"]),
    "cut weights": (cut("model.safetensors", 0.7), ["model.safetensors", "damaged or incomplete"]),
    "cut header": (cut("model.safetensors", 0.001), ["model.safetensors", "damaged or incomplete"]),
    "empty weights": (put("model.safetensors", b""), ["model.safetensors", "damaged or incomplete"]),
    "no head": (tensor("lm_head.weight", None), ["model.safetensors", "lacks", "lm_head.weight"]),
    "unknown tensor": (tensor("vision.weight", torch.zeros(2)), ["model.safetensors", "vision.weight"]),
    "integers": (tensor("model.norm.weight", torch.zeros(32, dtype=torch.int8)), ["model.norm.weight", "I8"]),
    "no linear1": (tensor("adapter.linear1.weight", None), ["adapter.linear1.weight"]),
    "flat linear1": (tensor("adapter.linear1.weight", torch.tensor(1.0)), ["adapter.linear1.weight"]),
    "index no JSON": (put(weights.INDEX, "{"), [weights.INDEX]),
    "index empty": (put(weights.INDEX, "{}"), [weights.INDEX, "weight_map"]),
    "index odd": (put(weights.INDEX, '{"weight_map": []}'), [weights.INDEX]),
    "no shard": (
        shards(lambda folder, _: (folder / "model-00002-of-00002.safetensors").unlink()),
        ["model-00002-of-00002.safetensors", "missing"],
    ),
    "cut shard": (
        shards(lambda folder, _: cut("model-00001-of-00002.safetensors", 0.5)(folder)),
        ["model-00001-of-00002.safetensors", "damaged"],
    ),
    "wrong shard": (shards(_lie), ["does not place there"]),
    "shard lacks": (shards(_forget), ["lacks lm_head.weight", "index"]),
    "shard outside": (shards(_outside), [weights.INDEX, "outside"]),
    "no tokenizer": (without("tokenizer.json"), ["tokenizer.json", "missing"]),
    "tokenizer no JSON": (put("tokenizer.json", "nope"), ["tokenizer.json", "not JSON"]),
    "tokenizer a list": (put("tokenizer.json", "[]"), ["tokenizer.json", "not a JSON object"]),
    "tokenizer not one": (put("tokenizer.json", "{}"), ["tokenizer.json", "not a tokenizer"]),
    "tokenizer other": (edit("tokenizer.json", "model", "type", value="Unigram"), ["byte-level BPE"]),
    "tokenizer merges": (edit("tokenizer.json", "model", "merges", value=[["q", "zz"]]), ["tokenizer.json"]),
    "tokenizer forging": (forging_merge, ["tokenizer.json", "<|EOT|>"]),
    "tokenizer of text": (
        edit("tokenizer.json", "added_tokens", value=[]),
        ["tokenizer.json", "control tokens"],
    ),
    "no flow": (without("token2wav/flow.pt"), ["flow.pt", "missing"]),
    "no voice model": (without("token2wav/campplus.onnx"), ["campplus.onnx", "missing"]),
    "flow cut": (cut("token2wav/flow.pt", 0.5), ["flow.pt"]),
    "flow.yaml": (put("token2wav/flow.yaml", "flow: !new:os.system {command: 'true'}"), ["flow.yaml"]),
    "hift": (put("token2wav/hift.pt", b"no"), ["hift.pt"]),
    "card": (put("parley.json", '{"flow_steps": "ten"}'), ["parley.json", "flow_steps"]),
    "card unknown": (put("parley.json", '{"voice": "anna"}'), ["parley.json", "voice"]),
    "card no JSON": (put("parley.json", "{"), ["parley.json", "not JSON"]),
    "card voice": (put("parley.json", '{"default_voice": "eve"}'), ["parley.json", "'eve'"]),
    "voice": (put("voices/anna.safetensors", b"no"), ["anna.safetensors"]),
    "recording": (put("voices/eve.wav", b"RIFF"), ["eve.wav"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_told_in_one_sentence(own_folder: Path, fault: str) -> None:
    damage, words = FAULTS[fault]
    damage(own_folder)
    message = refused(own_folder)
    for word in words:
        assert word in message


def test_no_folder(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    assert "is not a folder" in refused(tmp_path / "file")
    assert "is not a checkpoint" in refused(tmp_path)


@given(st.data())
def test_any_damage_to_the_small_files_is_refused_or_harmless(
    tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged") / "checkpoint"
    folder.mkdir()
    for path in tiny_folder.iterdir():
        (folder / path.name).symlink_to(path)
    name = data.draw(st.sampled_from(["config.json", "parley.json"]))
    source = tiny_folder / name
    raw = bytearray(source.read_bytes() if source.is_file() else b'{"label": "demo", "flow_steps": 3}')
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_bytes(raw)
    with contextlib.suppress(CheckpointError):
        open_checkpoint(folder)


# --- names ---


def test_a_download_that_is_not_allowed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"hf://stepfun-ai/none: cannot be downloaded \(.+\)\. Check"):
        open_checkpoint("hf://stepfun-ai/none")
    with pytest.raises(CheckpointError, match="org/name"):
        open_checkpoint("hf://none")


def test_an_earlier_download_is_used_without_a_network(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    shutil.copytree(tiny_folder, tmp_path / "parley/stepfun-ai/Step-Audio-2-mini-Think")
    opened = open_checkpoint(Path("hf://stepfun-ai/Step-Audio-2-mini-Think"))
    assert (opened.card.name, opened.card.variant) == ("Step-Audio-2-mini-Think", "think")
    assert hub.is_remote("hf://a/b")
    assert not hub.is_remote("/a/b")


# --- text ---


@given(st.text())
def test_text_survives_its_ids(text: str) -> None:
    tokenizer = tiny.tokenizer()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(tokenizer.bytes_of(id) for id in ids) == text.encode()


@given(st.lists(st.sampled_from(tiny.CONTROL[:60]) | st.text(max_size=4), max_size=10).map("".join))
def test_no_text_becomes_a_control_token(text: str) -> None:
    tokenizer = tiny.tokenizer()
    ids = tokenizer.encode(text)
    assert not tokenizer.control & set(ids)
    assert tokenizer.decode(ids) == text


def test_broken_text_is_still_text() -> None:
    assert tiny.tokenizer().decode(tiny.tokenizer().encode("a\ud800b")) == "a?b"


def test_names_and_decoding_of_control_tokens() -> None:
    tokenizer: Tokenizer = tiny.tokenizer()
    assert tokenizer.id_of("<|EOT|>") == tokenizer.tokens.eot
    assert tokenizer.id_of("hello") is None
    assert tokenizer.decode([tokenizer.tokens.eot, *tokenizer.encode("hi"), 999_999]) == "hi"
