"""What the shipped agent's shop answers: the questions the tests ask, and every sentence nano may say."""

from __future__ import annotations

from pathlib import Path

import yaml

import model_runtime

_SHOP = yaml.safe_load((Path(model_runtime.__file__).parent / "training" / "shop.yaml").read_text())
_INTENTS: dict[str, str] = _SHOP["intents"]

GREETING: str = _SHOP["greeting"]
REFUSAL: str = _SHOP["refuse"]
ANSWERS = [GREETING, REFUSAL, *(answer for intent, answer in _INTENTS.items() if intent != "repeat")]

QUESTIONS = {
    "what is your address": _INTENTS["address"],
    "how long is the warranty": _INTENTS["warranty"],
    "do you have tents": _INTENTS["tents"],
    "can i order online": _INTENTS["website"],
    "are you open on sunday": _INTENTS["sunday"],
}
