"""Who tells a call whether its caller has finished: for English our own net, for all languages Smart Turn.

The net answers in 4 ms and is asked at every pause. Unless it is sure that the turn is over, Smart Turn,
which has heard people, is asked, too, as far as there is time for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from pipeline.turn_end import BOTH, NET, SHARE, SMART_TURN, opinion, together
from pipeline.turns import Opinion


class TurnEndJudges:
    """A ``pipeline.turn_end.TurnEnd`` of up to two judges; one of them must be there.

    Args:
        net: the likelihood that a turn of that sound (16 kHz mono s16le) is over.
        smart_turn: the same, later, or ``None`` if there is no time for it.
    """

    def __init__(
        self,
        net: Callable[[bytes], float] | None,
        smart_turn: Callable[[bytes], Awaitable[float | None]] | None,
    ) -> None:
        """See the class."""
        self._net = net
        self._smart_turn = smart_turn

    async def __call__(self, pcm: bytes) -> Opinion:
        """What they make of it together."""
        if self._net is None:
            return opinion(await self._smart_turn(pcm) if self._smart_turn else None, SMART_TURN)
        first = self._net(pcm)
        told = opinion(first, NET)
        if told == "finished" or self._smart_turn is None:
            return told
        second = await self._smart_turn(pcm)
        return told if second is None else opinion(together(first, SHARE, second), BOTH)
