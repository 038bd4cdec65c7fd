"""A checkpoint's voices and the library's together: told, added, removed, rendered."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from model_runtime.checkpoint import open_checkpoint
from model_runtime.library import audio_file, checks
from model_runtime.library.entry import NAME, SUFFIX, About, Entry, codec_of, told
from model_runtime.library.measures import measure
from model_runtime.library.shelf import Shelf, put
from model_runtime.speaking.schedule import Schedule
from model_runtime.speaking.token2wav import Draws, Token2Wav
from model_runtime.speaking.vocoder import RATE
from model_runtime.speaking.vocoder_stream import VocoderStream
from model_runtime.speaking.voice import Voice, VoiceError, VoicePreparer

SMALL = 1024  # hidden size; as for the engine


class _Known(msgspec.Struct, frozen=True):
    """What was found out of a checkpoint's voice file: the next look at it is quick."""

    stamp: tuple[int, int]
    entry: Entry


class Catalogue:
    """The voices that calls on one checkpoint can be given."""

    def __init__(self, checkpoint: str, folder: Path) -> None:
        """Opens the checkpoint, but loads no weights. Raises CheckpointError."""
        self.checkpoint = open_checkpoint(checkpoint)
        if self.checkpoint.text.hidden_size < SMALL:
            torch.set_num_threads(1)  # quicker for a small model, and calls beside it want the other cores
        self.folder = folder
        self.codec = codec_of(self.checkpoint.token2wav)
        self.shelf = Shelf(folder, self.codec)
        self.shelf.look()

    def entries(self) -> Iterator[Entry]:
        """Every voice, the checkpoint's first; those that cannot be used come last and say why."""
        own = self._own()
        yield from own
        taken = {entry.name for entry in own}
        faults = dict(self.shelf.faults)
        for name in self.shelf.names:
            if name in taken:
                faults[name] = f"{name}{SUFFIX}: the checkpoint has a voice of that name, which is used"
                continue
            try:
                yield self._kept(name)
            except VoiceError as error:
                faults[name] = str(error)
        for name, fault in faults.items():
            readable = name.encode(errors="backslashreplace").decode()  # a file may be named in any bytes
            yield Entry(name=readable, origin="library", fault=fault)

    def add(self, name: str, file: Path, description: str, consent: str, *, replace: bool = False) -> Entry:
        """Check a recording and keep it as a voice. VoiceError says why it was not."""
        if NAME.fullmatch(name) is None:
            raise VoiceError(
                f"{name!r} cannot be a voice's name: use up to 40 lower-case letters, digits and dashes"
            )
        for what, text in (("description", description), ("consent", consent)):
            if not text.strip():
                raise VoiceError(f"The {what} is empty: say it with --{what}")
        if name in self._own_files:
            raise VoiceError(f"The checkpoint has a voice {name!r} of its own: choose another name")
        if self.shelf.path(name) is not None and not replace:
            raise VoiceError(f"There is a voice {name!r} already: choose another name, or add --replace")
        recording, rate = audio_file.read(file)
        try:
            fit = checks.fit(recording, rate, file.name)
        except VoiceError as error:
            raise VoiceError(f"{file}: {error}") from None
        voice = VoicePreparer(self.checkpoint.token2wav).prepare(
            fit.sound, fit.rate, description=description.strip()
        )
        about = About(
            codec=self.codec,
            checkpoint=self.checkpoint.card.name,
            description=description.strip(),
            consent=consent.strip(),
            added=time.strftime("%Y-%m-%d", time.gmtime()),
            **_fields(fit.sound, fit.rate),
        )
        try:
            put(self.folder, name, voice, about)
        except OSError as error:
            raise VoiceError(f"{self.folder}: cannot be written to ({error.strerror})") from None
        self.shelf.look()
        return self._kept(name)

    def remove(self, name: str) -> None:
        """Forget a voice of the library. VoiceError if there is none such."""
        path = self.shelf.path(name)
        if path is None:
            whose = (
                "is the checkpoint's own and stays" if name in self._own_files else "is not in the library"
            )
            raise VoiceError(f"The voice {name!r} {whose}")
        try:
            path.unlink()
        except OSError as error:
            raise VoiceError(f"{path}: cannot be removed ({error.strerror})") from None

    def render(self, name: str) -> NDArray[np.float32]:
        """The prompt said again by the checkpoint itself, as calls will hear the voice: float32 at 24 kHz.

        VoiceError if there is none such.
        """
        voice = self._voice(name)
        return self._token2wav.offline(voice.tokens.tolist(), voice)

    # --- the checkpoint's own ---

    @cached_property
    def _own_files(self) -> dict[str, Path]:
        recordings = {path.stem: path for path in self.checkpoint.recordings}
        return recordings | self.checkpoint.voices

    def _own(self) -> list[Entry]:
        """The checkpoint's voices. They were never measured: that is done once, and remembered."""
        notes = self.folder / f".checkpoint-{self.codec}.json"
        try:
            known = msgspec.json.decode(notes.read_bytes(), type=dict[str, _Known])
        except (OSError, msgspec.MsgspecError):
            known = {}
        now = {}
        for name, path in sorted(self._own_files.items()):
            about = path.stat()
            stamp = (about.st_mtime_ns, about.st_size)
            before = known.get(name)
            now[name] = before if before and before.stamp == stamp else _Known(stamp, self._looked_at(name))
        if now != known:
            with suppress(OSError):  # then it is measured again the next time
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                notes.write_bytes(msgspec.json.encode(now))
        return [one.entry for one in now.values()]

    def _looked_at(self, name: str) -> Entry:
        voice = self._own_voice(name)
        # Of a prepared voice there is only the mel: the vocoder alone makes a sound of it, to be measured.
        with torch.inference_mode():
            vocoder = VocoderStream(self._token2wav.hift, Schedule(), Draws(0))
            sound = vocoder.push(voice.mel[None], last=True).numpy()
        return Entry(
            name=name,
            origin="checkpoint",
            seconds=voice.seconds,
            description=voice.description,
            speaker=_direction(voice),
            checkpoint=self.checkpoint.card.name,
            licence=voice.licence,
            **_fields(sound, RATE),  # type: ignore[arg-type] # the fields of Measures
        )

    def _own_voice(self, name: str) -> Voice:
        path = self._own_files[name]
        if path.suffix == SUFFIX:
            return Voice.load(path)
        recording, rate = audio_file.read(path)
        return VoicePreparer(self.checkpoint.token2wav).prepare(recording.T, rate, source=path.name)

    # --- the library ---

    def _kept(self, name: str) -> Entry:
        """A voice that the shelf has. Raises VoiceError for a damaged one."""
        voice, found = self.shelf.take(name), self.shelf.about(name)
        if voice is None or found is None:
            raise VoiceError(f"{name}{SUFFIX}: has gone")
        about, seconds = found
        return told(name, seconds, _direction(voice), about)

    def _voice(self, name: str) -> Voice:
        if name in self._own_files:
            return self._own_voice(name)
        voice = self.shelf.take(name)
        if voice is None:
            known = ", ".join(sorted({*self._own_files, *self.shelf.names})) or "none"
            raise VoiceError(f"There is no voice {name!r}; there are: {known}")
        return voice

    @cached_property
    def _token2wav(self) -> Token2Wav:
        return Token2Wav.load(self.checkpoint.token2wav, steps=self.checkpoint.card.flow_steps or None)


def _fields(mono: NDArray[np.float32], rate: int) -> dict[str, float]:
    found = measure(mono, rate)
    return {name: round(float(getattr(found, name)), 1) for name in found.__struct_fields__}


def _direction(voice: Voice) -> list[float]:
    """The speaker embedding, of length 1: a cosine is then a product."""
    return [round(value, 5) for value in (voice.speaker / voice.speaker.norm().clamp_min(1e-9)).tolist()]
