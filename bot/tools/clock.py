"""Date and time."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import Field

from bot.tools.function import ToolContext, tool

What = Annotated[Literal["time", "date", "both"], Field(description="What the caller wants to know")]


@tool
async def date_time(what: What = "both", *, context: ToolContext) -> str:
    """Tell today's date, the day of the week and the time of day, where the agent is."""
    now = datetime.now(ZoneInfo(context.time_zone))
    words = {"time": f"{now:%H:%M}", "date": f"{now:%A}, {now.day} {now:%B %Y}"}
    return f"{words['time']}, {words['date']}" if what == "both" else words[what]
