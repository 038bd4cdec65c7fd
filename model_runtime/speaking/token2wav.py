"""token2wav: audio codes and a voice to a waveform, whole or as a stream. The speaking half of the runtime.

The models and what is derived from them are shared by all streams and only read; everything that changes
during a reply lives on its `Token2WavStream`. To cancel a reply, drop its stream.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from model_runtime.speaking import flow_stream, vocoder_stream
from model_runtime.speaking.flow import FRAMES_PER_CODE, Flow
from model_runtime.speaking.flow_stream import FlowMemory, FlowPlan, FlowRules, FlowStream
from model_runtime.speaking.loading import load_flow, load_hift
from model_runtime.speaking.schedule import Schedule
from model_runtime.speaking.vocoder import HARMONICS, HOP, RATE, HiFT
from model_runtime.speaking.vocoder_stream import VocoderStream
from model_runtime.speaking.voice import Voice, VoicePreparer

T = TypeVar("T")
CODE_SAMPLES = HOP * FRAMES_PER_CODE  # 960 samples of 24 kHz a code
STEPS = 10  # solver steps of the reference
PROMPT_SEED = (
    0  # a voice's prompt is taken in with the same noise every time, so that all its streams may share it
)


class CodesRefused(ValueError):  # noqa: N818 - the caller's fault, and it reads as what happened
    """A stream cannot take these codes. No stream has changed."""


class Draws:
    """A stream's random numbers, from a seed of its own: the same seed and codes give the same audio."""

    def __init__(self, seed: int) -> None:
        """Two generators, so that chunk sizes do not shift the one against the other."""
        self._flow = torch.Generator().manual_seed(seed)
        self._source = torch.Generator().manual_seed(seed)

    def frames(self, offset: int, count: int) -> Tensor:
        """Flow noise [1, count, 80], new for every chunk (whatever the offset)."""
        return torch.randn(1, count, 80, generator=self._flow)

    def source(self, samples: int) -> Tensor | None:
        """Vocoder noise [1, samples, 9]."""
        return torch.randn(1, samples, HARMONICS, generator=self._source)


@dataclass(frozen=True)
class GivenDraws:
    """Noise given from outside, indexed by the frame's offset as in the reference; none in the vocoder."""

    noise: Tensor = field(repr=False)  # [1, N, 80]

    def frames(self, offset: int, count: int) -> Tensor:
        """The slice of the given noise at that offset."""
        return self.noise[:, offset : offset + count]

    def source(self, samples: int) -> Tensor | None:
        """No vocoder noise."""
        return None


