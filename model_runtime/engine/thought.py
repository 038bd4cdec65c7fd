"""Think mode: the model thinks in text before it speaks. Thoughts are shown, never spoken, and never kept."""

from __future__ import annotations

from collections.abc import Callable

from model_runtime.engine.context import Context
from model_runtime.engine.draws import Draws
from model_runtime.engine.history import Tokens
from model_runtime.engine.kit import Kit
from model_runtime.engine.ops import Work
from model_runtime.interleave import End, Thought, ThoughtEnd
from model_runtime.protocol import EngineMessage, Thinking


def think(
    kit: Kit, turn: int, prompt: Tokens, context: Context, draws: Draws, emit: Callable[[EngineMessage], None]
) -> Work[None]:
    """Think after ``prompt``, at most ``settings.max_thought_tokens`` and half of the room there is; adds to
    it all that stands before the speech.

    The form is Step-Audio-2-mini-Think's: ``<|BOT|>assistant\\n\\n<think>\\n`` ...
    ``</think>\\n\\n<tts_start>``.
    """
    prompt.extend(kit.prompts.thought_opening())
    parser = kit.parser(speaking=False, thinking=True)
    draw = draws.free(prompt.ids)
    thought: list[int] = []
    closed = False
    drawn = yield from context.read(prompt, draw)
    longest = min(kit.settings.max_thought_tokens, context.room // 2)  # the other half is for the speech
    while len(thought) < longest:
        events = parser.push([drawn])
        for event in events:
            if isinstance(event, Thought):
                emit(Thinking(turn, event.text))
        if any(isinstance(event, End) for event in events):
            break  # the turn was closed instead of the thought; that id is not read
        thought.append(drawn)
        if any(isinstance(event, ThoughtEnd) for event in events):
            closed = True
            break
        drawn = yield from context.decode(drawn, draw)
    prompt.extend(Tokens(thought))
    prompt.extend(kit.prompts.thought_closing(closed))
