from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from model_runtime.errors import CheckpointError
from model_runtime.speaking.conformer import EncoderConfig
from model_runtime.speaking.dit import DiTConfig
from model_runtime.speaking.flow import FlowConfig
from model_runtime.speaking.loading import flow_yaml, load_flow, load_hift, read_flow_yaml
from model_runtime.speaking.token2wav import Token2Wav
from tests.model_runtime.speaking.golden import TOKEN2WAV, needs_golden, tiny_flow, tiny_hift, tiny_voice


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole token2wav folder, less the ONNX models."""
    flow, hift = tiny_flow(), tiny_hift()
    (tmp_path / "flow.yaml").write_text(flow_yaml(flow.config))
    torch.save(flow.state_dict(), tmp_path / "flow.pt")
    torch.save(hift.state_dict(), tmp_path / "hift.pt")
    return tmp_path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    config = FlowConfig(
        100,
        48,
        80,
        192,
        0.0,
        EncoderConfig(48, 48, 3, 3, 2, 2, 4, 96, False),
        DiTConfig(320, 80, 2.0, 3, 2, 8, 24),
    )
    path = tmp_path / "flow.yaml"
    path.write_text(flow_yaml(config))
    assert read_flow_yaml(path) == config


@needs_golden
def test_the_published_layout_is_read() -> None:
    config = read_flow_yaml(TOKEN2WAV / "flow.yaml")
    assert config.vocab_size == 6561
    assert config.estimator.head_dim * config.estimator.num_heads == config.estimator.hidden_size


def test_a_folder_speaks(folder: Path) -> None:
    model = Token2Wav.load(folder, steps=2)
    assert model.offline([1, 2, 3], tiny_voice()).shape == (3 * 960,)


def test_half_precision_files_are_widened(folder: Path) -> None:
    for name in ("flow.pt", "hift.pt"):
        state = torch.load(folder / name, weights_only=True)
        torch.save({key: value.half() for key, value in state.items()}, folder / name)
    assert {p.dtype for p in load_flow(folder).parameters()} == {torch.float32}
    assert {p.dtype for p in load_hift(folder).parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "tag",
    ["!new:os.system", "!apply:os.system", "!name:os.system", "!module:os", "!include:/etc/passwd", "!ref"],
)
def test_tags_of_flow_yaml_run_nothing(tag: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(os, "system", called.append)
    path = folder / "flow.yaml"
    plain = yaml.safe_load(path.read_text())
    text = (
        path.read_text()
        + f"\nextra: {tag} ['touch /tmp/owned']\nmore: {tag}\n  command: x\nlast: {tag} word\n"
    )
    path.write_text(text.replace("encoder:\n", f"encoder: {tag}\n"))
    assert read_flow_yaml(path).encoder.output_size == plain["flow"]["encoder"]["output_size"]
    assert called == []


def test_python_tags_of_flow_yaml_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(os, "system", called.append)
    path = folder / "flow.yaml"
    path.write_text(path.read_text() + "\nextra: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(CheckpointError, match=r"flow\.yaml: is not valid YAML"):
        read_flow_yaml(path)
    assert called == []


class Bomb:
    """Unpickling this would run a command."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("true",)


@pytest.mark.parametrize("name", ["flow.pt", "hift.pt"])
def test_pickled_code_is_refused(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    torch.save({"conv_pre.weight": Bomb()}, folder / name)
    monkeypatch.setattr(os, "system", called.append)
    with pytest.raises(CheckpointError, match=rf"{name}: holds something other than tensors"):
        Token2Wav.load(folder)
    (folder / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(CheckpointError, match=name):
        Token2Wav.load(folder)
    assert called == []


@pytest.mark.parametrize("name", ["flow.yaml", "flow.pt", "hift.pt"])
def test_a_missing_file_is_told_by_name(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name}: is missing"):
        Token2Wav.load(folder)


@pytest.mark.parametrize("name", ["flow.pt", "hift.pt"])
@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.99])
def test_a_truncated_file_is_told_by_name(name: str, keep: float, folder: Path) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(keep if keep > 1 else keep * len(data))])
    with pytest.raises(CheckpointError, match=rf"{name}: (is truncated|holds something other)"):
        Token2Wav.load(folder)


