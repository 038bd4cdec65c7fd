"""A checkpoint's voices and the library's together: measured, added, rendered."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model_runtime.checkpoint import open_checkpoint
from model_runtime.errors import VoiceError
from model_runtime.library import audio_file, checks
from model_runtime.library.entry import NAME, SUFFIX, About, Entry
from model_runtime.library.listing import Listing
from model_runtime.library.measures import measure
from model_runtime.library.shelf import put
from model_runtime.speaking.schedule import Schedule
from model_runtime.speaking.token2wav import Draws, Token2Wav
from model_runtime.speaking.vocoder import RATE
from model_runtime.speaking.vocoder_stream import VocoderStream
from model_runtime.speaking.voice import Voice, VoicePreparer

SMALL = 1024  # hidden size; as for the engine


class Catalogue:
    """The voices that calls on one checkpoint can be given."""

    def __init__(self, checkpoint: str, folder: Path) -> None:
        """Opens the checkpoint, but loads no weights. Raises CheckpointError."""
        self.checkpoint = open_checkpoint(checkpoint)
        if self.checkpoint.text.hidden_size < SMALL:
            torch.set_num_threads(1)  # quicker for a small model, and calls beside it want the other cores
        self.listing = Listing(self.checkpoint.folder, folder)
        self.folder, self.codec, self.shelf = folder, self.listing.codec, self.listing.shelf

    def entries(self) -> Iterator[Entry]:
        """Every voice, the checkpoint's first; those that cannot be used come last and say why."""
        if unmeasured := self.listing.unmeasured:
            self.listing.note({name: self._looked_at(name) for name in unmeasured})
        return self.listing.entries()

    def add(self, name: str, file: Path, description: str, consent: str, *, replace: bool = False) -> Entry:
        """Check a recording and keep it as a voice. VoiceError says why it was not."""
        if NAME.fullmatch(name) is None:
            raise VoiceError(
                f"{name!r} cannot be a voice's name: use up to 40 lower-case letters, digits and dashes"
            )
        for what, text in (("description", description), ("consent", consent)):
            if not text.strip():
                raise VoiceError(f"The {what} is empty: say it with --{what}")
        if name in self.listing.own_files:
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
        return self.listing.kept(name)

    def render(self, name: str) -> NDArray[np.float32]:
        """The prompt said again by the checkpoint itself, as calls will hear the voice: float32 at 24 kHz.

        VoiceError if there is none such.
        """
        voice = self._voice(name)
        return self._token2wav.offline(voice.tokens.tolist(), voice)

    def _looked_at(self, name: str) -> Entry:
        """A voice of the checkpoint, measured."""
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
        path = self.listing.own_files[name]
        if path.suffix == SUFFIX:
            return Voice.load(path)
        recording, rate = audio_file.read(path)
        return VoicePreparer(self.checkpoint.token2wav).prepare(recording.T, rate, source=path.name)

    def _voice(self, name: str) -> Voice:
        if name in self.listing.own_files:
            return self._own_voice(name)
        voice = self.shelf.take(name)
        if voice is None:
            known = ", ".join(sorted({*self.listing.own_files, *self.shelf.names})) or "none"
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
