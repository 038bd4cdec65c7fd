"""The flow in a stream: codes come in, mel frames go out in chunks, the past is remembered.

`FlowPlan` holds what depends on the weights and the solver's settings alone and is computed once: the
modulations of the fixed time steps and the projected position tables. `FlowMemory` is one moment of one
stream. A chunk makes a new moment and leaves the old one as it was, so a moment may be shared: all streams of
a voice start from the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from model_runtime.speaking.conformer import EncoderState, PositionTables
from model_runtime.speaking.dit import Convs
from model_runtime.speaking.flow import FRAMES_PER_CODE, Flow, guided, time_steps
from model_runtime.speaking.memory import Everything, KeyValue, Recent, ReferenceOrder, Rule, length


class Noise(Protocol):
    """Where a stream's noise comes from."""

    def frames(self, offset: int, count: int) -> Tensor:
        """Standard normal [1, count, 80] for frames of the stream; `offset` counts the remembered frames."""
        ...


class FlowPlan:
    """A flow made ready for inference with a number of solver steps and a guidance rate."""

    def __init__(self, flow: Flow, steps: int = 10, cfg: float | None = None) -> None:
        """`steps` of the solver; `cfg` None takes the guidance rate of the checkpoint."""
        self.flow = flow
        self.cfg = flow.config.inference_cfg_rate if cfg is None else cfg
        self.steps = steps
        at = time_steps(steps, flow.encoder_proj.weight.device)
        self.widths: list[float] = at.diff().tolist()
        with torch.no_grad():
            self.modulations = [flow.estimator.modulations(at[i : i + 1]) for i in range(steps)]
        self.tables = PositionTables(flow.encoder)
        self.lookahead = flow.config.encoder.pre_lookahead_len


@dataclass(frozen=True)
class FlowMemory:
    """What a stream remembers at one moment."""

    frames: int  # remembered by the estimator's attention
    encoder: EncoderState
    convs: tuple[tuple[Convs, ...], ...]  # [step][block], of the last chunk
    encoder_own: tuple[KeyValue, ...]  # [layer], since the prompt (or with it, see `FlowRules.shared_prompt`)
    blocks_own: tuple[tuple[KeyValue, ...], ...]  # [step][block]


@dataclass(frozen=True)
class FlowRules:
    """What the layers of a stream remember, for a prompt of a given length."""

    encoder: Rule
    up_encoder: Rule
    blocks: Rule
    shared_prompt: bool  # the prompt is kept apart and whole

    @classmethod
    def recent(cls, tail: int) -> FlowRules:
        """The whole prompt and the last `tail` frames of the reply, in encoder and estimator alike."""
        codes = tail // FRAMES_PER_CODE
        return cls(Recent(codes), Recent(codes * FRAMES_PER_CODE), Recent(tail), True)

    @classmethod
    def reference(cls, prompt: int, tail: int) -> FlowRules:
        """The reference implementation's rules, for a prompt of `prompt` frames."""
        return cls(Everything(), Everything(), ReferenceOrder(prompt, tail), False)

    @classmethod
    def whole(cls) -> FlowRules:
        """Forget nothing: how a prompt is taken in."""
        return cls(Everything(), Everything(), Everything(), False)


class FlowStream:
    """One reply's flow: all of its state is here, the plan and the prompt are only read."""

    def __init__(
        self,
        plan: FlowPlan,
        speaker: Tensor,
        rules: FlowRules,
        noise: Noise,
        prompt: FlowMemory | None = None,
    ) -> None:
        """`speaker` [1, 80]; without a `prompt` the stream begins with nothing (how a prompt is taken in)."""
        self._plan = plan
        self._speaker = speaker  # [1, 80]
        self._rules = rules
        self._noise = noise
        self._prompt = prompt
        self._memory = prompt

    @property
    def memory(self) -> FlowMemory | None:
        """The present moment; a new stream may begin from it."""
        return self._memory

    @torch.inference_mode()
    def push(self, codes: Sequence[int] | Tensor, cond: Tensor | None = None, last: bool = False) -> Tensor:
        """Render a chunk: n codes and, unless `last`, the look-ahead's codes after them, to mel [1, 2 n, 80].

        `cond` [1, 2 n, 80] is the known mel of a prompt's chunk; a reply has none.
        """
        plan, flow, memory = self._plan, self._plan.flow, self._memory
        device = flow.encoder_proj.weight.device
        ids = torch.as_tensor(codes, dtype=torch.long, device=device).view(1, -1)
        fixed = self._prompt if self._rules.shared_prompt else None
        own = None if memory is fixed else memory  # what came after the shared prompt

        h, encoder = flow.encoder.chunk(
            flow.input_embedding(ids),
            None if memory is None else memory.encoder,
            _pieces(None if fixed is None else fixed.encoder_own, None if own is None else own.encoder_own),
            last=last,
            tables=plan.tables,
        )
        condition = flow.estimator.condition(flow.encoder_proj(h), self._speaker, cond)
        if plan.cfg:
            condition = torch.cat([condition, flow.unconditional(condition)])
        x = self._noise.frames(0 if memory is None else memory.frames, h.shape[1]).to(device)
        convs: list[tuple[Convs, ...]] = []
        owned: list[tuple[KeyValue, ...]] = []
        for step, width in enumerate(plan.widths):
            mine = None if own is None else own.blocks_own[step]
            velocity, states = flow.estimator.velocity(
                x,
                condition,
                plan.modulations[step],
                before=() if memory is None else memory.convs[step],
                past=_pieces(None if fixed is None else fixed.blocks_own[step], mine),
            )
            x = x + width * guided(velocity, plan.cfg)
            # Cloned: a view of two frames would keep the whole chunk alive.
            convs.append(tuple((s.convs[0].clone(), s.convs[1].clone()) for s in states))
            owned.append(_grown([self._rules.blocks] * len(states), mine, [state.pair for state in states]))
        depth, up_depth = len(flow.encoder.encoders), len(flow.encoder.up_encoders)
        rules = [self._rules.encoder] * depth + [self._rules.up_encoder] * up_depth
        kept = _grown(rules, None if own is None else own.encoder_own, encoder.layers)
        frames = length(owned[0][:1]) + (0 if fixed is None else fixed.frames)
        self._memory = FlowMemory(frames, encoder, tuple(convs), kept, tuple(owned))
        return x


def _pieces(
    shared: Sequence[KeyValue] | None, own: Sequence[KeyValue] | None
) -> Sequence[Sequence[KeyValue]]:
    """For each layer the remembered pieces: the shared one, then the stream's own."""
    present = [layers for layers in (shared, own) if layers is not None]
    return list(zip(*present, strict=True))


def _grown(
    rules: Sequence[Rule], own: Sequence[KeyValue] | None, new: Sequence[KeyValue]
) -> tuple[KeyValue, ...]:
    """What each layer remembers after a chunk."""
    before: Sequence[KeyValue | None] = [None] * len(new) if own is None else own
    return tuple(rule.grow(old, pair) for rule, old, pair in zip(rules, before, new, strict=True))
