"""Downloading a published checkpoint by name: ``hf://org/name`` or ``hf://org/name@revision``."""

from __future__ import annotations

import re
from pathlib import Path

from model_runtime.errors import CheckpointError

_NAME = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?/?")
# Data only: the Python files beside the weights are never fetched, let alone run.
_WANTED = [
    "*.json",
    "*.safetensors",
    "merges.txt",
    "voices/*",
    "assets/default_*.wav",
    "token2wav/*.pt",
    "token2wav/*.yaml",
    "token2wav/*.onnx",
]


def is_remote(path: str | Path) -> bool:
    """Whether ``path`` names a checkpoint to be downloaded."""
    return str(path).startswith("hf:/")


def located(path: str | Path) -> Path:
    """The folder that ``path`` names, downloaded if it has to be. Raises CheckpointError."""
    return fetch(str(path)) if is_remote(path) else Path(path)


def fetch(name: str) -> Path:
    """Download what is missing of ``name`` (a progress bar a file) and return its folder.

    Whatever was fetched before is used as it is, without a network. Raises CheckpointError.
    """
    # A Path would have made one slash of two.
    match = _NAME.fullmatch(re.sub(r"^hf:/+", "hf://", name))
    if match is None:
        raise CheckpointError(f"{name}: is not of the form hf://org/name. Correct the name.")
    from huggingface_hub import snapshot_download  # costs half a second and is seldom needed
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    repository, revision = match[1], match[2]
    folder = _local_name(repository)
    try:
        snapshot_download(repository, revision=revision, allow_patterns=_WANTED, local_dir=folder)
    except GatedRepoError:
        text = "may only be downloaded by who accepted its terms. Accept them on its page and set HF_TOKEN."
        raise CheckpointError(f"{name}: {text}") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        if (folder / "config.json").is_file() and isinstance(error, LocalEntryNotFoundError):
            return folder  # no network, but an earlier download: whether it is whole is checked on opening
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        remedy = "Check the name and the network, or download it elsewhere and name the folder."
        raise CheckpointError(f"{name}: cannot be downloaded ({reason.rstrip('.')}). {remedy}") from None
    return folder


def _local_name(repository: str) -> Path:
    """Under the Hugging Face cache, by the repository's name: the folder's name tells which variant it is."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE).parent / "parley" / repository
