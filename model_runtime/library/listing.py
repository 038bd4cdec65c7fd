"""A checkpoint's voices and the library's together, as their files tell of them. No torch.

So that whoever only wants the list, or a voice gone, need not wait for PyTorch to load.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from model_runtime.errors import VoiceError
from model_runtime.library import packed
from model_runtime.library.entry import SUFFIX, Entry, codec_of
from model_runtime.library.shelf import Shelf


def prepared(checkpoint: Path) -> dict[str, Path]:
    """The voices that a checkpoint's folder has ready, by name."""
    return {path.stem: path for path in sorted((checkpoint / "voices").glob(f"*{SUFFIX}"))}


def recordings(checkpoint: Path) -> list[Path]:
    """Recordings to make voices of: beside the prepared ones, and upstream's own in ``assets/``."""
    return sorted((checkpoint / "voices").glob("*.wav")) + sorted(
        (checkpoint / "assets").glob("default_*.wav")
    )


class _Known(msgspec.Struct, frozen=True):
    """What was found out of a checkpoint's voice file: the next look at it is quick."""

    stamp: tuple[int, int]
    entry: Entry


class Listing:
    """The voices in two folders, of which the library's need not exist."""

    def __init__(self, checkpoint: Path, folder: Path) -> None:
        """Looks at the folders. Raises OSError if the checkpoint's voice models are not there."""
        self.folder = folder
        self.codec = codec_of(checkpoint / "token2wav")
        self.own_files = {path.stem: path for path in recordings(checkpoint)} | prepared(checkpoint)
        self.shelf = Shelf(folder, self.codec)
        self.shelf.look()
        self._notes = folder / f".checkpoint-{self.codec}.json"
        self._measured = self._remembered()

    @property
    def unmeasured(self) -> list[str]:
        """The checkpoint's voices that nothing is known of, or that have changed since: ``note`` them."""
        return sorted(self.own_files.keys() - self._measured.keys())

    def note(self, found: Mapping[str, Entry]) -> None:
        """Remember what was found out of voices of the checkpoint, for whoever looks next."""
        self._measured |= {name: _Known(_stamp(self.own_files[name]), found[name]) for name in found}
        with suppress(OSError):  # then it is found out again the next time
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._notes.write_bytes(msgspec.json.encode(self._measured))

    def entries(self) -> Iterator[Entry]:
        """Every voice, the checkpoint's first; those that cannot be used come last and say why."""
        yield from (self._measured[name].entry for name in sorted(self._measured))
        faults = dict(self.shelf.faults)
        for name in self.shelf.names:
            if name in self.own_files:
                faults[name] = f"{name}{SUFFIX}: the checkpoint has a voice of that name, which is used"
                continue
            try:
                yield self.kept(name)
            except VoiceError as error:
                faults[name] = str(error)
        for name, fault in faults.items():
            readable = name.encode(errors="backslashreplace").decode()  # a file may be named in any bytes
            yield Entry(name=readable, origin="library", fault=fault)

    def kept(self, name: str) -> Entry:
        """A voice of the library. Raises VoiceError for a damaged one."""
        file = f"{name}{SUFFIX}"
        path = self.shelf.path(name)
        if path is None:
            raise VoiceError(f"{file}: has gone")
        try:
            return packed.entry(name, path.read_bytes())
        except (OSError, packed.Unusable) as error:
            raise VoiceError(f"{file}: cannot be read as a voice file ({error})") from None

    def remove(self, name: str) -> None:
        """Forget a voice of the library. VoiceError if there is none such."""
        path = self.shelf.path(name)
        if path is None:
            whose = "is the checkpoint's own and stays" if name in self.own_files else "is not in the library"
            raise VoiceError(f"The voice {name!r} {whose}")
        try:
            path.unlink()
        except OSError as error:
            raise VoiceError(f"{path}: cannot be removed ({error.strerror})") from None

    def _remembered(self) -> dict[str, _Known]:
        try:
            known = msgspec.json.decode(self._notes.read_bytes(), type=dict[str, _Known])
        except (OSError, msgspec.MsgspecError):
            return {}
        return {
            name: one
            for name, one in known.items()
            if name in self.own_files and one.stamp == _stamp(self.own_files[name])
        }


def _stamp(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_mtime_ns, about.st_size
