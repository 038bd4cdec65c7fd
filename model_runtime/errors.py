"""What goes wrong with a checkpoint or an encoder, in one sentence a person can act on."""

from __future__ import annotations

from pathlib import Path


class CheckpointError(Exception):
    """A checkpoint cannot be used. The message names the file, what is wrong with it, and what to do."""

    @classmethod
    def of(cls, path: Path, fault: str, remedy: str = "Copy the checkpoint again.") -> CheckpointError:
        """``path: fault. remedy``"""
        return cls(f"{path}: {fault.rstrip('.')}. {remedy}")


class VoiceError(ValueError):
    """A recording or a voice file that cannot serve as a voice, in one sentence."""


class EncoderError(Exception):
    """A sentence encoder cannot be used. The message names the file and what is wrong with it."""
