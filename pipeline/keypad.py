"""The keys of the caller's phone: pure, on the call's clock of 16 kHz samples."""

from __future__ import annotations

from model_runtime.protocol import INPUT_RATE

PAUSE = 3 * INPUT_RATE  # samples: who has pressed nothing for so long has entered it all
END = "#"  # ends an entry at once, as people know it from every other machine
MOST = 32  # keys of one entry; a longer one is somebody leaning on the phone


class Keypad:
    """What is being entered."""

    def __init__(self) -> None:
        """Nothing."""
        self._keys = ""
        self._at = 0

    def press(self, key: str, now: int) -> None:
        """One key more; beyond ``MOST`` they are lost."""
        self._at = now
        if len(self._keys) < MOST:
            self._keys += key

    def take(self, now: int) -> str:
        """The keys of an entry that is complete, once; else nothing."""
        if self._keys and (self._keys.endswith(END) or now - self._at >= PAUSE):
            keys, self._keys = self._keys, ""
            return keys
        return ""
