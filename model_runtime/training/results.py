"""What tools answer, as the product words it (bot/tools), about voices as there may be, and errors."""

from __future__ import annotations

import random

FAILED = 0.2  # share of results that are an error
ERRORS = {
    "search_voice": ["no other voice fits that description.", "there is no voice library here."],
    "transfer": [
        "this line cannot put callers through.",
        "nobody answers there. The caller is still on the line.",
        "they cannot take the call now. The caller is still on the line.",
    ],
}
ANY_ERROR = ["{tool} took too long; it may or may not have been done.", "{tool} failed."]
SPEAKS = "You speak in the voice {voice} now: {about}."
PUT_THROUGH = "The caller is being put through to support."
VOICES = ("rms", "slt", "awb", "kal16", "rms-deep", "slt-low")
LETTERS = "abcdefghijklmnoprstuvwyz0123456789"
ABOUT = ["A {who}, {accent} English, {how}", "A {how} {who}", "it has no description"]
WHO, ACCENT = ("man", "woman"), ("American", "British", "Scottish", "Irish")
HOW = ("even and low", "clear and calm", "lively", "flat and robot-like", "warm", "deep", "bright", "young")


def answered(tool: str, draw: random.Random) -> tuple[str, bool]:
    """What the model is told, and whether the tool did its work."""
    if draw.random() < FAILED:
        return f"Error: {draw.choice([*ERRORS[tool], *ANY_ERROR])}".format(tool=tool), False
    if tool == "transfer":
        return PUT_THROUGH, True
    voice = draw.choice([*VOICES, *VOICES, "".join(draw.choices(LETTERS, k=draw.randint(3, 8)))])
    about = draw.choice(ABOUT).format(who=draw.choice(WHO), accent=draw.choice(ACCENT), how=draw.choice(HOW))
    return SPEAKS.format(voice=voice, about=about), True
