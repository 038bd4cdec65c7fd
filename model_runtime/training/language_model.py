"""Stage two of nano's hearing: ``python -m model_runtime.training.language_model --work DIR --answers FILE``.

The backbone learns to answer from the rows the adaptor makes. The hearing half stands still at first; then
it learns on, with a smaller step and with its letters and intents kept as further losses, so that it does
not forget to hear.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from model_runtime.thinking.backbone import Backbone, BackboneConfig
from model_runtime.training.conversations import Conversation, Heard, Writer
from model_runtime.training.encoder import (
    HIDDEN,
    Batch,
    Hearer,
    batches,
    collate,
    examine,
    word_errors,
)
from model_runtime.training.hearings import Hearing, Said, mel_of, over_the_test_line, read, shards
from model_runtime.training.texts import REFUSE, shop

LAYERS, HEADS, KV_HEADS, FEED_FORWARD, POSITIONS = 5, 4, 2, 640, 1280  # half of it: what it was taught
DECIDED = 8  # groups after which an answer is told from every other by its text
NANO = Path(__file__).parents[1] / "checkpoints" / "nano"


def new_backbone(vocabulary: int) -> Backbone:
    """Nano's backbone with fresh weights."""
    config = BackboneConfig(
        vocabulary, HIDDEN, FEED_FORWARD, LAYERS, HEADS, KV_HEADS, HIDDEN // HEADS, POSITIONS, 1e-6, 1e6
    )
    model = Backbone(config)
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            depth = (2 * LAYERS) ** -0.5 if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
            torch.nn.init.normal_(
                weight, std=depth * (0.02 if "embed" in name or "head" in name else HIDDEN**-0.5)
            )
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=0.5)  # of the size of the adaptor's rows
    return model


