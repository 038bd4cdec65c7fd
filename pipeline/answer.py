"""One answer on its way from engine to ear: what is held back, what plays, what was heard."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipecat.frames.frames import (
    Frame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)
from pipecat.utils.text.base_text_aggregator import TextType

from model_runtime.protocol import OUTPUT_RATE, Done, Speech, ToolCall
from pipeline.conversation import Exchange
from pipeline.engine_client import EngineClient
from pipeline.fader import AnswerBegins
from pipeline.ledger import Ledger
from pipeline.turns import Speculate


@dataclass
class Answer:
    """The answer to one turn. Its methods return the frames that must go to the output, in order."""

    turn: int
    client: EngineClient  # the session it is made in: a later session knows nothing of it
    asked: Speculate  # what it answers
    again: bool  # another answer to it was settled, and died with the engine
    prompt: str | None  # what it answers instead of speech
    to_voice: bool  # answers the caller's speech, not a prompt
    aside: bool = False  # answers nothing: words in passing, of which the engine keeps no trace
    caller_ended: float = 0.0  # when the caller's last voiced sample arrived, in the stage's clock (s)
    may_speak: bool = False
    started: bool = False  # frames of it have gone to the output
    sees_prompt: bool = True  # whatever waits to be answered was in the history when it was begun
    sounded: bool = False  # the transport has written some of it
    done: Done | None = None
    transcript: str | None = None
    tool_calls: list[ToolCall] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    _held: list[Speech] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Made to its own end and heard to it: only then does the history have it with its tool calls."""
        done, ledger = self.done, self.ledger
        natural = self.may_speak and done is not None and done.reason in ("end", "silent")
        return natural and ledger.complete and ledger.heard_groups >= ledger.groups

    def take(self, speech: Speech) -> list[Frame]:
        """A piece from the engine: held until the answer may speak."""
        if self.may_speak:
            return self._frames(speech)
        self._held.append(speech)
        return []

    def release(self) -> list[Frame]:
        """The turn is over: everything held."""
        self.may_speak = True
        held, self._held = self._held, []
        return [frame for speech in held for frame in self._frames(speech)]

    def closing(self) -> list[Frame]:
        """The end of what was started; without it the output would go on believing that the bot speaks."""
        return [TTSStoppedFrame(context_id=str(self.turn)), LLMFullResponseEndFrame()]

    def exchange(self, interrupted: bool) -> Exchange:
        """The turn as it goes on record: what was heard, no more."""
        return Exchange(
            turn=self.turn,
            caller=self.transcript,
            bot=self.ledger.heard_text,
            heard_groups=self.ledger.heard_groups,
            interrupted=interrupted,
            spoken=self.to_voice,
        )

    def _frames(self, speech: Speech) -> list[Frame]:
        """Audio cut at its groups, each group's text behind its audio.

        Text frames share the output's queue with the audio, so a text comes out when its sound has been
        written, and an interruption that empties the queue takes the unheard text along.
        """
        frames: list[Frame] = []
        context = str(self.turn)
        if not self.started:
            self.started = True
            frames += [AnswerBegins(), LLMFullResponseStartFrame(), TTSStartedFrame(context_id=context)]
        for piece in self.ledger.queue(len(speech.pcm) // 2, speech.groups, speech.group_text):
            if piece.stop > piece.start:
                pcm = speech.pcm[piece.start * 2 : piece.stop * 2]
                frames.append(TTSAudioRawFrame(pcm, OUTPUT_RATE, 1, context_id=context))
            if piece.text:
                text = TTSTextFrame(piece.text, TextType.WORD, context_id=context)
                text.includes_inter_frame_spaces = True
                frames.append(text)
        return frames
