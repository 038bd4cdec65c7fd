"""What changes the call itself: ending it, and putting the caller through."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from bot.ingress.sip.destinations import NotCallable, parsed
from bot.tools.function import tool
from pipeline.tools.tool import Line

TRANSFER_S = 120.0  # for somebody to come to the phone, to be told what it is about and to decide
ABOUT_CHARS = 400  # of a matter: half a minute of speech
BRIEFING = (
    "Hello. I have a caller for you. {about} Press one to take the call, press two if you cannot. "
    "Will you take the call?"
)


class TransferOptions(BaseModel):
    """To whom a caller may be put through: names that the model says, and addresses in the ingress's terms.

    The model, and so whoever talks it into something, chooses among the names and makes up no address.
    ``warm``: whoever answers there is first told ``briefing``, in which {about} is what the model says of the
    caller's matter, and may refuse.
    """

    model_config = ConfigDict(extra="forbid")

    targets: dict[str, str] = Field(min_length=1)
    warm: bool = False
    briefing: str = BRIEFING

    @field_validator("targets")
    @classmethod
    def _addresses(cls, targets: dict[str, str]) -> dict[str, str]:
        for name, uri in targets.items():
            try:
                parsed(uri)
            except NotCallable as error:
                raise ValueError(f"{name}: {error}") from None
        return targets

    @field_validator("briefing")
    @classmethod
    def _says_what_it_is_about(cls, briefing: str) -> str:
        if "{about}" not in briefing or "{" in briefing.replace("{about}", "", 1):
            raise ValueError("should have {about} in it, once, and no other braces")
        return briefing

    def parameters(self) -> dict[str, tuple[str, ...]]:
        """The only values the arguments may have."""
        return {"to": tuple(self.targets)}


@tool(privileged=True, question="Shall I hang up now?")
async def hang_up(*, line: Line) -> str:
    """End the call. Say goodbye first: what is being said is heard to its end."""
    await line.hang_up()
    return "The call is over."


@tool(privileged=True, question="Shall I put you through to {to}?", timeout_s=TRANSFER_S)
async def transfer(
    to: Annotated[str, Field(description="Who the caller is put through to")],
    about: Annotated[
        str, Field(description="One sentence: what the caller wants, for whoever answers there")
    ] = "",
    *,
    line: Line,
    options: TransferOptions,
) -> str:
    """Put the caller through to a person or department. Tell them first."""
    if options.warm:
        matter = " ".join(about.split())[:ABOUT_CHARS] or "They did not say what it is about."
        await line.transfer(options.targets[to], options.briefing.replace("{about}", matter))
    else:
        await line.transfer(options.targets[to])
    return f"The caller is being put through to {to}."
