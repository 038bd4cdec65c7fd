"""What the engine's tests stand on:

a small random model, a session without a network, and a script for its words.

The script replaces only the choice of the next id; everything else (the ids read into the cache, the vocoder,
the template) is the real thing.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from string import ascii_lowercase
from tempfile import mkdtemp
from typing import Any, TypeVar

import torch
from torch import Tensor

from model_runtime.engine.job import Job
from model_runtime.engine.kit import Kit
from model_runtime.engine.ops import Decode, Op, Prefill
from model_runtime.engine.refusal import Refusal
from model_runtime.engine.scheduler import Candidate, pick
from model_runtime.engine.session import Session
from model_runtime.engine.settings import Settings
from model_runtime.model import SpeechModel
from model_runtime.protocol import Audio, ClientMessage, EngineMessage, Error, Open, Sampling
from model_runtime.speaking.voice import Voice
from model_runtime.thinking.kv_cache import KVCache

M = TypeVar("M", bound=EngineMessage)

GREEDY = Sampling(temperature=0.0, repetition_penalty=1.0, seed=1)


@cache
def checkpoint() -> Path:
    """A small random checkpoint with two voices, made once a test run."""
    golden = Path(os.environ.get("GOLDEN", Path(__file__).parents[4] / "shared" / "golden")) / "checkpoint"
    folder = Path(mkdtemp(prefix="parley-tiny-")) / "tiny"
    shutil.copytree(golden, folder, copy_function=os.symlink)
    (folder / "voices").mkdir()
    for number, name in enumerate(("anna", "bert")):
        draw = torch.Generator().manual_seed(number)
        codes = torch.randint(0, 6561, (20,), generator=draw, dtype=torch.int32)
        speaker, mel = torch.randn(192, generator=draw), torch.randn(40, 80, generator=draw)
        Voice(codes, speaker, mel, description=f"random {name}").save(
            folder / "voices" / f"{name}.safetensors"
        )
    return folder


class ScriptedKit(Kit):
    """Draws what it is told: each id in ``script`` is the next one drawn for a response, whatever the scores.

    ``heard`` is the same for transcripts. With an empty script the model draws for itself.
    """

    def __init__(self, model: SpeechModel, settings: Settings) -> None:
        super().__init__(model, settings)
        self.script: list[int] = []
        self.heard: list[int] = []

    def execute(self, op: Op) -> Any:
        """As the kit does it, but for what is drawn."""
        result = super().execute(op)
        if isinstance(op, Prefill | Decode) and op.draw is not None:
            script = self.heard if op.draw is self.best else self.script
            return script.pop(0) if script else result
        return result

    def spoken(self, groups: int) -> list[int]:
        """Ids of that many groups, a letter in each, in which nothing repeats itself."""
        draw = random.Random(0)
        letters = [self.model.tokenizer.encode(letter)[0] for letter in ascii_lowercase]
        codes = range(self.tokens.audio0, self.tokens.audio0 + 6561)
        return [id for _ in range(groups) for id in (draw.choice(letters), *draw.choices(codes, k=4))]


def settings(**changes: Any) -> Settings:
    """Settings for a test."""
    return replace(Settings(checkpoint=str(checkpoint()), threads=1, max_context=2048), **changes)


@cache
def model() -> SpeechModel:
    """The model, loaded once a test run."""
    torch.set_num_threads(1)
    return SpeechModel.load(checkpoint())


class Clock:
    """Time that only passes when told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class OutOfLuckError(Exception):
    """A fault in the midst of a unit of work."""


def _broken(op: Op) -> None:
    raise OutOfLuckError


class Rig:
    """One session on the model, driven by hand."""

    def __init__(self, opening: Open | None = None, **changes: Any) -> None:
        self.kit = ScriptedKit(model(), settings(**changes))
        self.tokens = self.kit.tokens
        self.said: list[EngineMessage] = []
        self.clock = Clock()
        opening = opening or Open("test", instructions="Be kind.", sampling=GREEDY)
        self.session = Session(self.kit, opening, self.said.append, self.clock)

    def send(self, *messages: ClientMessage) -> None:
        """Hand messages to the session."""
        for message in messages:
            self.session.handle(message)

    def hear(self, seconds: float = 1.0, seed: int = 0) -> None:
        """The caller makes some noise."""
        draw = torch.Generator().manual_seed(seed)
        noise = torch.randint(-8000, 8000, (int(seconds * 16_000),), generator=draw, dtype=torch.int16)
        self.send(Audio(noise.numpy().tobytes()))

    def chosen(self) -> Job | None:
        """What is to be done next."""
        return pick(Candidate(job, due) for job, due in self.session.waiting(self.clock()))

    def step(self, faulty: bool = False) -> bool:
        """One unit of work, in which something goes wrong if ``faulty``. False: there is none."""
        with torch.inference_mode():
            if (job := self.chosen()) is None:
                return False
            try:
                job.step(_broken if faulty else self.kit.execute)
                self.session.stepped(job)
            except Refusal as refusal:
                self.session.abandon(job, refusal.error)
            except OutOfLuckError:
                self.session.abandon(job, Error("internal", "It broke.", turn=job.turn))
            return True

    def run(self, until: Callable[[], bool] = lambda: False) -> None:
        """Work until there is none left, or ``until``."""
        while not until() and self.step():
            pass

    def told(self, kind: type[M]) -> list[M]:
        """Messages of one kind, so far."""
        return [message for message in self.said if isinstance(message, kind)]

    def last(self, kind: type[M]) -> M:
        """The newest message of one kind."""
        return self.told(kind)[-1]

    def text(self, words: str) -> list[int]:
        """Ids of text."""
        return self.kit.model.tokenizer.encode(words)

    def groups(self, words: list[str], codes: int | None = None) -> list[int]:
        """A TA4 reply: one text slot for each word (one token, or empty), four codes a group."""
        ids: list[int] = []
        count = 0
        total = 4 * len(words) if codes is None else codes
        for word in words:
            slot = self.text(word) if word else [self.tokens.tts_pad]
            assert len(slot) == 1, f"{word!r} is not one token"
            ids += slot
            for _ in range(4):
                ids.append(self.tokens.audio0 + count * 37 % 6561 if count < total else self.tokens.audio_pad)
                count += 1
        return ids

    def next_scores(self) -> Tensor:
        """What the model expects after the history as the session's own cache has it: logits [vocabulary]."""
        self.run()
        whole = self.session._history.tokens()
        context = self.session._context
        assert context.ids == whole.ids
        return self.scores(context._held())

    def fresh_scores(self) -> Tensor:
        """The same, with everything read anew by a session that has no past."""
        whole = self.session._history.tokens()
        cache = self.kit.model.new_cache(2048)
        with torch.inference_mode():
            self.kit.model.prefill(cache, whole.ids, self.kit.model.embed(whole.ids, whole.rows))
        return self.scores(cache)

    def scores(self, cache: KVCache) -> Tensor:
        """What the model expects after a turn has been opened behind ``cache``: logits [vocabulary]."""
        length = cache.length
        scores = SpeechModel.step(self.kit.model, cache, self.tokens.bot)
        cache.truncate(length)
        return scores
