"""The voices an engine can speak in: its checkpoint's, a library's that may grow, and those calls bring."""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from functools import cached_property
from pathlib import Path

from model_runtime.errors import VoiceError
from model_runtime.library import packed
from model_runtime.library.entry import codec_of
from model_runtime.library.shelf import Shelf
from model_runtime.model import SpeechModel
from model_runtime.speaking.voice import LONGEST, Voice

log = logging.getLogger(__name__)

KEPT = 8  # voices that calls brought, held beyond those in use, as the shelf does with its own


class Voices:
    """Used from the model's thread. Of voices of one name the checkpoint's is taken, else the library's."""

    def __init__(self, model: SpeechModel, library: Path | None) -> None:
        """``library`` is a folder, which need not exist yet."""
        self._own = model.voices
        self._model = model
        self._shelf = Shelf(library, "" if library is None else self._codec)
        self._brought: OrderedDict[bytes, Voice] = OrderedDict()  # by a hash of the file

    @property
    def names(self) -> list[str]:
        """All there are at this moment, but for those that calls brought: they are those calls' own."""
        self._shelf.look()
        return sorted({*self._own, *self._shelf.names})

    @property
    def descriptions(self) -> dict[str, str]:
        """What is said of each of ``names``, as of the last look; nothing is said of some."""
        said = {
            name: about[0].description for name in self._shelf.names if (about := self._shelf.about(name))
        }
        said |= {name: voice.description for name, voice in self._own.items()}
        return {name: text for name, text in said.items() if text}

    def find(self, name: str, timbre: bytes = b"") -> Voice:
        """That voice, even if it has only just been added, or else the one in ``timbre``, a library's file.

        VoiceError says why there is none.
        """
        if name in self._own:
            return self._own[name]
        self._shelf.look()
        voice = self._shelf.take(name) if name in self._shelf.names or not timbre else None
        if voice is None and timbre:
            voice = self._brought_along(name, timbre)
        if voice is None:
            raise VoiceError(f"There is no voice {name!r}; there are: {', '.join(self.names) or 'none'}.")
        return voice

    def _brought_along(self, name: str, timbre: bytes) -> Voice:
        """Who brings the same file twice is given the same object, so that its prompt is taken in once."""
        digest = hashlib.blake2b(timbre).digest()
        voice = self._brought.get(digest)
        if voice is None:
            voice = self._unpacked(name, timbre)
            self._brought[digest] = voice
            log.info("voice taken over: %r, %.1f s", name, voice.seconds)
        self._brought.move_to_end(digest)
        while len(self._brought) > KEPT:
            self._brought.popitem(last=False)
        return voice

    def _unpacked(self, name: str, timbre: bytes) -> Voice:
        source = f"The voice {name!r} that was brought along"
        try:
            about = packed.about(timbre)
        except packed.Unusable as error:
            raise VoiceError(f"{source} cannot be used: {error}.") from None
        if about.codec != self._codec:
            raise VoiceError(f"{source} was prepared for another checkpoint ({about.checkpoint}).")
        voice = Voice.unpack(timbre, source)
        if voice.seconds > LONGEST:
            raise VoiceError(f"{source} is {voice.seconds:.0f} s long: {LONGEST:.0f} s is the most.")
        return voice

    @cached_property
    def _codec(self) -> str:
        return codec_of(self._model.checkpoint.token2wav)
