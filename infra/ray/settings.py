"""What the engines of a cluster are: ``args`` of the Serve config, or the environment the builder runs in.

How many there are, where, and when one goes is Ray's to be told, under ``deployments`` of the same file:
what changes there disturbs no running engine.
"""

from __future__ import annotations

import contextlib
import io
import shlex
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

import model_runtime
from model_runtime.engine import settings as engine

NANO = Path(model_runtime.__file__).parent / "checkpoints" / "nano"


class EngineArgs(BaseSettings):
    """The same for every replica. Raises ``pydantic.ValidationError`` for what is not named here."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    checkpoint: str = Field(str(NANO), validation_alias="PARLEY_CHECKPOINT")  # where every node finds it
    options: str = Field("", validation_alias="PARLEY_ENGINE__OPTIONS")  # as on the engine's command line

    def engine(self) -> engine.Settings:
        """As the engine takes them. Raises ``ValueError`` with what its command line says of them."""
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                return engine.parse(["--checkpoint", self.checkpoint, *shlex.split(self.options)])
        except (SystemExit, ValueError) as error:
            why = said.getvalue().strip().rpartition(" error: ")[2] or str(error)
            raise ValueError(f"The engine's options {self.options!r} are no good: {why}.") from None
