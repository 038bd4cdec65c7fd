"""A network in ONNX, as it is run beside live calls."""

from __future__ import annotations

from pathlib import Path

import onnxruntime


def quiet_session(path: Path) -> onnxruntime.InferenceSession:
    """One that takes one thread, on the CPU, and logs nothing but faults.

    Raises what onnxruntime raises for a file that it cannot read.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # calls need the others
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
