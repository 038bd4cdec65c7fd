"""Where a dialogue's doings go: the caller's ear, the page, and the line itself."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from typing import Any, Protocol

from pipecat.frames.frames import Frame

from pipeline import page_messages as page
from pipeline.fader import Fader


class Output(Protocol):
    """Where a dialogue's doings go; none of these may wait for the network."""

    fader: Fader

    async def push(self, frames: Iterable[Frame]) -> None:
        """Frames for the caller's ear, in order."""

    async def interrupt(self) -> None:
        """Silence what was pushed and is not yet heard."""

    async def tell(self, message: page.PageMessage) -> None:
        """Something for the page."""

    async def transcribed(self, text: str) -> None:
        """The caller's words, for whoever in the pipeline keeps them."""

    async def caller_speaks(self, begun: bool) -> None:
        """The caller began or ceased to speak."""

    def beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done beside the call, which ends it when it ends."""

    async def end(self, reason: str, text: str) -> None:
        """End the call, telling the page so; ``reason`` is one word for the log."""

    async def transfer(self, target: str, briefing: str | None) -> None:
        """Put the caller through, see ``Line.transfer``. Raises ``CannotTransfer``."""
