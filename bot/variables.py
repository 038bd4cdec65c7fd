"""What an agent's words leave open, ``{{name}}``, and a call that we place fills in: pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

NAME = r"[a-z][a-z0-9_]{0,31}"
_OPEN = re.compile(r"\{\{\s*(" + NAME + r")\s*\}\}")


def left_open(*texts: str) -> set[str]:
    """The names that ``texts`` leave open."""
    return {name for text in texts for name in _OPEN.findall(text)}


def filled(text: str, values: Mapping[str, str]) -> str:
    """``text`` with its values, in one pass: a value that looks like a name stays what it is.

    A name without a value stays as it is.
    """
    return _OPEN.sub(lambda found: values.get(found[1], found[0]), text)
