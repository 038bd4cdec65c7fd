"""What the caller said, by the model's own transcription task:

a small generation apart from the conversation.
"""

from __future__ import annotations

from collections.abc import Callable

from model_runtime.engine.kit import Kit
from model_runtime.engine.ops import Work
from model_runtime.engine.response import Response
from model_runtime.interleave import Text


def transcribe(kit: Kit, response: Response, done: Callable[[Response, str], None]) -> Work[None]:
    """Greedy, in a context of its own that is gone afterwards; the rows heard for the response are used
    again.
    """
    rows = yield from response.hear()
    prompt = kit.prompts.transcription(rows)
    limit = kit.settings.max_transcript_tokens
    context = kit.context(len(prompt) + limit)
    parser = kit.parser(speaking=False)
    text = ""
    try:
        drawn = yield from context.read(prompt, kit.best)
        for _ in range(limit):
            text += "".join(event.text for event in parser.push([drawn]) if isinstance(event, Text))
            if parser.over:
                break
            drawn = yield from context.decode(drawn, kit.best)
    finally:
        context.forget()
    done(response, text.strip())
