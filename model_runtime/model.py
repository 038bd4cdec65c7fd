"""One loaded checkpoint: listening, thinking and speaking put together.

The weights are shared and only read. What a call changes lives in its own ``KVCache``, ``Sampler``,
``InterleaveParser`` and token2wav stream, so any number of calls can be served from one model.
"""

from __future__ import annotations

import wave
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model_runtime import weights
from model_runtime.chat import AudioSlot, Piece, Template
from model_runtime.checkpoint import Card, Checkpoint, open_checkpoint
from model_runtime.errors import CheckpointError, VoiceError
from model_runtime.interleave import InterleaveParser
from model_runtime.listening.adaptor import Adaptor
from model_runtime.listening.encoder import AudioEncoder
from model_runtime.listening.features import log_mel, mel_frames, split_pieces, token_count
from model_runtime.speaking.token2wav import Token2Wav
from model_runtime.speaking.voice import Voice
from model_runtime.thinking.backbone import Backbone
from model_runtime.thinking.kv_cache import KVCache
from model_runtime.thinking.sampling import Sampler, SamplingOptions
from model_runtime.tokenizer import Tokenizer
from model_runtime.tokens import SpecialTokens

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class SpeechModel:
    """A checkpoint in memory, ready to serve. ``SpeechModel.load`` makes one."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        encoder: AudioEncoder,
        adaptor: Adaptor,
        backbone: Backbone,
        token2wav: Token2Wav,
        voices: dict[str, Voice],
    ) -> None:
        """Takes loaded parts; the language model is fused for serving."""
        self.checkpoint = checkpoint
        self.card: Card = checkpoint.card
        self.tokenizer: Tokenizer = checkpoint.tokenizer
        self.tokens: SpecialTokens = checkpoint.tokenizer.tokens
        self.template = Template(self.tokens, self.tokenizer.encode)
        self.encoder, self.adaptor, self.backbone = encoder, adaptor, backbone
        self.token2wav = token2wav
        self.voices = voices
        self.vocabulary = checkpoint.text.vocab_size
        self.max_context = checkpoint.text.max_position_embeddings
        self.device = backbone.lm_head.weight.device
        self.dtype = backbone.lm_head.weight.dtype
        backbone.fuse()

    @classmethod
    def load(
        cls, path: str | Path, device: str | torch.device = "cpu", dtype: torch.dtype | str | None = None
    ) -> Self:
        """Open, check and load a folder or ``hf://org/name``. Raises CheckpointError, with nothing
        half-loaded.

        ``device`` "auto" takes a GPU if there is one. ``dtype`` None is float32 on a CPU and the checkpoint's
        own elsewhere; it holds for the language model and the encoder, token2wav stays in float32.
        """
        checkpoint = open_checkpoint(path)
        if str(device) == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        place = torch.device(device)
        if dtype is None:
            head = checkpoint.tensors.get("lm_head.weight")
            kind = torch.float32 if place.type == "cpu" or head is None else head.dtype
        else:
            kind = _DTYPES[dtype] if isinstance(dtype, str) else dtype
        audio = checkpoint.audio
        with torch.device("meta"):
            encoder = AudioEncoder(audio.n_mels, audio.n_ctx, audio.n_state, audio.n_head, audio.n_layer)
            adaptor = Adaptor(
                audio.n_state, audio.llm_dim, audio.adaptor_inner, audio.kernel_size, audio.adapter_stride
            )
            backbone = Backbone(checkpoint.text)
        modules = {"encoder.": encoder, "adapter.": adaptor, "": backbone}
        weights.check(checkpoint.tensors, weights.shapes(modules), _named_file(checkpoint.folder))
        try:
            # The small parts first: a fault in them is told before gigabytes have been read.
            token2wav = Token2Wav.load(
                checkpoint.token2wav, steps=checkpoint.card.flow_steps or None, device=place
            )
            voices = _voices(checkpoint, token2wav)
            weights.load(modules, checkpoint.tensors, place, kind)
        except torch.OutOfMemoryError:
            size = checkpoint.parameters * kind.itemsize / 1e9
            fault = f"does not fit on {place}: the language model and encoder alone take {size:.1f} GB"
            raise CheckpointError.of(checkpoint.folder, fault, "Free memory or use another device.") from None
        return cls(checkpoint, encoder, adaptor, backbone, token2wav, voices)

    # --- listening ---

    @torch.inference_mode()
    def hear(self, wav: NDArray[np.float32] | Tensor) -> Tensor:
        """float32 [n] at 16 kHz in [-1, 1] to rows [N, hidden]; audio over 25 s is cut and its rows joined.

        N is 0 below 20 ms. Each 25 s are encoded alone, so the result never depends on other calls.
        """
        pieces = self.hear_pieces(wav)
        if not pieces:
            return torch.zeros(0, self.backbone.config.hidden_size, device=self.device, dtype=self.dtype)
        return torch.cat(pieces)

    @torch.inference_mode()
    def hear_pieces(self, wav: NDArray[np.float32] | Tensor) -> list[Tensor]:
        """The same as a list of one [N, hidden] for every 25 s: each is an ``AudioSlot`` of its own in the
        prompt.
        """
        samples = torch.as_tensor(wav, dtype=torch.float32, device=self.device)
        rows = []
        for start, end in split_pieces(len(samples)):
            mel = log_mel(samples[start:end], self.checkpoint.audio.n_mels)
            states, length = self.encoder(mel[None], torch.tensor([mel_frames(end - start)]))
            rows.append(self.adaptor(states, length)[0][0, : token_count(end - start)])
        return rows

    # --- prompts ---

    def conversation(self, instructions: str = "", tools: Sequence[dict[str, object]] = ()) -> list[Piece]:
        """The turns every conversation begins with: system, and the tools if there are any."""
        pieces: list[Piece] = self.template.system(instructions) if instructions else []
        return [*pieces, *self.template.tool_json_schemas(tools)] if tools else pieces

    def human(self, rows: Sequence[Tensor], text: str = "") -> list[Piece]:
        """A human turn with a place for each piece of ``hear_pieces``, then ``text``."""
        return self.template.human([AudioSlot(len(block)) for block in rows], text)

    def prompt(self, pieces: Sequence[Piece], rows: Sequence[Tensor] = ()) -> tuple[list[int], Tensor]:
        """Ids of ``pieces`` and their embeddings [T, hidden], with ``rows`` laid into the audio slots in
        order.

        Positions come from the template, never from looking for ids. Raises ValueError when slots and rows do
        not match.
        """
        ids, slots = self.template.lay_out(pieces)
        if [length for _, length in slots] != [len(block) for block in rows]:
            raise ValueError(f"{len(slots)} audio slots do not match {len(rows)} pieces of audio")
        return ids, self.embed(ids, [(at, block) for (at, _), block in zip(slots, rows, strict=True)])

    @torch.inference_mode()
    def embed(self, ids: Sequence[int], rows: Sequence[tuple[int, Tensor]] = ()) -> Tensor:
        """Embeddings [T, hidden] of ids, with blocks of rows [n, hidden] laid over at their positions."""
        embeddings = self.backbone.embed(torch.tensor(ids, dtype=torch.long, device=self.device))
        if rows:
            embeddings = embeddings.clone()
            for at, block in rows:
                embeddings[at : at + len(block)] = block
        return embeddings

    # --- thinking ---

    def new_cache(self, max_tokens: int | None = None) -> KVCache:
        """An empty context for one session."""
        return self.backbone.new_cache(max_tokens)

    @torch.inference_mode()
    def prefill(
        self,
        cache: KVCache,
        ids: Sequence[int],
        embeddings: Tensor | None = None,
        rows: tuple[int, int] | None = None,
    ) -> Tensor:
        """Read a piece of prompt; returns the logits [vocabulary] that follow it (or only ids [from, to)
        ``rows``).

        ``embeddings`` [T, hidden] stand for the ids where there is audio among them; None takes the ids' own.
        Raises ``ContextFull`` and ValueError (nothing to read).
        """
        if not len(ids):
            raise ValueError("there is nothing to read")
        hidden = self.backbone.extend(cache, self.embed(ids) if embeddings is None else embeddings)
        return self.backbone.logits(hidden[-1], rows)

    @torch.inference_mode()
    def step(self, cache: KVCache, id: int, rows: tuple[int, int] | None = None) -> Tensor:
        """Read one id; returns the logits of the next, or only those of ids [from, to) ``rows``."""
        return self.backbone.logits(self.step_each([cache], [id])[0], rows)

    @torch.inference_mode()
    def step_each(self, caches: Sequence[KVCache], ids: Sequence[int]) -> Tensor:
        """Read one id into each of several sessions' caches; returns their last hidden states [B, hidden].

        Raises ``ContextFull``, and leaves every cache as it was, when one has no room.
        """
        embeddings = self.backbone.embed(torch.tensor(ids, dtype=torch.long, device=self.device))
        return self.backbone.extend_each(caches, embeddings)

    def parser(self, *, speaking: bool = True, thinking: bool = False) -> InterleaveParser:
        """A parser for what follows a prompt that ended with ``<tts_start>``, a thought, or neither."""
        return InterleaveParser(self.tokens, self.tokenizer.bytes_of, speaking=speaking, thinking=thinking)

    def sampler(self, options: SamplingOptions | None = None, seed: int | None = None) -> Sampler:
        """A sampler for one session; without options, as the checkpoint likes it."""
        return Sampler(self.tokens, self.vocabulary, options or self.sampling, seed, self.device)

    @property
    def sampling(self) -> SamplingOptions:
        """The checkpoint's own defaults."""
        like = self.card.sampling
        return SamplingOptions(like.temperature, like.top_p, like.repetition_penalty, like.penalise_audio)


