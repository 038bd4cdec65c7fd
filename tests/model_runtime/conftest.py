"""The golden set and a tiny random checkpoint."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from model_runtime.model import SpeechModel
from tests.model_runtime import tiny


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Networks so small gain nothing from a second thread, which spins while the first waits for a core."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Where the golden set is: GOLDEN, or beside the repository."""
    folder = Path(os.environ.get("GOLDEN") or Path(__file__).parents[3] / "shared/golden")
    if not folder.is_dir():
        pytest.skip("no golden set: set GOLDEN to its folder")
    return folder


@pytest.fixture(scope="session")
def golden(golden_folder: Path) -> dict[str, Tensor]:
    """What the reference implementation computed."""
    return load_file(golden_folder / "golden.safetensors")


@pytest.fixture(scope="session")
def golden_model(golden_folder: Path) -> SpeechModel:
    """The golden checkpoint, loaded as any other."""
    return SpeechModel.load(golden_folder / "checkpoint")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint that tests only read."""
    return tiny.write(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="session")
def tiny_model(tiny_folder: Path) -> SpeechModel:
    """The tiny checkpoint, loaded."""
    return SpeechModel.load(tiny_folder)


@pytest.fixture
def own_folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint for a test to break."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "Step-Audio-2-tiny"))
