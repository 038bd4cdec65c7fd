"""Calls with nano, as its language model learns them: laid out by the product's own template, with targets.

A conversation is ids with places for audio rows, and a weight for each id that is to be predicted. Every
assistant turn is a target, so one pass teaches several answers, each with the history before it. Earlier
answers are often cut at a group, as an interruption cuts them; what closes a cut answer is never a target.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from model_runtime.chat import AudioSlot, Piece, Template, TextIds
from model_runtime.tokens import SpecialTokens
from model_runtime.training.results import answered
from model_runtime.training.texts import REFUSE, REPEAT, Request, labels, shop

# What the product itself says to the model, see pipeline/dialogue.py.
GREET = "The call has just begun. Greet the caller with these words: {greeting}"
SILENT = "The caller has been silent for a while. Say these words: {words}"
KEYS = "The caller pressed these keys on the phone: {keys}"
STILL_THERE = "wait"  # the intent whose answer a silent caller hears
GOODBYE, HANG_UP = "bye", "hang_up"  # the intent after whose answer the call is ended, if there is that tool
OFFERED, WANTED = 0.25, 0.75  # share of calls with tools, whose schemas are long; of those that ask for one
HAD = {HANG_UP: 0.4, "search_voice": 0.65, "transfer": 0.55, "date_time": 0.1}  # ... and of those, with each
CALLED = 20.0  # weight of a tool's call: which it is hangs on one token of thirty
TOOLS = Path(__file__).with_name("data") / "tools.json"
BLUEBIRD = (
    "You are the voice assistant of Bluebird Outdoor, a shop for tents, boots and backpacks. You are on the "
    "phone: answer in one or two short, warm sentences, in plain words. If you did not understand, ask the "
    "caller to say it again."
)
# Nano knows one shop; it is shown many instructions only so that none of them puts it off.
INSTRUCTIONS = [
    BLUEBIRD,
    BLUEBIRD,
    "",
    "You are the voice assistant of Bluebird Outdoor.",
    "You are a helpful assistant.",
    "You are the friendly voice of a shop. Be brief.",
    "Answer the phone. Be warm and brief and use plain words.",
    "You work at the help line of Bluebird Outdoor. Answer questions about orders, delivery, returns and our "
    "gear. Keep it short. Never make things up.",
]
OPENING_GROUPS = 3  # where an answer is decided: weighted more
# More than it weighs for the ears: those tell what is asked, and it is the backbone that has to keep silent.
REFUSED = 0.7  # weight of an answer that refuses
# Of an answer that is only to be decided. Its first piece of text tells which it is; with more of it the
# question before is not nearer to the next answer than it ever is in a call.
DECIDED_GROUPS = 8


@dataclass(frozen=True)
class HeardTurn:
    """One thing heard: its place in the batch of audio rows, how many rows it has, and its intent."""

    index: int
    rows: int
    intent: str


@dataclass
class Conversation:
    """``ids``; ``weights`` of predicting each of them; ``slots`` as (position, index in the batch, rows).

    ``asked``: where the answers begin (the position of ``<tts_start>``), and the intents they answer.
    ``openings``: of each, the first token of what every label would be answered there. Which it is to be is
    no target here: whoever asked tells how likely each is.
    """

    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    slots: list[tuple[int, int, int]] = field(default_factory=list)
    asked: list[tuple[int, str]] = field(default_factory=list)
    openings: list[list[int]] = field(default_factory=list)


class Writer:
    """Writes conversations with a tokenizer and the answers' audio codes."""

    def __init__(self, tokenizer_file: Path, answers: Path) -> None:
        """``answers``: JSON, audio codes by text."""
        self.tokenizer: Tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self.plain: Tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self.plain.encode_special_tokens = True
        added = self.tokenizer.get_added_tokens_decoder()
        self.tokens = SpecialTokens.from_vocabulary(self.tokenizer.token_to_id, added)
        self.template = Template(self.tokens, self.encode)
        self.codes: dict[str, list[int]] = json.loads(answers.read_text())
        self._openings: dict[str, int] = {}
        self._labels = labels()
        self.schemas: dict[str, dict[str, Any]] = json.loads(TOOLS.read_text())

    def encode(self, text: str) -> list[int]:
        """Ids of untrusted text."""
        return list(self.plain.encode(text, add_special_tokens=False).ids)

    def spoken(self, answer: str) -> list[int]:
        """An answer as TA4 groups: one text slot, four audio slots; without ``<tts_end>``."""
        tokens, text = self.tokens, self.encode(answer)
        audio = [tokens.audio0 + code for code in self.codes[answer]]
        groups = max(len(text), -(-len(audio) // 4))
        text += [tokens.tts_pad] * (groups - len(text))
        audio += [tokens.audio_pad] * (4 * groups - len(audio))
        return [slot for g in range(groups) for slot in (text[g], *audio[4 * g : 4 * g + 4])]

    def _add(self, talk: Conversation, pieces: Sequence[Piece], heard: HeardTurn | None = None) -> None:
        ids, slots = self.template.lay_out(pieces)
        start = len(talk.ids)
        talk.ids += ids
        talk.weights += [0.0] * len(ids)
        if heard is not None:
            talk.slots += [(start + at, heard.index, count) for at, count in slots]

    def _opening(self, answer: str) -> int:
        if answer not in self._openings:
            self._openings[answer] = self.encode(answer)[0]
        return self._openings[answer]

    def called(self, tool: str, arguments: dict[str, Any]) -> list[int]:
        """A call of a tool, as it stands behind ``<tts_end>``."""
        tokens = self.tokens
        assert tokens.tool_call is not None
        assert tokens.tool_call_end is not None
        text = f"function\n{tool}\n{json.dumps(arguments)}"
        return [tokens.tool_call, *self.encode(text), tokens.tool_call_end]

    def _answer(
        self,
        talk: Conversation,
        answer: str,
        cut: int | None,
        ends: bool,
        weight: float = 1.0,
        call: Sequence[int] = (),
    ) -> int:
        """An assistant turn that is a target, whole or its first ``cut`` groups.

        ``ends``: closed, for more turns follow. ``weight`` of its targets. ``call`` of a tool comes after it,
        when it is whole. Returns where it begins.
        """
        tokens = self.tokens
        self._add(talk, self.template.opening())
        begun = len(talk.ids) - 1
        ids = self.spoken(answer)
        whole = cut is None or 5 * cut >= len(ids)
        ids = ids if whole or cut is None else ids[: 5 * cut]
        talk.ids += ids
        talk.weights += [
            weight * (3.0 if at % 5 == 0 else 1.0) * (2.0 if at < 5 * OPENING_GROUPS else 1.0)
            for at in range(len(ids))
        ]
        if whole or ends:
            closing = [tokens.tts_end, *(call if whole else ()), tokens.eot]
            talk.ids += closing
            talk.weights += [0.0 if not whole else CALLED if call else 1.0] * len(closing)
        return begun

    def conversation(
        self, heard: Sequence[HeardTurn], draw: random.Random, decides: bool = False
    ) -> Conversation:
        """A call that asks these in turn.

        ``decides``: only the first groups of each answer are given, which say which answer it is. Otherwise
        half of them are whole, and the rest cut anywhere.
        """
        talk = Conversation()
        if draw.random() < 0.92:
            self._add(talk, self.template.system(draw.choice(INSTRUCTIONS)))
        tools = self._offered(any(one.intent in shop().requests for one in heard), draw)
        if tools:
            self._add(talk, self.template.tool_json_schemas([self.schemas[name] for name in tools]))
        hangs_up = HANG_UP in tools and not decides
        if hangs_up:  # then nothing comes after a goodbye
            heard = sorted(heard, key=lambda one: one.intent == GOODBYE)
        previous = ""
        if draw.random() < 0.6:
            previous = shop().greeting
            self._add(talk, self.template.human(text=GREET.format(greeting=previous)))
            self._answer(talk, previous, draw.choice([0, 2] if decides else [None, None, 0, 5, 9]), ends=True)
        for place, one in enumerate(heard):
            if draw.random() < 0.06:
                previous = self._prompted(talk, draw, decides)
            last = place == len(heard) - 1
            self._add(talk, self.template.human([AudioSlot(one.rows)]), one)
            request = shop().requests.get(one.intent)
            call: list[int] = []
            if hangs_up and last and one.intent == GOODBYE:
                call = self.called(HANG_UP, {})
            elif request and request.tool in tools:
                call = self.called(request.tool, request.arguments)
            answer = shop().answer(one.intent, previous, tools)
            begun = self._answer(
                talk, answer, None if call else self._cut(one.intent, last, decides, draw),
                ends=bool(call) or not last, weight=REFUSED if answer == shop().refuse else 1.0, call=call,
            )  # fmt: skip
            talk.weights[begun + 1] = 0.0
            talk.asked.append((begun, one.intent))
            talk.openings.append(
                [self._opening(shop().answer(name, previous, tools)) for name in self._labels]
            )
            previous = answer
            if call and request:
                previous = self._done(talk, request, draw, decides) or previous
        return talk

    def _cut(self, intent: str, last: bool, decides: bool, draw: random.Random) -> int | None:
        """After how many groups an answer ends, if it is not whole."""
        if decides:
            return DECIDED_GROUPS
        if draw.random() < 0.5:
            return min(25, int(draw.expovariate(0.3)) + (3 if last or intent == REPEAT else 0))
        return None

    def _done(self, talk: Conversation, request: Request, draw: random.Random, decides: bool) -> str:
        """What a tool answers, and what is said of that; empty: nothing."""
        tool = request.tool
        result, worked = answered(tool, draw)
        answer = request.after if worked else shop().refuse
        self._add(talk, self.template.function_output(tool, result))
        if answer:
            self._answer(talk, answer, DECIDED_GROUPS if decides else None, ends=True)
        return answer

    def _offered(self, wanted: bool, draw: random.Random) -> list[str]:
        """The tools a call has: one that nano has no use for it has to see, and leave alone."""
        if draw.random() > (WANTED if wanted else OFFERED):
            return []
        tools = [name for name in self.schemas if draw.random() < HAD[name]]
        draw.shuffle(tools)
        return tools

    def _prompted(self, talk: Conversation, draw: random.Random, decides: bool) -> str:
        """A turn that is not the caller's voice, and what it is answered: nano knows no use for keys."""
        if draw.random() < 0.7:
            answer = shop().answer(STILL_THERE, "")
            text = SILENT.format(words=answer)
        else:
            answer = shop().answer(REFUSE, "")
            text = KEYS.format(keys=" ".join(draw.choices("0123456789*#", k=draw.randint(1, 6))))
        self._add(talk, self.template.human(text=text))
        self._answer(talk, answer, DECIDED_GROUPS if decides else None, ends=True)
        return answer

    def prompt(
        self, heard: HeardTurn, instructions: str = BLUEBIRD, greeted: bool = True, tools: Sequence[str] = ()
    ) -> Conversation:
        """What the engine builds before the first answer: nothing in it is a target."""
        talk = Conversation()
        self._add(talk, self.template.system(instructions))
        if tools:
            self._add(talk, self.template.tool_json_schemas([self.schemas[name] for name in tools]))
        if greeted:
            self._add(talk, self.template.human(text=GREET.format(greeting=shop().greeting)))
            self._answer(talk, shop().greeting, None, ends=True)
        self._add(talk, self.template.human([AudioSlot(heard.rows)]), heard)
        self._add(talk, self.template.opening())
        return talk


__all__ = ["BLUEBIRD", "Conversation", "HeardTurn", "TextIds", "Writer"]