class Token2Wav:
    """The flow and the vocoder of one checkpoint."""

    rate = RATE

    def __init__(
        self,
        flow: Flow,
        hift: HiFT,
        *,
        steps: int | None = None,
        cfg: float | None = None,
        folder: Path | None = None,
    ) -> None:
        """From models in memory; `folder` is where voices' ONNX models lie. See `load`."""
        if steps is not None and not 1 <= steps <= 100:
            raise ValueError(f"flow steps must be 1 to 100, not {steps}")
        self.flow = flow.eval()
        self.hift = hift.eval()
        self.device = flow.encoder_proj.weight.device
        self.plan = FlowPlan(self.flow, STEPS if steps is None else steps, cfg)
        self._folder = folder
        self._preparer: VoicePreparer | None = None
        self._prompts: WeakKeyDictionary[Voice, FlowMemory] = WeakKeyDictionary()
        self._lock = threading.Lock()  # a voice may be prepared or first used from a worker thread

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        steps: int | None = None,
        cfg: float | None = None,
        device: str | torch.device = "cpu",
    ) -> Self:
        """Read a checkpoint's `token2wav` folder; CheckpointError names the file and its fault.

        `steps` (default 10) trades quality for time; `cfg` overrides the file's guidance rate, 0 halves the
        work.
        """
        folder = Path(folder)
        return cls(
            load_flow(folder).to(device), load_hift(folder).to(device), steps=steps, cfg=cfg, folder=folder
        )

    def prepare_voice(
        self, wav: np.ndarray, rate: int, *, description: str = "", licence: str = "", source: str = ""
    ) -> Voice:
        """Turn a recording of 1 to 30 s, float in [-1, 1] at `rate` Hz, into a voice.

        VoiceError if the recording cannot serve, CheckpointError if the folder lacks the two ONNX models.
        """
        with self._lock:
            if self._preparer is None:
                if self._folder is None:
                    raise ValueError("this token2wav was not loaded from a folder and cannot prepare voices")
                self._preparer = VoicePreparer(self._folder)
        return self._preparer.prepare(wav, rate, description=description, licence=licence, source=source)

    @torch.inference_mode()
    def offline(self, codes: Sequence[int], voice: Voice, *, seed: int = 0) -> np.ndarray:
        """A whole reply at once: float32 [960 x codes] at 24 kHz. ValueError for any code beyond 0..6560."""
        self._check(codes)
        if not codes:
            return np.zeros(0, np.float32)
        draws, device = Draws(seed), self.device
        mel = self.flow.offline(
            voice.tokens.to(device, torch.long).unsqueeze(0),
            voice.mel.to(device).unsqueeze(0),
            voice.speaker.to(device).unsqueeze(0),
            torch.tensor([list(codes)], device=device),
            draws.frames(0, FRAMES_PER_CODE * (len(voice.tokens) + len(codes))).to(device),
            steps=self.plan.steps,
            cfg=self.plan.cfg,
        )
        vocoder = VocoderStream(self.hift, Schedule(), draws)
        return _samples(vocoder.push(mel, last=True))

    def stream(
        self,
        voice: Voice,
        *,
        schedule: Schedule | None = None,
        seed: int = 0,
        draws: Draws | GivenDraws | None = None,
    ) -> Token2WavStream:
        """Begin a reply in that voice. The first stream of a voice also takes in its prompt (see `warm`)."""
        return Token2WavStream(self, voice, schedule or Schedule(), draws or Draws(seed))

    def warm(self, voice: Voice) -> None:
        """Take in a voice's prompt now rather than at its first reply: once a voice, for all its streams."""
        self.prompt(voice)

    def prompt(self, voice: Voice) -> FlowMemory:
        """The moment after the prompt from which every stream of that voice begins."""
        with self._lock:
            memory = self._prompts.get(voice)
            if memory is None:
                memory = self.take_in(voice, Draws(PROMPT_SEED))
                self._prompts[voice] = memory
        return memory

    @property
    def nbytes(self) -> int:
        """Memory held for the prompts of voices, in bytes; any thread."""
        voices = [reference() for reference in self._prompts.keyrefs()]
        memories = [None if voice is None else self._prompts.get(voice) for voice in voices]
        return sum(memory.nbytes for memory in memories if memory is not None)

    def take_in(self, voice: Voice, draws: Draws | GivenDraws) -> FlowMemory:
        """Run a voice's prompt through the flow.

        The codes after the prompt are not known yet: the prompt's own first codes stand in for the
        look-ahead, as in the reference.
        """
        tokens = voice.tokens.tolist()
        ahead = (tokens * self.plan.lookahead)[: self.plan.lookahead]
        stream = FlowStream(self.plan, self.speaker(voice), FlowRules.whole(), draws)
        stream.push(tokens + ahead, cond=voice.mel.to(self.device).unsqueeze(0))
        assert stream.memory is not None
        return stream.memory

    @torch.inference_mode()
    def speaker(self, voice: Voice) -> Tensor:
        """The voice's speaker condition [1, 80]."""
        return self.flow.speaker(voice.speaker.to(self.device).unsqueeze(0))

    def _check(self, codes: Sequence[int]) -> None:
        vocabulary = self.flow.config.vocab_size
        for code in codes:
            if not 0 <= code < vocabulary:
                raise CodesRefused(f"{code} is not a speech code: they run from 0 to {vocabulary - 1}")


