"""The voices an engine can speak in: its checkpoint's own, and those of a library that may grow meanwhile."""

from __future__ import annotations

from pathlib import Path

from model_runtime.library.entry import codec_of
from model_runtime.library.shelf import Shelf
from model_runtime.model import SpeechModel
from model_runtime.speaking.voice import Voice, VoiceError


class Voices:
    """Used from the model's thread. Of two voices of one name the checkpoint's is taken."""

    def __init__(self, model: SpeechModel, library: Path | None) -> None:
        """``library`` is a folder, which need not exist yet."""
        self._own = model.voices
        codec = "" if library is None else codec_of(model.checkpoint.token2wav)
        self._shelf = Shelf(library, codec)

    @property
    def names(self) -> list[str]:
        """All there are at this moment."""
        self._shelf.look()
        return sorted({*self._own, *self._shelf.names})

    def find(self, name: str) -> Voice:
        """That voice, even if it has only just been added. VoiceError says why there is none."""
        if name in self._own:
            return self._own[name]
        self._shelf.look()
        voice = self._shelf.take(name)
        if voice is None:
            raise VoiceError(f"There is no voice {name!r}; there are: {', '.join(self.names) or 'none'}.")
        return voice
