"""``python -m model_runtime.library``: the voice library for a program that has no PyTorch in it.

    --checkpoint PATH --voices DIR  list | add NAME FILE ... | remove NAME | render NAME FILE.wav

Prints one JSON value on stdout: of ``list`` the entries, of ``add`` the new one. With status 1 it is
``{"error": "..."}`` in one sentence instead. Torch, which takes seconds to load, is loaded to add and to
render, and for a list if the checkpoint has a voice that was never measured.
"""

from __future__ import annotations

import argparse
import sys
import wave
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from model_runtime.errors import CheckpointError, VoiceError
from model_runtime.hub import located
from model_runtime.library.listing import Listing


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one thing. Returns the exit status."""
    asked = _parser().parse_args(arguments)
    try:
        said, status = _do(asked), 0
    except (CheckpointError, VoiceError) as error:
        said, status = {"error": str(error)}, 1
    sys.stdout.buffer.write(msgspec.json.encode(said) + b"\n")
    return status


def _do(asked: argparse.Namespace) -> object:
    listing = _listing(asked)
    if listing is not None and asked.command == "remove":
        listing.remove(asked.name)
        return None
    if listing is not None and asked.command == "list" and not listing.unmeasured:
        return list(listing.entries())

    from model_runtime.library.catalogue import Catalogue

    catalogue = Catalogue(asked.checkpoint, asked.voices)
    match asked.command:
        case "list":
            return list(catalogue.entries())
        case "add":
            return catalogue.add(
                asked.name, asked.file, asked.description, asked.consent, replace=asked.replace
            )
        case "remove":
            catalogue.listing.remove(asked.name)
        case "render":
            sound = catalogue.render(asked.name)
            try:
                _write(asked.file, sound)
            except OSError as error:
                raise VoiceError(f"{asked.file}: cannot be written ({error.strerror})") from None
    return None


def _listing(asked: argparse.Namespace) -> Listing | None:
    """``None`` if the checkpoint is not whole: what is wrong with it is said by whoever opens it."""
    try:
        return Listing(located(asked.checkpoint), asked.voices)
    except OSError:
        return None


def _write(path: Path, sound: np.ndarray) -> None:
    """16-bit PCM at 24 kHz."""
    from model_runtime.speaking.vocoder import RATE

    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m model_runtime.library", description="Keep voices.")
    parser.add_argument("--checkpoint", required=True, help="a checkpoint folder, or hf://owner/name")
    parser.add_argument("--voices", type=Path, required=True, metavar="DIR", help="the library's folder")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list")
    add = commands.add_parser("add")
    remove = commands.add_parser("remove")
    render = commands.add_parser("render")
    for command in (add, remove, render):
        command.add_argument("name")
    for command in (add, render):
        command.add_argument("file", type=Path)
    add.add_argument("--description", required=True)
    add.add_argument("--consent", required=True)
    add.add_argument("--replace", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
