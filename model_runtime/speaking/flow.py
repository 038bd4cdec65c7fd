"""The flow: 25 Hz audio codes to a 50 Hz mel spectrogram, by conditional flow matching.

An encoder (`conformer`) turns codes into mel-like frames `mu`; an ODE carries noise to the mel, its velocity
given by `dit` under `mu`, the speaker and the voice prompt's known mel. Parameter names are those of
Step-Audio 2's `token2wav/flow.pt`. This module holds what training and offline synthesis need; `flow_stream`
adds streaming.

Mels are [B, T, 80] float32 here: natural log of magnitudes at 24 kHz, 480 samples a frame (see `mel`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_runtime.speaking.conformer import ConformerEncoder, EncoderConfig
from model_runtime.speaking.dit import DiT, DiTConfig

FRAMES_PER_CODE = 2
SIGMA_MIN = 1e-6  # the noise left at t = 1 in the training path (CosyVoice 2's value)


@dataclass(frozen=True)
class FlowConfig:
    """Dimensions of the flow, named as in `flow.yaml`."""

    vocab_size: int = 6561
    input_size: int = 512
    output_size: int = 80
    spk_embed_dim: int = 192
    inference_cfg_rate: float = 0.7
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    estimator: DiTConfig = field(default_factory=DiTConfig)


def chunk_mask(
    lengths: Tensor, size: int, chunk: int | Sequence[int] | None = None, prompt: Tensor | None = None
) -> Tensor:
    """Which key (last axis) each query may look at: bool [B, size, size], never an empty row.

    `lengths` int [B] valid positions. With `chunk` None all of them; else positions up to the end of the
    query's own chunk, as in a stream: the first `prompt` [B] positions are one chunk, then come chunks of the
    given size, or of the given sizes one after another with the last one repeated.
    """
    position = torch.arange(size, device=lengths.device)
    valid = position < lengths.clamp(min=1).unsqueeze(1)  # [B, size]
    mask = valid.unsqueeze(1).expand(-1, size, -1)
    if chunk is None:
        return mask
    sizes = [chunk] if isinstance(chunk, int) else list(chunk)
    edges = torch.tensor(sizes, device=lengths.device).cumsum(0)  # where a chunk of the ramp ends
    after = position - (torch.zeros_like(lengths) if prompt is None else prompt).unsqueeze(1)
    ramp = torch.searchsorted(edges, after.clamp(min=0).contiguous(), right=True)
    steady = len(sizes) + (after - edges[-1]).clamp(min=0) // sizes[-1]
    block = torch.where(after < 0, -1, torch.where(after < edges[-1], ramp, steady))
    return mask & (block.unsqueeze(1) <= block.unsqueeze(2))


def time_steps(steps: int, device: torch.device | str = "cpu") -> Tensor:
    """Where the solver evaluates: float32 [steps + 1] from 0 to 1, dense near 0 (cosine schedule)."""
    return 1 - torch.cos(torch.linspace(0, 1, steps + 1, device=device) * 0.5 * math.pi)


class Decoder(nn.Module):
    """Holds the estimator under the name that it has in the checkpoint."""

    def __init__(self, config: DiTConfig) -> None:
        """An estimator of the given dimensions."""
        super().__init__()
        self.estimator = DiT(config)


class Flow(nn.Module):
    """Codes, speaker and prompt to mel (see the module's docstring)."""

    def __init__(self, config: FlowConfig) -> None:
        """Random weights, ready to be trained or filled."""
        super().__init__()
        self.config = config
        self.input_embedding = nn.Embedding(config.vocab_size, config.input_size)
        self.spk_embed_affine_layer = nn.Linear(config.spk_embed_dim, config.output_size)
        self.encoder = ConformerEncoder(config.encoder)
        self.encoder_proj = nn.Linear(config.encoder.output_size, config.output_size)
        self.decoder = Decoder(config.estimator)

    @property
    def estimator(self) -> DiT:
        """The velocity estimator."""
        return self.decoder.estimator

    def speaker(self, embedding: Tensor) -> Tensor:
        """Speaker embedding [B, 192] of any length to the condition [B, 80]; only its direction counts."""
        y: Tensor = self.spk_embed_affine_layer(F.normalize(embedding, dim=1))
        return y

    def encode(
        self,
        codes: Tensor,
        lengths: Tensor | None = None,
        chunk: int | Sequence[int] | None = None,
        prompt: Tensor | None = None,
    ) -> Tensor:
        """Codes int [B, N] to `mu` [B, 2 N, 80].

        `lengths` and `prompt` int [B] in codes, `chunk` as in `chunk_mask`.
        """
        mask = up_mask = None
        if lengths is not None or chunk is not None:
            count = codes.shape[1]
            full = torch.full((codes.shape[0],), count, device=codes.device) if lengths is None else lengths
            mask = chunk_mask(full, count, chunk, prompt)
            up_mask = self._at_frames(full, count, chunk, prompt)
        h = self.encoder(self.input_embedding(codes), lengths, mask, up_mask)
        mu: Tensor = self.encoder_proj(h)
        return mu

    @staticmethod
    def _at_frames(
        lengths: Tensor, count: int, chunk: int | Sequence[int] | None, prompt: Tensor | None
    ) -> Tensor:
        """The chunk mask of `count` codes at the frame rate."""
        sizes = None if chunk is None else [chunk] if isinstance(chunk, int) else list(chunk)
        return chunk_mask(
            lengths * FRAMES_PER_CODE,
            count * FRAMES_PER_CODE,
            None if sizes is None else [size * FRAMES_PER_CODE for size in sizes],
            None if prompt is None else prompt * FRAMES_PER_CODE,
        )

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        codes: Tensor,
        speaker: Tensor,
        lengths: Tensor | None = None,
        cond: Tensor | None = None,
        *,
        keep: Tensor | None = None,
        chunk: int | Sequence[int] | None = None,
        prompt: Tensor | None = None,
    ) -> Tensor:
        """Velocity [B, 2 N, 80] at `x` [B, 2 N, 80] and time `t` [B], differentiably.

        `codes` int [B, N]; `speaker` [B, 192]; `cond` [B, 2 N, 80] the known mel (zeros where unknown);
        `keep` bool [B]: False drops the conditions of that item (training for classifier-free guidance).
        """
        mu, affine = self.encode(codes, lengths, chunk, prompt), self.speaker(speaker)
        if keep is not None:
            scale = keep.to(mu.dtype).view(-1, 1, 1)
            mu, affine = mu * scale, affine * scale[:, :, 0]
            cond = None if cond is None else cond * scale
        mask = None
        if lengths is not None or chunk is not None:
            count = codes.shape[1]
            full = torch.full((codes.shape[0],), count, device=codes.device) if lengths is None else lengths
            mask = self._at_frames(full, count, chunk, prompt)
        velocity: Tensor = self.estimator(x, mu, t, affine, cond, mask)
        return velocity

    def loss(
        self,
        mel: Tensor,
        codes: Tensor,
        lengths: Tensor,
        speaker: Tensor,
        prompt: Tensor,
        *,
        chunk: int | Sequence[int] | None = None,
        drop: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Flow-matching loss (scalar): squared error of the velocity, mean over valid frames and channels.

        `mel` [B, 2 N, 80] the target; `codes` int [B, N]; `lengths` and `prompt` int [B] in codes (the first
        `prompt` codes' mel is given as the known prompt); `chunk` as in `chunk_mask`; `drop` the chance to
        drop the conditions (0 when the model will run without guidance).
        """
        batch, device = mel.shape[0], mel.device
        t = 1 - torch.cos(torch.rand(batch, generator=generator, device=device) * 0.5 * math.pi)
        keep = torch.rand(batch, generator=generator, device=device) >= drop
        noise = torch.randn(mel.shape, generator=generator, device=device)
        at = t.view(-1, 1, 1)
        x = (1 - (1 - SIGMA_MIN) * at) * noise + at * mel
        frame = torch.arange(mel.shape[1], device=device)
        cond = mel * (frame < prompt.unsqueeze(1) * FRAMES_PER_CODE).unsqueeze(2)
        velocity: Tensor = self(x, t, codes, speaker, lengths, cond, keep=keep, chunk=chunk, prompt=prompt)
        error = (velocity - (mel - (1 - SIGMA_MIN) * noise)).square()
        valid = (frame < lengths.unsqueeze(1) * FRAMES_PER_CODE).unsqueeze(2).to(error.dtype)
        return torch.sum(error * valid) / (valid.sum() * mel.shape[2])

    @torch.no_grad()
    def offline(
        self,
        prompt_codes: Tensor,
        prompt_mel: Tensor,
        speaker: Tensor,
        codes: Tensor,
        noise: Tensor,
        *,
        steps: int = 10,
        cfg: float | None = None,
    ) -> Tensor:
        """The whole reply in one bidirectional pass: its mel [1, 2 N, 80].

        `prompt_codes` int [1, P], `prompt_mel` [1, 2 P, 80], `speaker` [1, 192], `codes` int [1, N],
        `noise` [1, at least 2 (P + N), 80]; `cfg` None takes the rate of the checkpoint.
        """
        mu = self.encode(torch.cat([prompt_codes, codes], 1))
        known = prompt_mel.shape[1]
        cond = F.pad(prompt_mel, (0, 0, 0, mu.shape[1] - known))
        estimator = self.estimator
        condition = estimator.condition(mu, self.speaker(speaker), cond)
        rate = self.config.inference_cfg_rate if cfg is None else cfg
        if rate:
            condition = torch.cat([condition, self.unconditional(condition)])
        x, at = noise[:, : mu.shape[1]], time_steps(steps, mu.device)
        for i in range(steps):
            modulations = estimator.modulations(at[i : i + 1])
            velocity, _ = estimator.velocity(x, condition, modulations)
            x = x + (at[i + 1] - at[i]) * guided(velocity, rate)
        return x[:, known:]

    def unconditional(self, condition: Tensor) -> Tensor:
        """The condition of the guidance's unconditional pass (all inputs zero), shaped as `condition`."""
        return self.estimator.in_proj.bias.expand_as(condition)


def guided(velocity: Tensor, rate: float) -> Tensor:
    """Classifier-free guidance: (1 + rate) conditional - rate unconditional; [2 B, T, 80] -> [B, T, 80].

    With rate 0 there is no unconditional half and the velocity is the answer as it is.
    """
    if not rate:
        return velocity
    conditional, unconditional = velocity.chunk(2)
    return (1 + rate) * conditional - rate * unconditional
