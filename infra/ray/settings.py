"""What can be chosen about the engines of a cluster: ``args`` of the Serve config, or the environment."""

from __future__ import annotations

import contextlib
import io
import shlex
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

import model_runtime
from model_runtime.engine import settings as engine

NANO = Path(model_runtime.__file__).parent / "checkpoints" / "nano"
# Ray's own limit of ongoing requests lies so far above the places of a replica: one call too many must get
# through to be refused in the protocol's words. Ray itself would have it wait, or answer with HTTP 500.
REFUSALS = 8


class ClusterSettings(BaseSettings):
    """One engine a replica. ``args`` go before ``PARLEY_RAY__*`` of the environment the builder runs in.

    What is not named here is a fault. Raises ``pydantic.ValidationError``, which names the setting.
    """

    model_config = SettingsConfigDict(env_prefix="PARLEY_RAY__", extra="forbid", frozen=True)

    checkpoint: str = Field(str(NANO), description="A folder that every node has, or `hf://owner/name`.")
    calls: int = Field(8, gt=0, description="Calls at once on one replica: measure it.")
    options: str = Field(
        "", description="More for the engines: `python -m model_runtime.engine --help` lists it."
    )
    min_replicas: int = Field(1, ge=1, description="Engines that always run.")
    max_replicas: int = Field(1, ge=1, description="Engines that run at most.")
    target_load: float = Field(
        0.75, gt=0, le=1, description="Share of a replica's places above which another replica is started."
    )
    upscale_delay_s: float = Field(10.0, ge=0, description="For so long, before one is started.")
    downscale_delay_s: float = Field(
        600.0, ge=0, description="Seconds too many replicas run before one goes."
    )
    drain_s: float = Field(
        1800.0, ge=0, description="Seconds the calls of a replica that goes have to end by themselves."
    )
    gpus: float = Field(0.0, ge=0, description="GPUs of a replica; 1 for Step-Audio 2.")
    cpus: float = Field(1.0, gt=0, description="CPUs of a replica, as Ray counts them.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas ({self.max_replicas}) is less than min_replicas.")
        self.engine()
        return self

    def engine(self) -> engine.Settings:
        """As the engine takes them. Raises ``ValueError`` with what its command line says of ``options``."""
        arguments = ["--checkpoint", self.checkpoint, "--max-sessions", str(self.calls)]
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                return engine.parse([*arguments, *shlex.split(self.options)])
        except SystemExit:
            raise ValueError(f"options: {said.getvalue().strip().splitlines()[-1]}") from None
