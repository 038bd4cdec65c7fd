"""The library's folder as an engine reads it: which voices are there now, and which of them it can use."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from safetensors import SafetensorError, safe_open

from model_runtime.errors import VoiceError
from model_runtime.library.entry import NAME, SUFFIX, About
from model_runtime.library.packed import ABOUT

if TYPE_CHECKING:
    from model_runtime.speaking.voice import Voice

log = logging.getLogger(__name__)

KEPT = 8  # voices held in memory beyond those in use: each may have a prompt's keys and values with it
# A folder changed so lately may change again within the same tick of its file system's clock.
FRESH_NS = 2_000_000_000


class _File(NamedTuple):
    """A file of the folder: whether it has changed since (``stamp``), and what it says or why it does not."""

    path: Path
    stamp: tuple[int, int, int]
    about: About | None
    seconds: float
    fault: str


class Shelf:
    """The folder ``folder``, which need not exist, for a checkpoint of that ``codec`` (see ``codec_of``).

    Used from one thread. Nothing in the folder can make it fail: a file that is no good is logged once and
    passed over.
    """

    def __init__(self, folder: Path | None, codec: str) -> None:
        """Nothing is read before ``look``. Without a folder the shelf stays empty."""
        self._folder = folder
        self._codec = codec
        self._changed = -1  # when the folder last changed, as far as is known
        self._files: dict[str, _File] = {}
        self._open: OrderedDict[str, tuple[_File, Voice]] = OrderedDict()

    def look(self) -> None:
        """Look whether the folder has changed. Costs one ``stat`` if it has not."""
        if self._folder is None:
            return
        try:
            changed = self._folder.stat().st_mtime_ns
            if changed == self._changed:
                return
            paths = sorted(path for path in self._folder.iterdir() if path.suffix == SUFFIX)
        except OSError:
            self._files, self._changed = {}, -1
            return
        files = {}
        for path in paths:
            with suppress(OSError):  # removed just now
                about = path.stat()
                stamp = (about.st_mtime_ns, about.st_size, about.st_ino)
                before = self._files.get(path.stem)
                same = before is not None and before.stamp == stamp
                files[path.stem] = before if before is not None and same else self._read(path, stamp)
        self._files = files
        self._changed = -1 if abs(time.time_ns() - changed) < FRESH_NS else changed

    @property
    def names(self) -> list[str]:
        """Voices that can be used, as of the last look."""
        return [name for name, file in self._files.items() if not file.fault]

    @property
    def faults(self) -> dict[str, str]:
        """Why the others cannot be used, as of the last look: a sentence that names the file."""
        return {name: file.fault for name, file in self._files.items() if file.fault}

    def about(self, name: str) -> tuple[About, float] | None:
        """What is stored with a voice that can be used, and its length in seconds."""
        file = self._files.get(name)
        return None if file is None or file.about is None else (file.about, file.seconds)

    def path(self, name: str) -> Path | None:
        """The file of a voice, also of one that cannot be used."""
        return self._files[name].path if name in self._files else None

    def take(self, name: str) -> Voice | None:
        """A voice, as of the last look; None if there is none. Raises VoiceError for one that is no good.

        Who takes the same one twice is given the same object, so that its prompt is taken in once.
        """
        from model_runtime.speaking.voice import Voice  # and with it torch, which who only looks does without

        file = self._files.get(name)
        if file is None:
            return None
        if file.fault:
            raise VoiceError(file.fault)
        kept, voice = self._open.get(name, (None, None))
        if voice is None or kept is not file:
            try:
                voice = Voice.load(file.path)
            except VoiceError as error:
                self._files[name] = self._faulty(file, str(error))
                raise
            self._open[name] = (file, voice)
        self._open.move_to_end(name)
        while len(self._open) > KEPT:
            self._open.popitem(last=False)
        return voice

    def _read(self, path: Path, stamp: tuple[int, int, int]) -> _File:
        """A file's header; its tensors are read when somebody wants to speak with them."""
        file = _File(path, stamp, None, 0.0, "")
        if NAME.fullmatch(path.stem) is None:
            said = "names of voices are of lower-case letters, digits and dashes: rename it"
            return self._faulty(file, f"{path.name!r}: {said}")
        try:
            with safe_open(path, "np") as content:
                stored = (content.metadata() or {}).get(ABOUT)
                tokens = content.get_slice("tokens").get_shape()
            if stored is None:
                raise ValueError("it does not say which checkpoint it is for")
            about = msgspec.json.decode(stored, type=About)
        except (OSError, SafetensorError, ValueError) as error:
            said = f"cannot be read as a voice of the library ({error}): remove it and add the voice again"
            return self._faulty(file, f"{path.name}: {said}")
        file = file._replace(seconds=tokens[0] / 25 if tokens else 0.0)
        if about.codec != self._codec:
            said = (
                f"was prepared for another checkpoint ({about.checkpoint}): add the voice again for this one"
            )
            return self._faulty(file, f"{path.name}: {said}")
        return file._replace(about=about)

    @staticmethod
    def _faulty(file: _File, fault: str) -> _File:
        log.warning("voice left out: %r", fault)  # quoted: what a file says cannot forge a line of the log
        return file._replace(about=None, fault=fault)


def put(folder: Path, name: str, voice: Voice, about: About) -> Path:
    """Write a voice into the folder, whole or not at all; one of that name is replaced. Raises OSError.

    Only this user can read what is made: it is how a person sounds.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, made = tempfile.mkstemp(dir=folder, prefix=f".{name}-", suffix=".part")
    os.close(handle)
    part, path = Path(made), folder / f"{name}{SUFFIX}"
    try:
        voice.save(part, {ABOUT: msgspec.json.encode(about).decode()})
        part.chmod(0o600)  # whoever wrote it may have made it anew
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path
