"""What every group of settings is made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_settings import NoDecode


class Group(BaseModel):
    """Settings that belong together: ``PARLEY_GROUP__NAME``. One that does not exist is a fault."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def words(value: Any) -> Any:
    """Parted by commas, as a tuple."""
    return (
        tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
    )


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(words)]
