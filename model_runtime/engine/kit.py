"""What all sessions of an engine share: the model, memory and limits, and how each operation is done."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model_runtime.engine.context import Context
from model_runtime.engine.draws import Draw, Draws
from model_runtime.engine.history import Entry
from model_runtime.engine.measures import Measures
from model_runtime.engine.memory import Memory, fitting
from model_runtime.engine.ops import Decode, Hear, Op, Prefill, Vocode
from model_runtime.engine.pace import Pace
from model_runtime.engine.prompts import Prompts
from model_runtime.engine.record import read
from model_runtime.engine.refusal import Refusal
from model_runtime.engine.ring import AudioRing
from model_runtime.engine.settings import Settings
from model_runtime.engine.voices import Voices
from model_runtime.errors import CheckpointError
from model_runtime.interleave import InterleaveParser
from model_runtime.model import SpeechModel
from model_runtime.protocol import INPUT_RATE, HistoryEntry, Respond, Sampling
from model_runtime.speaking.token2wav import Token2WavStream, push_each
from model_runtime.speaking.voice import Voice
from model_runtime.thinking.sampling import NOTHING, SamplingOptions, draw_each

log = logging.getLogger(__name__)

SHORTEST = 60 * INPUT_RATE // 1000  # samples: less may be no patch at all to the encoder, and is no word
DECODE_BATCH = {"cpu": 16, "cuda": 256}  # sessions in one step
SPEECH_BATCH = {"cpu": 2, "cuda": 8}  # chunks in one pass; nano's cost a CPU the same one by one (see README)
MEMORY_SHARE = 0.6  # of what a GPU has left: the rest is for speech, whose caches a call has while it speaks
ROOM = 2048  # tokens: a session that can hold fewer is of no use
NO_NUMBERS = "the scores of the next token are no numbers"
SMALL = 1024  # hidden size below which one thread is quicker than several


class Kit:
    """``max_context``: positions a session may hold."""

    def __init__(self, model: SpeechModel, settings: Settings) -> None:
        """``model``'s halves are each used from one thread only: token2wav, and all the rest."""
        self.model = model
        self.settings = settings
        self.card = model.card
        self.voices = Voices(model, settings.voices)
        self.expect: Callable[[Voice], None] = lambda voice: None  # told of a voice that may speak soon
        self.pace = Pace()
        kind = model.device.type
        self.decode_batch = settings.decode_batch or DECODE_BATCH[kind]
        self.speech_batch = settings.speech_batch or SPEECH_BATCH[kind]
        self.tokens = model.tokens
        self.max_context = _max_context(model, settings)
        recorded = kind == "cuda" and not settings.like_reference
        self.memory = Memory(model, settings.max_sessions, self.max_context, fixed=recorded)
        self.measures = Measures(model, self.memory)
        self.masked = self.card.slot_masking if settings.slot_masking is None else settings.slot_masking
        self.prompts = Prompts(model.template, self.tokens, self.card.transcribe_instructions)
        self.best = Draw(model.sampler(SamplingOptions(temperature=0.0, repetition_penalty=1.0), seed=0))

    @property
    def default_voice(self) -> str:
        """The card's, or else the checkpoint's first; empty if it has none."""
        return self.card.default_voice or min(self.model.voices, default="")

    # --- for sessions ---

    def context(self, size: int = 0) -> Context:
        """An empty context of ``size`` positions, by default of all a session may hold."""
        if not size:
            return Context(self.memory.session, self.max_context, self.settings.prefill_tokens)
        size = min(size, self.model.max_context)
        return Context(lambda: self.memory.aside(size), size, self.settings.prefill_tokens)

    def parser(self, speaking: bool, thinking: bool = False) -> InterleaveParser:
        """A reader of what the model writes; see ``InterleaveParser``."""
        return self.model.parser(speaking=speaking, thinking=thinking)

    def restored(self, message: HistoryEntry) -> Entry:
        """An entry of another session's history. Raises ``Refusal``."""
        weight = self.model.backbone.lm_head.weight
        return read(message, self.model.vocabulary, self.model.backbone.config.hidden_size, weight)

    def draws(self, asked: Sampling) -> Draws:
        """One session's choices:

        what it asked for, and the checkpoint's own for the rest. Raises ``Refusal``.
        """
        own = self.model.sampling
        try:
            options = SamplingOptions(
                temperature=own.temperature if asked.temperature is None else asked.temperature,
                top_p=own.top_p if asked.top_p is None else asked.top_p,
                repetition_penalty=(
                    own.repetition_penalty if asked.repetition_penalty is None else asked.repetition_penalty
                ),
                penalise_audio=own.penalise_audio,
            )
        except ValueError as error:
            raise Refusal("bad_request", f"Sampling refused: {error}.", fatal=True) from None
        return Draws(self.model.sampler(options, seed=0), asked.seed, self.masked)

    def cut(self, ring: AudioRing, asked: Respond) -> NDArray[np.float32]:
        """The spans of a human turn put together: float32 16 kHz [n] in [-1, 1). Raises ``Refusal``."""
        spans = [(int(start), int(stop)) for start, stop in asked.spans]
        if any(stop > start for (_, stop), (start, _) in pairwise(spans)):
            raise Refusal("bad_request", "The spans are not in order.", turn=asked.turn)
        try:
            pieces = [ring.get(start, stop) for start, stop in spans]
        except ValueError as error:
            raise Refusal("bad_request", f"Span refused: {error}.", turn=asked.turn) from None
        if not pieces:
            return np.zeros(0, np.float32)
        wav = np.concatenate(pieces).astype(np.float32) / 32768.0
        if len(wav) < SHORTEST:
            text = f"The spans hold {1000 * len(wav) // INPUT_RATE} ms of audio: too short to be heard."
            raise Refusal("bad_request", text, turn=asked.turn)
        return wav

    def reserve(self, think: bool) -> int:
        """Positions kept free for a reply: the longest there may be, within a quarter of the context."""
        longest = 5 * self.settings.max_groups + self.settings.max_text_tokens
        return min(longest + think * self.settings.max_thought_tokens, self.max_context // 4)

    # --- for the worker ---

    def execute(self, op: Op) -> Any:
        """Do one operation; what it gives is said where it is defined."""
        model = self.model
        match op:
            case Hear():
                return model.hear(op.wav)
            case Prefill():
                rows = None if op.draw is None else op.draw.rows
                embeddings = model.embed(op.tokens.ids, op.tokens.rows)
                logits = model.prefill(op.cache, op.tokens.ids, embeddings, rows)
                return None if op.draw is None else op.draw(logits)
            case Decode():
                (id,) = self.decode_each([op])
                if id == NOTHING:
                    raise ArithmeticError(NO_NUMBERS)
                return id
            case Vocode():
                return op.stream.push(op.codes, op.last)

    def decode_each(self, steps: Sequence[Decode]) -> list[int]:
        """The id that each step draws, all computed as one; ``NOTHING`` where its scores are no numbers.

        When it raises no cache has moved on.
        """
        lengths = [step.cache.length for step in steps]
        try:
            hidden = self.memory.read_each([step.cache for step in steps], [step.id for step in steps])
            alike: defaultdict[tuple[int, int] | None, list[int]] = defaultdict(list)
            for at, step in enumerate(steps):
                alike[step.draw.rows].append(at)
            drawn: dict[int, int] = {}
            for rows, of in alike.items():  # an audio slot scores its own ids only: a small part of the head
                scores = self.model.backbone.logits(hidden if len(of) == len(steps) else hidden[of], rows)
                draws = [steps[at].draw for at in of]
                first = 0 if rows is None else rows[0]
                ids = draw_each(
                    scores, [draw.sampler for draw in draws], first, [draw.slot for draw in draws]
                )
                drawn |= zip(of, ids, strict=True)
        except BaseException:
            for step, length in zip(steps, lengths, strict=True):
                step.cache.truncate(length)
            raise
        return [drawn[at] for at in range(len(steps))]

    def stream(self, voice: Voice) -> Token2WavStream:
        """A reply in that voice, as it begins."""
        return self.measures.new_stream(self.model.token2wav.stream(voice, schedule=self.settings.schedule))

    def vocode_each(self, chunks: Sequence[Vocode]) -> list[NDArray[np.float32]]:
        """The sound of each chunk, in as few passes as there may be. Raises ``CodesRefused`` first of all."""
        return push_each([(chunk.stream, chunk.codes, chunk.last) for chunk in chunks])

    def warm_up(self) -> None:
        """Do everything once, so that the first call does not pay for lazily made tables and kernels."""
        begun = time.monotonic()
        for seconds in (1, 3):
            heard = self.execute(Hear(np.zeros(seconds * INPUT_RATE, np.float32)))
        caches = [self.memory.session() for _ in range(min(2, self.settings.max_sessions))]
        human = self.prompts.human(0, [heard], "", "").tokens
        ids = [self.execute(Prefill(cache, human, self.best)) for cache in caches]
        for _ in range(8):
            steps = [Decode(cache, id, self.best) for cache, id in zip(caches, ids, strict=True)]
            ids = [self.execute(step) for step in steps]
        self.decode_each([Decode(cache, id, self.best) for cache, id in zip(caches, ids, strict=True)])
        for cache in caches:
            cache.release()
        self.memory.warm_up(self.decode_batch, ROOM)
        for voice in self.model.voices.values():
            self.model.token2wav.warm(voice)  # its prompt is read once, for all calls
        # Any one voice will do: another has other numbers, and the same kernels. Callers may be waiting.
        for voice in list(self.model.voices.values())[:1]:
            for count in {1, min(2, self.speech_batch)}:
                streams = [self.stream(voice) for _ in range(count)]
                for _ in range(len(self.settings.chunks) + 1):  # one chunk of every size
                    self.vocode_each([Vocode(stream, [0] * stream.needed, False) for stream in streams])
                self.vocode_each([Vocode(stream, [0], True) for stream in streams])
        log.info("warm seconds=%.1f", time.monotonic() - begun)


def _max_context(model: SpeechModel, settings: Settings) -> int:
    """Tokens a session may hold: what was asked for, or as much as a GPU has memory for.

    Raises ``CheckpointError`` if it has not enough.
    """
    wanted = min(model.max_context, settings.max_context or model.max_context)
    if model.device.type != "cuda":
        return wanted  # the system lends memory as it is written
    free = int(MEMORY_SHARE * torch.cuda.mem_get_info(model.device)[0])
    fits = fitting(model, settings.max_sessions, wanted, free)
    if fits < (wanted if settings.max_context else min(wanted, ROOM)):
        fault = (
            f"leaves {free / 1e9:.1f} GB of {model.device} for the pasts of {settings.max_sessions} sessions:"
            f" {fits} tokens each, {max(settings.max_context, ROOM)} are needed"
        )
        remedy = "Take on fewer sessions, ask for less context, or use a larger device."
        raise CheckpointError.of(model.checkpoint.folder, fault, remedy)
    if fits < wanted:
        log.info("sessions may hold %d of %d tokens: so many fit into memory", fits, wanted)
    return fits


def load(settings: Settings) -> Kit:
    """Load the checkpoint and warm it up, on the thread that will use it. Raises ``CheckpointError``."""
    if settings.threads:
        torch.set_num_threads(settings.threads)
    begun = time.monotonic()
    model = SpeechModel.load(settings.checkpoint, settings.device, settings.dtype or None)
    if model.device.type == "cuda" and not settings.like_reference:
        # token2wav is kept in float32; its products need not be as exact, and are several times as quick.
        torch.set_float32_matmul_precision("high")
    if not settings.threads and model.backbone.config.hidden_size < SMALL:
        torch.set_num_threads(1)
    log.info(
        "loaded checkpoint=%r device=%s threads=%d seconds=%.1f",
        model.card.name, model.device, torch.get_num_threads(), time.monotonic() - begun,
    )  # fmt: skip
    if not model.voices:
        remedy = "Put a prepared voice into voices/, or a recording into assets/."
        raise CheckpointError.of(model.checkpoint.folder, "has no voice to speak with", remedy)
    kit = Kit(model, settings)
    if settings.warm_up:
        kit.warm_up()
    return kit