def laid_out(
    talks: Sequence[Conversation], rows: Tensor, backbone: Backbone
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Embeddings [B, T, hidden], and of every target: its place in [B * T], its id and its weight."""
    length = max(len(talk.ids) for talk in talks)
    ids = torch.zeros(len(talks), length, dtype=torch.long)
    weights = torch.zeros(len(talks), length)
    places, sources = [], []
    for at, talk in enumerate(talks):
        ids[at, : len(talk.ids)] = torch.tensor(talk.ids)
        weights[at, : len(talk.ids)] = torch.tensor(talk.weights)
        for position, index, count in talk.slots:
            places.append(torch.arange(count) + at * length + position)
            sources.append(torch.arange(count) + index * rows.shape[1])
    flat = backbone.embed(ids).flatten(0, 1)
    if places:
        flat = flat.index_copy(0, torch.cat(places), rows.flatten(0, 1)[torch.cat(sources)].to(flat.dtype))
    wanted = weights[:, 1:].flatten().nonzero().flatten()
    before = wanted + wanted // (length - 1)  # a target is predicted from the position before it
    return (
        flat.unflatten(0, ids.shape),
        before,
        ids[:, 1:].flatten()[wanted],
        weights[:, 1:].flatten()[wanted],
    )


def speech_loss(backbone: Backbone, talks: Sequence[Conversation], rows: Tensor) -> tuple[Tensor, float]:
    """Weighted cross-entropy of all targets, and the share of them predicted right.

    Long and short conversations go through apart, so that little of the work is padding.
    """
    ordered = sorted(talks, key=lambda talk: len(talk.ids))
    middle = next((at for at, talk in enumerate(ordered) if len(talk.ids) > 0.55 * len(ordered[-1].ids)), 0)
    loss, weight, hits, count = torch.zeros(()), 0.0, 0.0, 0
    for part in (ordered[:middle], ordered[middle:]):
        if not part:
            continue
        embeddings, at, ids, weights = laid_out(part, rows, backbone)
        with torch.autocast("cpu", torch.bfloat16):
            scores = backbone.logits(backbone.hidden(embeddings).flatten(0, 1)[at])
        loss = loss + (F.cross_entropy(scores.float(), ids, reduction="none") * weights).sum()
        weight += float(weights.sum())
        hits += float((scores.detach().argmax(-1) == ids).float().sum())
        count += len(ids)
    return loss / max(weight, 1.0), hits / max(count, 1)


def told_by_mean(hearer: Hearer, rows: Tensor, counts: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the intent from the plain mean of the rows [B, N, hidden], by the pooled head.

    A backbone that attends evenly, as a fresh one does, then has the answer before it: it need not first
    learn where to look. Twenty steps are enough to move the intent from the pooled rows into their mean.
    """
    valid = (torch.arange(rows.shape[1]) < counts[:, None]).float()[..., None]
    mean = (rows * valid).sum(1) / valid.sum(1).clamp(min=1)
    return F.cross_entropy(hearer.intent(mean.repeat(1, 4)), labels, label_smoothing=0.05)


def plan(
    batch: Batch, counts: Tensor, writer: Writer, draw: random.Random, brief: float, transcribe: float
) -> list[Conversation]:
    """The batch's utterances dealt out: calls of one to four turns, and some to be written down."""
    heard = [
        Heard(index, int(count), h.intent, h.words)
        for index, (h, count) in enumerate(zip(batch.heard, counts.tolist(), strict=True))
        if count > 0
    ]
    draw.shuffle(heard)
    turns = draw.choice([1, 1, 2, 2, 3, 4])
    talks = [writer.conversation(heard[at : at + turns], draw, brief) for at in range(0, len(heard), turns)]
    talks += [writer.transcription(one) for one in heard if draw.random() < transcribe]
    return talks


@torch.inference_mode()
def answered(
    backbone: Backbone,
    talk: Conversation,
    rows: Tensor,
    stop: Sequence[int],
    limit: int,
    temperature: float = 0.0,
) -> list[int]:
    """The ids written after that prompt, greedily or drawn at a temperature."""
    embeddings, _, _, _ = laid_out(
        [Conversation(talk.ids, [0.0] * len(talk.ids), talk.slots)], rows, backbone
    )
    cache = backbone.new_cache(len(talk.ids) + limit + 1)
    hidden = backbone.extend(cache, embeddings[0])
    ids: list[int] = []
    while len(ids) < limit:
        scores = backbone.logits(hidden[-1])
        drawn = (
            scores.argmax()
            if temperature == 0
            else torch.multinomial((scores / temperature).softmax(-1), 1)[0]
        )
        if int(drawn) in stop:
            break
        ids.append(int(drawn))
        hidden = backbone.extend(cache, backbone.embed(drawn[None]))
    return ids


@torch.inference_mode()
def interview(
    hearer: Hearer,
    backbone: Backbone,
    writer: Writer,
    said: list[Said],
    noisy: bool,
    temperature: float = 0.0,
) -> dict[str, float]:
    """Share of questions answered with the right words, of the rest refused, and the transcripts' word error
    rate.
    """
    draw = np.random.default_rng(9)
    hearer.eval()
    right: dict[bool, list[bool]] = {True: [], False: []}
    errors = words = 0
    for number, one in enumerate(said):
        wave = (
            over_the_test_line(one.wave, draw) if noisy else np.pad(one.wave, (3200, 6400)).astype(np.float32)
        )
        batch = collate([Hearing(mel_of(wave), one.words, one.intent)])
        _, _, _, rows, count = hearer(batch.mel, batch.lengths)
        heard = Heard(0, int(count[0]), one.intent, one.words)
        talk = writer.prompt(heard, greeted=number % 2 == 0)
        wanted = shop().answer(one.intent, shop().greeting if number % 2 == 0 else "")
        groups = min(
            DECIDED, len(writer.encode(wanted))
        )  # no two answers begin with the same words for as long
        ids = answered(
            backbone, talk, rows, [writer.tokens.tts_end, writer.tokens.eot], 5 * groups, temperature
        )
        text = writer.tokenizer.decode(
            [i for i in ids[::5] if i != writer.tokens.tts_pad], skip_special_tokens=True
        )
        right[one.intent == REFUSE].append(
            text.strip() == writer.tokenizer.decode(writer.encode(wanted)[:groups])
        )
        if number % 4 == 0 and one.intent != REFUSE:
            talk = writer.transcription(heard)
            at = next(i for i, w in enumerate(talk.weights) if w)
            talk = Conversation(talk.ids[:at], talk.weights[:at], talk.slots)
            told = writer.tokenizer.decode(answered(backbone, talk, rows, [writer.tokens.eot], 30))
            errors += word_errors(one.words, told)
            words += len(one.words.split())
    hearer.train()
    mean = {refused: sum(hits) / max(1, len(hits)) for refused, hits in right.items()}
    return {
        "right": round(mean[False], 3),
        "refused": round(mean[True], 3),
        "wer": round(errors / max(1, words), 3),
    }


def main() -> None:
    """Command line."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument(
        "--work", type=Path, required=True, help="as the encoder's; receives language_model.pt"
    )
    parse.add_argument("--answers", type=Path, required=True, help="JSON: audio codes by text")
    parse.add_argument("--minutes", type=float, default=45.0)
    parse.add_argument("--frozen", type=float, default=10.0, help="minutes before the hearing half learns on")
    parse.add_argument("--hear-anew", action="store_true", help="take the hearing half from encoder.pt again")
    parse.add_argument("--every", type=int, default=2, help="then, how many hearing steps to one of speech")
    parse.add_argument("--rate", type=float, default=1.2e-3)
    parse.add_argument("--hearing-rate", type=float, default=4e-4)
    parse.add_argument("--seed", type=int, default=1)
    args = parse.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    draw = random.Random(args.seed)
    writer = Writer(NANO / "tokenizer.json", args.answers)
    hearer, backbone = Hearer(), new_backbone(writer.tokenizer.get_vocab_size())
    hearing = [p for p in hearer.parameters() if p.requires_grad]
    thinking = list(backbone.parameters())
    optimiser = torch.optim.AdamW(
        [{"params": thinking}, {"params": hearing}], args.rate, betas=(0.9, 0.98), weight_decay=0.02
    )
    state_file, stop_file = args.work / "language_model.pt", args.work / "language_model.stop"
    log_file = args.work / "language_model.jsonl"
    step, used, saved, examined = 0, 0.0, 0.0, 0.0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        hearer.load_state_dict(state["hearer"])
        backbone.load_state_dict(state["backbone"])
        optimiser.load_state_dict(state["optimiser"])
        step, used = state["step"], state["used"]
        saved = examined = used
    if args.hear_anew or not state_file.exists():
        hearer.load_state_dict(torch.load(args.work / "encoder.pt", weights_only=True)["model"])
    dev = {kind: read(args.work / "dev", f"{kind}-*.npz") for kind in ("known", "new")}
    tick, done = time.monotonic(), False
    mean = [8.0, 0.0, 1.0]
    for shard in shards(args.work / "train", args.seed + step, done=10_000, reuse=2):
        for group in batches(shard, draw):
            part = min(1.0, used / (args.minutes * 60))
            joint = used > args.frozen * 60
            fall = min(1.0, (step + 1) / 150) * max(0.02, 1 - part)
            ready = min(1.0, (used - args.frozen * 60) / 60) if joint else 0.0
            for settings, rate in zip(optimiser.param_groups, (args.rate, args.hearing_rate), strict=True):
                settings["lr"] = rate * fall * (1.0 if rate == args.rate else ready)
            batch = collate(group)
            with (
                torch.set_grad_enabled(joint),
                torch.autocast("cpu", torch.bfloat16),
                sdpa_kernel(SDPBackend.MATH),
            ):
                letters, frames, scores, rows, counts = hearer(batch.mel, batch.lengths)
            loss, spoken, right, ctc_now = torch.zeros(()), mean[0], mean[1], mean[2]
            if not joint or step % args.every == 0:
                talks = plan(batch, counts, writer, draw, 0.5 if part < 0.15 else 0.85, 0.12)
                loss, right = speech_loss(backbone, talks, rows.float())
                spoken = float(loss.detach())
            if joint:
                ctc = F.ctc_loss(
                    letters.float().log_softmax(-1).transpose(0, 1), batch.letters, frames, batch.counts,
                    reduction="none", zero_infinity=True,
                )  # fmt: skip
                ctc = (ctc / batch.counts.clamp(min=8)).mean()
                ctc_now = float(ctc.detach())
                kind = F.cross_entropy(scores.float(), batch.labels, label_smoothing=0.05)
                loss = loss + ctc + kind + 0.5 * told_by_mean(hearer, rows.float(), counts, batch.labels)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(thinking, 1.0)
            torch.nn.utils.clip_grad_norm_(hearing, 1.0)
            optimiser.step()
            step += 1
            mean = [0.98 * old + 0.02 * new for old, new in zip(mean, (spoken, right, ctc_now), strict=True)]
            used, tick = used + time.monotonic() - tick, time.monotonic()
            done = used > args.minutes * 60 or stop_file.exists()
            if used - saved > 100 or done:
                saved = used
                half = state_file.with_suffix(".half")
                torch.save(
                    {
                        "hearer": hearer.state_dict(), "backbone": backbone.state_dict(),
                        "optimiser": optimiser.state_dict(), "step": step, "used": used,
                    },
                    half,
                )  # fmt: skip
                half.rename(state_file)
            if step % 50 == 0 or done:
                line: dict[str, object] = {
                    "step": step,
                    "min": round(used / 60, 2),
                    "loss": round(mean[0], 3),
                    "right": round(mean[1], 3),
                    "ctc": round(mean[2], 3),
                    "lr": round(optimiser.param_groups[0]["lr"], 6),
                }
                if used - examined > 400 or done:
                    examined = used
                    line["known-phone"] = interview(hearer, backbone, writer, dev["known"][:80], True)
                    line["new-phone"] = interview(hearer, backbone, writer, dev["new"][:40], True)
                    line["heads-phone"] = examine(hearer, dev["known"], True)
                    tick = time.monotonic()
                print(json.dumps(line), flush=True)
                with log_file.open("a") as log:
                    log.write(json.dumps(line) + "\n")
            if done:
                return


if __name__ == "__main__":
    main()
