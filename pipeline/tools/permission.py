"""Whether a privileged tool may run now: the rules, without the waiting. Pure.

The agent's file must name the tool and its policy, or the call does not have it at all. Beyond that:

* ``policy: allow`` is for what the caller asks for themselves, while nothing that strangers wrote stands in
  the history. Else, and always with ``policy: confirm``, the caller must have been asked and have agreed.
* One yes lets one call through: agreeing to one transfer is not agreeing to the next.
"""

from __future__ import annotations

from pipeline.tools.tool import Tool

ASK_FIRST = (
    'Not done: the caller must agree first. Ask them now, with exactly these words and no more: "{question}"'
)
NOBODY_KNOWS = "Error: {name} needs the caller's word, and this speech model cannot tell their words."


def needs_consent(tool: Tool, to_voice: bool, outside: bool) -> bool:
    """Whether the caller has to agree to this call of ``tool``.

    Args:
        tool: what is asked for.
        to_voice: by an answer to the caller's own words, not to a tool's result.
        outside: words of strangers stand in the history.
    """
    return tool.privileged and (tool.confirm or outside or not to_voice)
