"""Safetensors on disk to modules on a device: every tensor checked by name and shape first, then loaded one
by one.

A module is built without memory, and each parameter is put in its place on the device, in the dtype wanted;
never more than one tensor is held twice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from model_runtime.errors import CheckpointError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where a tensor is and what it looks like. Nothing of it has been read."""

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype


def scan(folder: Path) -> dict[str, TensorInfo]:
    """Every tensor of a folder by name: one safetensors file, or the shards its index names.

    Raises CheckpointError on a missing, truncated or contradictory file.
    """
    index = folder / INDEX
    if not index.is_file():
        single = folder / SINGLE
        if not single.is_file():
            raise CheckpointError.of(single, f"is missing, and so is {INDEX}")
        return _headers(single)
    try:
        placed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = {str(name): str(file) for name, file in placed.items()}
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise CheckpointError.of(index, f"is not an index of shards ({error!r})") from None
    tensors: dict[str, TensorInfo] = {}
    for file in sorted(set(shards.values())):
        if Path(file).name != file:
            raise CheckpointError.of(index, f"names a file outside the folder ({file})")
        if not (folder / file).is_file():
            raise CheckpointError.of(folder / file, f"is missing, though {INDEX} names it")
        for name, info in _headers(folder / file).items():
            if shards.get(name) != file:
                raise CheckpointError.of(folder / file, f"holds {name}, which {INDEX} does not place there")
            tensors[name] = info
    for name, file in shards.items():
        if name not in tensors:
            raise CheckpointError.of(folder / file, f"lacks {name}, which {INDEX} places there")
    return tensors


def _headers(path: Path) -> dict[str, TensorInfo]:
    try:
        with safe_open(path, framework="pt") as file:
            found = {}
            for name in file.keys():  # noqa: SIM118 - not a mapping: it has keys() alone
                part = file.get_slice(name)
                kind = part.get_dtype()
                if kind not in _DTYPES:
                    raise CheckpointError.of(path, f"holds {name} as {kind}, which is no floating-point type")
                found[str(name)] = TensorInfo(path, tuple(part.get_shape()), _DTYPES[kind])
            return found
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError.of(path, f"is damaged or incomplete ({error})") from None


def check(tensors: Mapping[str, TensorInfo], expected: Mapping[str, tuple[int, ...]], where: Path) -> None:
    """Raises CheckpointError unless exactly the ``expected`` names are there, in the expected shapes.

    ``where`` is the file named when something is missing altogether.
    """
    for name, shape in expected.items():
        if name not in tensors:
            raise CheckpointError.of(where, f"lacks the tensor {name}")
        info = tensors[name]
        if info.shape != shape:
            fault = f"holds {name} in shape {list(info.shape)}, not {list(shape)} as config.json has it"
            raise CheckpointError.of(
                info.file, fault, "Copy config.json and the weights from one checkpoint."
            )
    for name, info in tensors.items():
        if name not in expected:
            fault = f"holds the tensor {name}, which this model does not have"
            raise CheckpointError.of(info.file, fault, "Use a Step-Audio 2 checkpoint as it was published.")


def load(
    modules: Mapping[str, nn.Module],
    tensors: Mapping[str, TensorInfo],
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Fill modules built on the meta device; each key is the prefix its parameters have on disk.

    The modules come out in evaluation mode, with gradients off. Raises CheckpointError when reading fails.
    """
    places: dict[str, tuple[nn.Module, str]] = {}
    for prefix, module in modules.items():
        for name, _ in module.named_parameters():
            owner, _, leaf = name.rpartition(".")
            places[prefix + name] = (module.get_submodule(owner), leaf)
    for path in sorted({tensors[name].file for name in places}):
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                for name in (name for name in places if tensors[name].file == path):
                    value = file.get_tensor(name)
                    # On a CPU the tensor is a view of the file itself, which may change under us: copy.
                    value = value.to(dtype, copy=device.type == "cpu")
                    module, leaf = places[name]
                    setattr(module, leaf, nn.Parameter(value, requires_grad=False))
        except (SafetensorError, OSError) as error:
            raise CheckpointError.of(path, f"is damaged or incomplete ({error})") from None
    for part in modules.values():
        part.eval()


def shapes(modules: Mapping[str, nn.Module]) -> dict[str, tuple[int, ...]]:
    """Name on disk and shape of every parameter of modules, by prefix."""
    return {
        prefix + name: tuple(parameter.shape)
        for prefix, module in modules.items()
        for name, parameter in module.named_parameters()
    }


def count(tensors: Iterable[TensorInfo]) -> int:
    """How many numbers there are in all."""
    return sum(torch.Size(info.shape).numel() for info in tensors)
