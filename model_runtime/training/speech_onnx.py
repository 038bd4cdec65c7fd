"""Writes codec and speaker encoder as ONNX models with the published names, weights in half precision."""

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

from model_runtime.training.codec import Codec
from model_runtime.training.speaker import SpeakerNet


def halve(model: onnx.ModelProto) -> onnx.ModelProto:
    """Stores float32 weights as float16 with a cast in front: half the file, arithmetic unchanged."""
    kept, casts = [], []
    for weight in model.graph.initializer:
        value = numpy_helper.to_array(weight)
        if value.dtype == np.float32 and value.size > 256:
            small = numpy_helper.from_array(value.astype(np.float16), weight.name + "_half")
            casts.append(helper.make_node("Cast", [small.name], [weight.name], to=onnx.TensorProto.FLOAT))
            kept.append(small)
        else:
            kept.append(weight)
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
    onnx.checker.check_model(model)
    return model


def _write(
    module: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    path: Path,
    names: tuple[list[str], list[str]],
    axes: dict[str, dict[int, str]],
) -> None:
    scratch = path.with_suffix(".part")
    # The TorchScript exporter: its graph is plain opset 17 without the training extras at run time.
    torch.onnx.export(
        module.eval(),
        inputs,
        str(scratch),
        input_names=names[0],
        output_names=names[1],
        dynamic_axes=axes,
        opset_version=17,
        dynamo=False,
    )
    onnx.save(halve(onnx.load(scratch)), path)
    scratch.unlink()


def write_codec(codec: Codec, path: Path) -> None:
    """feats [1, 128, T] float32, feats_length [1] int32 -> indices [1, T // 4] int64."""
    inputs = (torch.randn(1, 128, 200), torch.tensor([200], dtype=torch.int32))
    axes = {"feats": {2: "T"}, "indices": {1: "N"}}
    _write(codec, inputs, path, (["feats", "feats_length"], ["indices"]), axes)


def write_speaker(net: SpeakerNet, path: Path) -> None:
    """input [B, T, 80] float32 -> output [B, 192] float32."""
    axes = {"input": {0: "B", 1: "T"}, "output": {0: "B"}}
    _write(net, (torch.randn(1, 200, 80),), path, (["input"], ["output"]), axes)
