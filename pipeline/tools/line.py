"""What tools may do to the call they run in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from pipeline.chosen_voice import ChosenVoice
from pipeline.output import Output
from pipeline.tools.tool import ToolError

Transfer = Callable[[str, str | None], Awaitable[None]]
"""The ingress's: puts the caller through to a target in its own terms. Raises ``CannotTransfer``.

With words, these are told to whoever answers there, and the caller is put through only if they agree.
"""


class CallLine:
    """``Line``. A tool runs when the answer that asked for it has been heard, so nothing is cut short here.

    Args:
        output: where the call is ended.
        free: whether nobody speaks.
        voice: whose voice the call speaks in.
    """

    def __init__(self, output: Output, free: Callable[[], bool], voice: ChosenVoice) -> None:
        """See the class."""
        self.over = False  # nothing more is to be said
        self.leaving = False  # the caller is being put through, and may hear somebody else already
        self._output = output
        self._free = free
        self._voice = voice

    @property
    def voice(self) -> str:
        """``Line``: as the engine knows it."""
        return self._voice.spoken

    async def speak_as(self, voice: str) -> None:
        """``Line``: from the next chunk of sound on."""
        await self._voice.choose(voice)

    async def hang_up(self) -> None:
        """``Line``: unless the caller has something to say after all."""
        if not self._free():
            raise ToolError("not done: the caller is speaking, so the call goes on.")
        self.over = True
        await self._output.end("bot-hung-up", "The call is over.")

    async def transfer(self, target: str, briefing: str | None = None) -> None:
        """``Line``: as the ingress can."""
        self.leaving = True
        try:
            await self._output.transfer(target, briefing)
            self.over = True
        finally:
            self.leaving = False
        await self._output.end("transferred", "You are being put through.")