def _named_file(folder: Path) -> Path:
    index = folder / weights.INDEX
    return index if index.is_file() else folder / weights.SINGLE


def _voices(checkpoint: Checkpoint, token2wav: Token2Wav) -> dict[str, Voice]:
    """Prepared voices, and recordings beside them (or in ``assets/``, as published) prepared now."""
    voices: dict[str, Voice] = {}
    for name, path in checkpoint.voices.items():
        try:
            voices[name] = Voice.load(path)
        except VoiceError as error:
            raise CheckpointError.of(path.parent, str(error)) from None
    for path in checkpoint.recordings:
        if path.stem not in voices:
            wav, rate = _read_wav(path)
            try:
                voices[path.stem] = token2wav.prepare_voice(wav, rate, source=path.name)
            except VoiceError as error:
                raise CheckpointError.of(path, str(error), "Replace or remove the recording.") from None
    default = checkpoint.card.default_voice
    if default and default not in voices:
        fault = f"names the default voice {default!r}, which is not in voices/"
        raise CheckpointError.of(checkpoint.folder / "parley.json", fault, "Correct it, or add the voice.")
    return voices


def _read_wav(path: Path) -> tuple[NDArray[np.float32], int]:
    """A 16-bit PCM recording: float32 [n, channels] in [-1, 1], and its rate in Hz."""
    try:
        with wave.open(str(path)) as file:
            if file.getsampwidth() != 2:
                raise wave.Error("it is not 16-bit PCM")
            pcm = np.frombuffer(file.readframes(file.getnframes()), "<i2")
            return (pcm.reshape(-1, file.getnchannels()) / 32768).astype(np.float32), file.getframerate()
    except (wave.Error, EOFError, OSError, ValueError) as error:
        remedy = "Convert it to 16-bit WAV, or remove it."
        raise CheckpointError.of(
            path, f"cannot be read as a recording ({str(error) or 'it ends too soon'})", remedy
        ) from None
