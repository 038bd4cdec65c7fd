"""The flow in a stream: codes come in, mel frames go out in chunks, the past is remembered.

`FlowPlan` holds what depends on the weights and the solver's settings alone and is computed once: the
modulations of the fixed time steps and the projected position tables. `FlowMemory` is one moment of one
stream. A chunk makes a new moment and leaves the old one as it was, so a moment may be shared: all streams of
a voice start from the same one.

Chunks of several streams that are of one shape are rendered in one pass (`render`): what each stream
remembers is laid side by side, and comes apart again afterwards.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
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

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes. One block of one step is looked at: they are all alike."""
        blocks = len(self.convs) * len(self.convs[0])
        block = (*self.convs[0][0], *self.blocks_own[0][0])
        layers = (part for pair in (*self.encoder.layers, *self.encoder_own) for part in pair)
        encoder = (self.encoder.lookahead, self.encoder.upsample, *layers)
        return blocks * sum(part.nbytes for part in block) + sum(part.nbytes for part in encoder)


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

    @property
    def nbytes(self) -> int:
        """Memory held beside the prompt, in bytes; any thread."""
        memory = self._memory
        return 0 if memory is None or memory is self._prompt else memory.nbytes

    def push(self, codes: Sequence[int] | Tensor, cond: Tensor | None = None, last: bool = False) -> Tensor:
        """Render a chunk: n codes and, unless `last`, the look-ahead's codes after them, to mel [1, 2 n, 80].

        `cond` [1, 2 n, 80] is the known mel of a prompt's chunk; a reply has none.
        """
        return render([self], [codes], last, cond)[0]

    def shape(self, count: int, last: bool) -> Hashable:
        """Streams in which this is equal can be rendered together; `count` codes come, with look-ahead."""
        lengths = [
            (length(m.encoder_own[:1]), length(m.encoder_own[-1:]), length(m.blocks_own[0][:1]))
            for m in self._pasts()
        ]
        return id(self._plan), count, last, self._memory is None, tuple(lengths)

    def _pasts(self) -> list[FlowMemory]:
        """What is remembered: the shared prompt, then what came after it."""
        fixed = self._prompt if self._rules.shared_prompt else None
        own = None if self._memory is fixed else self._memory
        return [m for m in (fixed, own) if m is not None]

    def _remember(
        self, encoder: EncoderState, convs: tuple[tuple[Convs, ...], ...], blocks: list[list[KeyValue]]
    ) -> None:
        """The moment after a chunk; `blocks` [step][block] are its keys and values."""
        fixed = self._prompt if self._rules.shared_prompt else None
        own = None if self._memory is fixed else self._memory
        owned = tuple(
            _grown([self._rules.blocks] * len(pairs), None if own is None else own.blocks_own[step], pairs)
            for step, pairs in enumerate(blocks)
        )
        depth = len(self._plan.flow.encoder.encoders)
        up_depth = len(self._plan.flow.encoder.up_encoders)
        rules = [self._rules.encoder] * depth + [self._rules.up_encoder] * up_depth
        kept = _grown(rules, None if own is None else own.encoder_own, encoder.layers)
        frames = length(owned[0][:1]) + (0 if fixed is None else fixed.frames)
        self._memory = FlowMemory(frames, encoder, convs, kept, owned)


@torch.inference_mode()
def render(
    streams: Sequence[FlowStream],
    codes: Sequence[Sequence[int] | Tensor],
    last: bool = False,
    cond: Tensor | None = None,
) -> list[Tensor]:
    """One chunk of each stream in one pass; see `FlowStream.push` for what each gives.

    Their `shape` must be the same. Rounding apart, each gets what it would get alone.
    """
    plan, flow, count = streams[0]._plan, streams[0]._plan.flow, len(streams)
    device = flow.encoder_proj.weight.device
    ids = torch.stack([torch.as_tensor(one, dtype=torch.long, device=device).view(-1) for one in codes])
    moments = [memory for stream in streams if (memory := stream._memory) is not None]
    before = None
    if moments:
        before = EncoderState(
            _together([m.encoder.lookahead for m in moments]),
            _together([m.encoder.upsample for m in moments]),
            (),
        )
    pasts = [stream._pasts() for stream in streams]
    h, encoder = flow.encoder.chunk(
        flow.input_embedding(ids),
        before,
        _pieces([[memory.encoder_own for memory in past] for past in pasts]),
        last=last,
        tables=plan.tables,
    )
    condition = flow.estimator.condition(
        flow.encoder_proj(h), torch.cat([stream._speaker for stream in streams]), cond
    )
    if plan.cfg:
        condition = torch.cat([condition, flow.unconditional(condition)])
    frames = [
        stream._noise.frames(0 if stream._memory is None else stream._memory.frames, h.shape[1])
        for stream in streams
    ]
    x = torch.cat(frames).to(device)
    convs: list[list[list[Convs]]] = [[] for _ in streams]  # [stream][step][block]
    blocks: list[list[list[KeyValue]]] = [[] for _ in streams]
    for step, width in enumerate(plan.widths):
        velocity, states = flow.estimator.velocity(
            x.repeat(len(condition) // count, 1, 1),
            condition,
            plan.modulations[step],
            before=[_pair([m.convs[step][at] for m in moments]) for at in range(len(flow.estimator.blocks))]
            if moments
            else (),
            past=_pieces([[memory.blocks_own[step] for memory in past] for past in pasts]),
        )
        x = x + width * guided(velocity, plan.cfg)
        for at in range(count):
            # Cloned: a view of two frames would keep the whole chunk alive.
            convs[at].append([_own(state.convs, at, count, clone=True) for state in states])
            blocks[at].append([_own(state.pair, at, count) for state in states])
    for at, stream in enumerate(streams):
        left = EncoderState(
            encoder.lookahead[at : at + 1].clone(),
            encoder.upsample[at : at + 1].clone(),
            tuple(_own(pair, at, count) for pair in encoder.layers),
        )
        stream._remember(left, tuple(tuple(one) for one in convs[at]), blocks[at])
    return list(x.split(1))


def _together(parts: Sequence[Tensor]) -> Tensor:
    """Streams' tensors [G, ...] side by side, [G N, ...]: all conditional parts first, as for `guided`."""
    return parts[0] if len(parts) == 1 else torch.stack(list(parts), 1).flatten(0, 1)


def _pair(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return _together([one for one, _ in pairs]), _together([other for _, other in pairs])


def _own(pair: tuple[Tensor, Tensor], at: int, count: int, clone: bool = False) -> tuple[Tensor, Tensor]:
    """One stream's part of what `_together` joined."""
    one, other = pair[0][at::count], pair[1][at::count]
    return (one.clone(), other.clone()) if clone or count > 1 else (one, other)


def _pieces(pasts: Sequence[Sequence[Sequence[KeyValue]]]) -> list[list[KeyValue]]:
    """[stream][piece][layer] to, for each layer, the remembered pieces of all streams side by side."""
    pieces = [
        [_pair(layer) for layer in zip(*same, strict=True)]  # [layer]
        for same in zip(*pasts, strict=True)  # [stream][layer]
    ]
    return [list(layer) for layer in zip(*pieces, strict=True)]


def _grown(
    rules: Sequence[Rule], own: Sequence[KeyValue] | None, new: Sequence[KeyValue]
) -> tuple[KeyValue, ...]:
    """What each layer remembers after a chunk."""
    before: Sequence[KeyValue | None] = [None] * len(new) if own is None else own
    return tuple(rule.grow(old, pair) for rule, old, pair in zip(rules, before, new, strict=True))
