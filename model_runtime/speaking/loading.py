"""Reading a checkpoint's `token2wav` folder: `flow.yaml`, `flow.pt`, `hift.pt`. Nothing in it is executed."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from torch import Tensor, nn

from model_runtime.errors import CheckpointError
from model_runtime.speaking.conformer import EncoderConfig
from model_runtime.speaking.dit import DiTConfig
from model_runtime.speaking.flow import Flow, FlowConfig
from model_runtime.speaking.vocoder import HiFT, HiFTConfig, fold_weight_norm

Config = TypeVar("Config", EncoderConfig, DiTConfig)

LARGEST_YAML = 1 << 20  # bytes; the published file has 1.1 kB
# Settings that this implementation does not vary: another value means another architecture.
FIXED = {
    "input_layer": "linear",
    "pos_enc_layer_type": "rel_pos_espnet",
    "selfattention_layer_type": "rel_selfattn",
    "normalize_before": True,
    "up_scale_factor": 2,
    "up_stride": 2,
    "output_type": "mel",
    "activation_type": "swish",
}


class _PlainLoader(yaml.SafeLoader):
    """A safe loader to which hyperpyyaml's `!new:` and other local tags mean nothing: values stay plain."""


def _ignore_tag(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> object:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.ScalarNode)
    return loader.construct_scalar(node)


_PlainLoader.add_multi_constructor("!", _ignore_tag)


def read_flow_yaml(path: Path) -> FlowConfig:
    """The flow's dimensions; CheckpointError names the file and the entry that is wrong."""
    try:
        if path.stat().st_size > LARGEST_YAML:
            raise CheckpointError.of(path, "is larger than any flow.yaml should be")
        document = yaml.load(path.read_text(encoding="utf-8"), _PlainLoader)
    except FileNotFoundError as error:
        raise CheckpointError.of(path, "is missing") from error
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError.of(path, f"cannot be read ({error})") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise CheckpointError.of(path, f"is not valid YAML ({' '.join(str(error).split())})") from error
    flow = _section(path, document, "flow")
    decoder = _section(path, flow, "decoder", "flow.")
    config = FlowConfig(
        vocab_size=_entry(path, flow, "vocab_size", int),
        input_size=_entry(path, flow, "input_size", int),
        output_size=_entry(path, flow, "output_size", int),
        spk_embed_dim=_entry(path, flow, "spk_embed_dim", int),
        inference_cfg_rate=_entry(path, decoder, "inference_cfg_rate", float),
        encoder=_dimensions(path, _section(path, flow, "encoder", "flow."), EncoderConfig),
        estimator=_dimensions(path, _section(path, decoder, "estimator", "flow.decoder."), DiTConfig),
    )
    for section in (flow, flow["encoder"]):
        for name, value in FIXED.items():
            if section.get(name, value) != value:
                raise CheckpointError.of(path, f"{name} is {section[name]!r}, only {value!r} is supported")
    _consistent(path, config)
    return config


def _consistent(path: Path, config: FlowConfig) -> None:
    encoder, dit = config.encoder, config.estimator
    wrong = None
    if dit.in_channels != 4 * config.output_size or dit.out_channels != config.output_size:
        wrong = "in_channels must be four times output_size, and out_channels equal to it"
    elif encoder.output_size % (2 * encoder.attention_heads):
        wrong = "the encoder's output_size must be an even multiple of attention_heads"
    elif encoder.input_size != config.input_size:
        wrong = "the encoder's input_size must be the flow's"
    if wrong:
        raise CheckpointError.of(path, wrong)


def _section(path: Path, parent: object, name: str, where: str = "") -> dict[str, Any]:
    value = parent.get(name) if isinstance(parent, dict) else None
    if not isinstance(value, dict):
        raise CheckpointError.of(path, f"has no section {where}{name}")
    return value


