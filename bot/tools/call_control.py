"""What changes the call itself: ending it, and putting the caller through."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from bot.tools.function import tool
from pipeline.tools.tool import Line


class TransferOptions(BaseModel):
    """To whom a caller may be put through: names that the model says, and addresses in the ingress's terms.

    The model, and so whoever talks it into something, chooses among the names and makes up no address.
    """

    model_config = ConfigDict(extra="forbid")

    targets: dict[str, str] = Field(min_length=1)

    def parameters(self) -> dict[str, tuple[str, ...]]:
        """The only values the arguments may have."""
        return {"to": tuple(self.targets)}


@tool(privileged=True, question="Shall I hang up now?")
async def hang_up(*, line: Line) -> str:
    """End the call. Say goodbye first: what is being said is heard to its end."""
    await line.hang_up()
    return "The call is over."


@tool(privileged=True, question="Shall I put you through to {to}?")
async def transfer(
    to: Annotated[str, Field(description="Who the caller is put through to")],
    *,
    line: Line,
    options: TransferOptions,
) -> str:
    """Put the caller through to a person or department. Tell them first."""
    await line.transfer(options.targets[to])
    return f"The caller is being put through to {to}."
