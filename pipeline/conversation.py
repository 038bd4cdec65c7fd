"""What was said in one call, as it was heard: the record that the context, the page and a later history
share.

pipecat's context aggregators would build one from the frames that reach them, which may differ from what
the engine was told by a group, and they bring a second turn detector along. The ledger knows exactly, so
the record is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Exchange:
    """One turn: what the caller said (``None`` while not transcribed) and what they heard of the answer."""

    turn: int
    caller: str | None
    bot: str = ""
    heard_groups: int = 0
    interrupted: bool = False
    spoken: bool = True  # False: answers a prompt; then ``caller`` is what they pressed on the phone, if that
    sources: list[str] = field(default_factory=list)  # where what the bot said was looked up, if it was


@dataclass
class Conversation:
    """The exchanges of a call in order."""

    exchanges: list[Exchange] = field(default_factory=list)

    def add(self, exchange: Exchange) -> None:
        """Enter a settled turn."""
        self.exchanges.append(exchange)

    def transcribe(self, turn: int, text: str) -> bool:
        """A transcript that came after its turn was settled. False if there is no such turn."""
        for exchange in reversed(self.exchanges):
            if exchange.turn == turn:
                exchange.caller = text
                return True
        return False

    def unheard(self, turn: int) -> bool:
        """Whether the caller's words of ``turn`` are not known yet."""
        exchange = next((one for one in reversed(self.exchanges) if one.turn == turn), None)
        return exchange is not None and exchange.caller is None

    def messages(self) -> list[dict[str, str]]:
        """The record in the chat form pipecat and text models use. Speech not transcribed is ``[speech]``."""
        messages: list[dict[str, str]] = []
        for exchange in self.exchanges:
            if exchange.spoken or exchange.caller is not None:
                caller = "[speech]" if exchange.caller is None else exchange.caller
                messages.append({"role": "user", "content": caller})
            if exchange.bot:
                messages.append({"role": "assistant", "content": exchange.bot})
        return messages