def _entry(path: Path, section: Mapping[str, Any], name: str, kind: type) -> Any:
    if name not in section:
        raise CheckpointError.of(path, f"{name} is missing")
    value = section[name]
    right = (
        isinstance(value, bool) if kind is bool else isinstance(value, int | float if kind is float else kind)
    )
    if not right or (kind is not bool and isinstance(value, bool)):
        raise CheckpointError.of(path, f"{name} must be of type {kind.__name__}, not {value!r}")
    if kind is not bool and not 0 <= value < 1 << 20:
        raise CheckpointError.of(path, f"{name} is {value!r}, which is out of range")
    if kind is int and value == 0:
        raise CheckpointError.of(path, f"{name} must not be 0")
    return kind(value)


def _dimensions(path: Path, section: Mapping[str, Any], kind: type[Config]) -> Config:
    types = {"int": int, "float": float, "bool": bool}
    return kind(**{f.name: _entry(path, section, f.name, types[str(f.type)]) for f in fields(kind)})


def flow_yaml(config: FlowConfig) -> str:
    """Write the flow's dimensions as `read_flow_yaml` reads them, in the published file's layout."""
    encoder = {f.name: getattr(config.encoder, f.name) for f in fields(config.encoder)}
    estimator = {f.name: getattr(config.estimator, f.name) for f in fields(config.estimator)}
    own = ("vocab_size", "input_size", "output_size", "spk_embed_dim")
    document = {
        "flow": {
            **{name: getattr(config, name) for name in own},
            "output_type": "mel",
            "encoder": {
                **encoder,
                **{k: FIXED[k] for k in ("input_layer", "pos_enc_layer_type", "normalize_before")},
            },
            "decoder": {"inference_cfg_rate": config.inference_cfg_rate, "estimator": estimator},
        }
    }
    return yaml.safe_dump(document, sort_keys=False)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pt` file as float32 on the CPU; pickled code is refused, not run."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError.of(path, "is missing") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError.of(path, "holds something other than tensors, or is damaged") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError.of(path, "is truncated, or not a PyTorch file") from error
    if not isinstance(state, dict) or not state:
        raise CheckpointError.of(path, "holds no dictionary of tensors")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError.of(path, f"{name!r} is not a tensor")
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise CheckpointError.of(path, f"{name} holds a value that is not a number")
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def fill(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load all tensors into a module; CheckpointError names the first missing, unknown or misshapen one."""
    expected = module.state_dict()
    for name, value in expected.items():
        if name not in tensors:
            raise CheckpointError.of(path, f"lacks the tensor {name}")
        if tensors[name].shape != value.shape:
            found, wanted = list(tensors[name].shape), list(value.shape)
            raise CheckpointError.of(path, f"holds {name} in shape {found}, not {wanted}")
    unknown = sorted(set(tensors) - set(expected))
    if unknown:
        raise CheckpointError.of(path, f"holds the tensor {unknown[0]}, which this model does not have")
    module.load_state_dict(dict(tensors), assign=True)
    module.eval().requires_grad_(False)


def load_flow(folder: Path) -> Flow:
    """The flow of a `token2wav` folder (`flow.yaml`, `flow.pt`), float32, for inference."""
    config = read_flow_yaml(folder / "flow.yaml")
    tensors = read_tensors(folder / "flow.pt")
    with torch.device("meta"):  # no memory is spent on what the yaml claims before the shapes are compared
        flow = Flow(config)
    fill(flow, tensors, folder / "flow.pt")
    return flow


def load_hift(folder: Path) -> HiFT:
    """The vocoder of a `token2wav` folder (`hift.pt`), float32, weight norm folded, for inference."""
    path = folder / "hift.pt"
    raw = read_tensors(path)
    try:
        tensors = fold_weight_norm(raw)
        config = HiFTConfig.of(tensors)
    except (KeyError, ValueError, IndexError, RuntimeError) as error:
        raise CheckpointError.of(path, f"is not a HiFT vocoder ({' '.join(str(error).split())})") from error
    if config.base_channels % 8:
        raise CheckpointError.of(path, f"conv_pre has {config.base_channels} channels, not a multiple of 8")
    hift = HiFT(config)
    fill(hift, tensors, folder / "hift.pt")
    return hift