class Token2WavStream:
    """One reply being spoken."""

    def __init__(self, model: Token2Wav, voice: Voice, schedule: Schedule, draws: Draws | GivenDraws) -> None:
        """Made by `Token2Wav.stream`."""
        self._model = model
        self._schedule = schedule
        self._draws = draws
        self._wanted = voice  # written by whoever holds the call
        self._spoken: Voice | None = None  # and this by whoever renders, perhaps on another thread
        self._flow: FlowStream
        self._vocoder = VocoderStream(model.hift, schedule, draws)
        self._pending: list[int] = []
        self._index = 0
        self._ended = False
        self.codes = 0
        """Codes taken in so far."""
        self.emitted = 0
        """Samples given out so far."""

    @property
    def nbytes(self) -> int:
        """Memory that the flow holds for this reply beside its voice's prompt, in bytes; any thread."""
        return 0 if self._spoken is None else self._flow.nbytes

    def speak_as(self, voice: Voice) -> None:
        """Go on in another voice from the next chunk.

        The vocoder goes on as it was, so the two voices are faded into each other like any two chunks.
        """
        self._wanted = voice

    def _flow_now(self) -> FlowStream:
        """The flow of the voice that is wanted; in a new voice it has just taken in that voice's prompt."""
        model, voice, tail = self._model, self._wanted, self._schedule.tail_frames
        if voice is not self._spoken:
            if self._schedule.like_reference:
                rules = FlowRules.reference(FRAMES_PER_CODE * len(voice.tokens), tail)
                prompt = model.take_in(voice, self._draws)
            else:
                rules, prompt = FlowRules.recent(tail), model.prompt(voice)
            self._flow = FlowStream(model.plan, model.speaker(voice), rules, self._draws, prompt)
            self._spoken = voice
        return self._flow

    @property
    def ended(self) -> bool:
        """Whether the last chunk has been rendered."""
        return self._ended

    @property
    def needed(self) -> int:
        """How many more codes until the next chunk is due; never 0 between pushes."""
        return max(0, self._schedule.size(self._index) + self._model.plan.lookahead - len(self._pending))

    def shape(self, count: int, last: bool) -> Hashable:
        """Streams in which this is equal can be rendered in one pass (`push_each`); ``count`` codes come.

        Not while the stream renders. What a voice's prompt is like is not known before its first chunk, so
        those who begin are alike if they begin in one voice.
        """
        count += len(self._pending)
        if self._wanted is not self._spoken:
            return id(self._wanted), self._index, count, last
        return self._flow.shape(count, last)

    def push(self, codes: Sequence[int], last: bool = False) -> np.ndarray:
        """Take in codes and give out the audio that is ready: float32 [n] at 24 kHz, n often 0.

        `last` says that no code follows and gives all that is left; afterwards the stream takes nothing more.
        `CodesRefused` for anything but codes 0..6560 (pads are the caller's to filter); the stream is then
        unchanged.
        """
        return push_each([(self, codes, last)])[0]

    def _check(self, codes: Sequence[int]) -> None:
        if self._ended:
            raise CodesRefused("the stream has ended: begin a new one for the next reply")
        self._model._check(codes)

    def _take(self, codes: Sequence[int], last: bool) -> None:
        self._pending += codes
        self.codes += len(codes)
        self._ended = last

    def _due(self) -> _Due | None:
        """The next chunk that can be rendered now."""
        if self.needed == 0:
            size = self._schedule.size(self._index)
            chunk = self._pending[: size + self._model.plan.lookahead]
            del self._pending[:size]
            self._index += 1
            return _Due(self, self._flow_now(), chunk, False)
        if self._ended and self._pending:
            chunk, self._pending = self._pending, []
            return _Due(self, self._flow_now(), chunk, True)
        return None


class _Due(NamedTuple):
    """A chunk of codes that is to be rendered."""

    stream: Token2WavStream
    flow: FlowStream
    codes: list[int]
    last: bool


def push_each(pushes: Sequence[tuple[Token2WavStream, Sequence[int], bool]]) -> list[np.ndarray]:
    """Each (stream, codes, last) as `Token2WavStream.push` would take it, in as few passes as there may be.

    Chunks of one shape are rendered as one. Rounding apart, each stream gives what it would give alone.
    `CodesRefused`, and no stream has changed, if one of them cannot take its codes.
    """
    for stream, codes, _ in pushes:
        stream._check(codes)
    for stream, codes, last in pushes:
        stream._take(codes, last)
    audio: dict[int, list[np.ndarray]] = {id(stream): [] for stream, _, _ in pushes}
    while due := [chunk for stream, _, _ in pushes if (chunk := stream._due()) is not None]:
        mels: list[tuple[_Due, Tensor]] = []
        for group in _alike(due, lambda one: one.flow.shape(len(one.codes), one.last)):
            flows = [one.flow for one in group]
            mels += zip(
                group, flow_stream.render(flows, [one.codes for one in group], group[0].last), strict=True
            )
        for same in _alike(mels, lambda one: one[0].stream._vocoder.shape(one[1].shape[1], one[0].last)):
            vocoders = [one.stream._vocoder for one, _ in same]
            played = vocoder_stream.render(vocoders, [mel for _, mel in same], same[0][0].last)
            for (one, _), sound in zip(same, played, strict=True):
                audio[id(one.stream)].append(_samples(sound))
    given = []
    for stream, _, last in pushes:
        pieces = audio[id(stream)]
        if last:
            pieces.append(_samples(stream._vocoder.flush()))  # nothing, if the last chunk brought it all
        stream.emitted += sum(map(len, pieces))
        given.append(np.concatenate([np.zeros(0, np.float32), *pieces]))
    return given


def _alike(items: Iterable[T], shape: Callable[[T], Hashable]) -> list[list[T]]:
    """Those of one shape together."""
    groups: dict[Hashable, list[T]] = {}
    for one in items:
        groups.setdefault(shape(one), []).append(one)
    return list(groups.values())


def _samples(audio: Tensor) -> np.ndarray:
    return audio.to("cpu", torch.float32).numpy()