TENSORS: list[tuple[str, str, Callable[[dict[str, torch.Tensor]], object], str]] = [
    ("flow.pt", "missing", lambda s: s.pop("encoder_proj.weight"), "lacks the tensor encoder_proj.weight"),
    ("hift.pt", "missing", lambda s: s.pop("conv_post.bias"), "lacks the tensor conv_post.bias"),
    ("hift.pt", "not hift", lambda s: s.pop("conv_pre.weight"), "not a HiFT"),
    ("flow.pt", "unknown", lambda s: s.update(extra=torch.zeros(1)), "holds the tensor extra"),
    ("hift.pt", "unknown", lambda s: s.update(extra=torch.zeros(1)), "holds the tensor extra"),
    (
        "flow.pt",
        "shape",
        lambda s: s.update({"encoder_proj.bias": torch.zeros(7)}),
        r"encoder_proj.bias in shape \[7\], not \[80\]",
    ),
    (
        "hift.pt",
        "shape",
        lambda s: s.update({"conv_post.bias": torch.zeros(7)}),
        r"conv_post.bias in shape \[7\], not \[18\]",
    ),
    (
        "flow.pt",
        "nan",
        lambda s: s["encoder_proj.bias"].fill_(float("nan")),
        "encoder_proj.bias holds a value",
    ),
    ("flow.pt", "empty", lambda s: s.clear(), "no dictionary of tensors"),
    ("hift.pt", "no tensor", lambda s: s.update(extra=3), "'extra' is not a tensor"),  # type: ignore[call-overload]  # on purpose
]


@pytest.mark.parametrize(("name", "case", "change", "says"), TENSORS, ids=[f"{t[0]} {t[1]}" for t in TENSORS])
def test_wrong_tensors_are_told_by_name(
    name: str, case: str, change: Callable[[dict[str, torch.Tensor]], object], says: str, folder: Path
) -> None:
    state = torch.load(folder / name, weights_only=True)
    change(state)
    torch.save(state, folder / name)
    with pytest.raises(CheckpointError, match=f"{name}.*{says}"):
        Token2Wav.load(folder)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("vocab_size: 50", "vocab_size: many", "vocab_size must be of type int"),
        ("vocab_size: 50", "vocab_size: -1", "out of range"),
        ("vocab_size: 50", "", "vocab_size is missing"),
        ("depth: 2", "depth: 0", "depth must not be 0"),
        ("hidden_size: 32", "hidden_size: 64", "in shape"),
        ("key_bias: true", "key_bias: 1", "key_bias must be of type bool"),
        ("input_layer: linear", "input_layer: conv2d", "input_layer is 'conv2d', only 'linear' is supported"),
        ("in_channels: 320", "in_channels: 240", "four times output_size"),
        ("attention_heads: 2", "attention_heads: 3", "multiple of attention_heads"),
        ("  encoder:", "  coder:", "no section flow.encoder"),
        ("flow:", "flow: [", "not valid YAML"),
        ("flow:", "wolf:", "no section flow"),
    ],
)
def test_a_wrong_entry_of_flow_yaml_is_told(old: str, new: str, says: str, folder: Path) -> None:
    path = folder / "flow.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(CheckpointError, match=says):
        Token2Wav.load(folder)


def test_flow_yaml_that_is_no_text_is_told(folder: Path) -> None:
    (folder / "flow.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match=r"flow\.yaml: cannot be read"):
        read_flow_yaml(folder / "flow.yaml")
    (folder / "flow.yaml").write_bytes(b"a" * (2 << 20))
    with pytest.raises(CheckpointError, match="larger than any"):
        read_flow_yaml(folder / "flow.yaml")
