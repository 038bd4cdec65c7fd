"""Stage two: ``torchrun --nproc-per-node 2 -m model_runtime.training.language_model --work DIR``.

The backbone learns to answer from the rows the adaptor makes. The hearing half stands still at first; then
it learns on, with a smaller step and with its phones and intents kept as further losses, so that it does
not forget to hear.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from model_runtime.thinking.backbone import Backbone, BackboneConfig
from model_runtime.training.conversations import Conversation, HeardTurn, Writer
from model_runtime.training.encoder import NANO, WEIGHTS, batches, examine
from model_runtime.training.hearer import HIDDEN, Batch, Hearer, collate, hearing_losses
from model_runtime.training.hearings import Said, heard_on_the_test_line, read, shards
from model_runtime.training.stage import Stage, autocast
from model_runtime.training.texts import REFUSE, shop

LAYERS, HEADS, KV_HEADS, FEED_FORWARD, POSITIONS = 5, 4, 2, 640, 2560  # half of it: what it was taught
DECIDED = 8  # groups after which an answer is told from every other by its text
LONG = 12  # turns of a long call: what the engine keeps before it lets the oldest go
EXAMINE_S = 400.0
ANSWERS = Path(__file__).with_name("runs") / "answers.json"


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
        with autocast():
            scores = backbone.logits(backbone.hidden(embeddings).flatten(0, 1)[at])
        loss = loss + (F.cross_entropy(scores.float(), ids, reduction="none") * weights).sum()
        weight += float(weights.sum())
        hits += float((scores.detach().argmax(-1) == ids).float().sum())
        count += len(ids)
    return loss / max(weight, 1.0), hits / max(count, 1)


def plan(
    batch: Batch, counts: Tensor, writer: Writer, draw: random.Random, brief: float
) -> list[Conversation]:
    """The batch's utterances dealt out as calls of one to twelve turns."""
    heard = [
        HeardTurn(index, int(count), h.intent)
        for index, (h, count) in enumerate(zip(batch.hearings, counts.tolist(), strict=True))
        if count > 0
    ]
    draw.shuffle(heard)
    turns = draw.choice([2, 4, 6, LONG, LONG])  # the longer, the less of the work is instructions
    return [writer.conversation(heard[at : at + turns], draw, brief) for at in range(0, len(heard), turns)]


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
    hearer: Hearer, backbone: Backbone, writer: Writer, said: Sequence[Said], noisy: bool
) -> dict[str, float]:
    """Share of questions answered with the right words, and of the rest refused."""
    draw = np.random.default_rng(9)
    right: dict[bool, list[bool]] = {True: [], False: []}
    for number, one in enumerate(said):
        batch = collate([heard_on_the_test_line(one, draw, noisy)])
        heard = hearer(batch.mel, batch.lengths)
        greeted = number % 2 == 0
        talk = writer.prompt(HeardTurn(0, int(heard.count[0]), one.intent), greeted=greeted)
        wanted = shop().answer(one.intent, shop().greeting if greeted else "")
        groups = min(DECIDED, len(writer.encode(wanted)))
        ids = answered(backbone, talk, heard.rows, [writer.tokens.tts_end, writer.tokens.eot], 5 * groups)
        text = writer.tokenizer.decode(
            [i for i in ids[::5] if i != writer.tokens.tts_pad], skip_special_tokens=True
        )
        right[one.intent == REFUSE].append(
            text.strip() == writer.tokenizer.decode(writer.encode(wanted)[:groups])
        )
    mean = {refused: sum(hits) / max(1, len(hits)) for refused, hits in right.items()}
    return {"right": round(mean[False], 3), "refused": round(mean[True], 3)}


def from_nano(backbone: Backbone) -> None:
    """The thinking half of the shipped checkpoint."""
    shipped = load_file(NANO / "model.safetensors")
    backbone.load_state_dict({name: shipped[name].float() for name in backbone.state_dict()})


def main() -> None:
    """Command line."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument(
        "--work", type=Path, required=True, help="as the encoder's; receives language_model.pt"
    )
    parse.add_argument("--answers", type=Path, default=ANSWERS, help="JSON: audio codes by text")
    parse.add_argument("--minutes", type=float, default=45.0)
    parse.add_argument("--frozen", type=float, default=10.0, help="minutes before the hearing half learns on")
    parse.add_argument(
        "--brief", type=float, default=0.6, help="share of answers of which only the beginning is learnt"
    )
    parse.add_argument("--every", type=int, default=1, help="then, how many hearing steps to one of speech")
    parse.add_argument("--from-nano", action="store_true", help="begin from the shipped weights")
    parse.add_argument("--rate", type=float, default=1.2e-3)
    parse.add_argument("--hearing-rate", type=float, default=4e-4)
    parse.add_argument("--seed", type=int, default=1)
    args = parse.parse_args()
    writer = Writer(NANO / "tokenizer.json", args.answers)
    hearer, backbone = Hearer(), new_backbone(writer.tokenizer.get_vocab_size())
    hearer.load_state_dict(torch.load(args.work / "encoder.pt", weights_only=True)["averages"]["hearer"])
    if args.from_nano:
        from_nano(backbone)
    stage = Stage(
        "language_model", args.work, {"backbone": backbone, "hearer": hearer},
        {"backbone": args.rate, "hearer": args.hearing_rate}, args.minutes, args.seed,
    )  # fmt: skip
    seed = args.seed + 1000 * stage.rank + stage.step
    draw = random.Random(seed)
    dev = {kind: read(args.work / "dev", f"{kind}-*.npz") for kind in ("known", "new")}
    examined = stage.used
    for shard in shards(args.work / "train", seed, done=10_000):
        for group in batches(shard, draw):
            joint = stage.used > args.frozen * 60
            ready = min(1.0, (stage.used - args.frozen * 60) / 60) if joint else 0.0
            batch = collate(group, draw)
            with torch.set_grad_enabled(joint), autocast():
                heard = hearer(batch.mel, batch.lengths)
            loss, told = torch.zeros(()), {}
            if not joint or stage.step % args.every == 0:
                talks = plan(batch, heard.count, writer, draw, args.brief)
                loss, told["right"] = speech_loss(backbone, talks, heard.rows)
                told["speech"] = float(loss.detach())
            if joint:
                losses = hearing_losses(heard, batch)
                told |= {key: float(one.detach()) for key, one in losses.items()}
                loss = loss + sum((WEIGHTS[key] * losses[key] for key in losses), torch.zeros(()))
            if not stage.learn(loss, told, {"hearer": ready}):
                continue
            found: dict[str, object] = {}
            if stage.done or stage.used - examined > EXAMINE_S:
                examined = stage.used
                ears, mind = stage.averages["hearer"], stage.averages["backbone"]
                assert isinstance(ears, Hearer)
                assert isinstance(mind, Backbone)
                if stage.rank == 0:
                    found["known-phone"] = interview(ears, mind, writer, dev["known"][:80], True)
                    found["known"] = interview(ears, mind, writer, dev["known"][:80], False)
                    found["new-phone"] = interview(ears, mind, writer, dev["new"][:40], True)
                    found["heads-phone"] = examine(ears, dev["known"], True)
            stage.tell(**found)
            if stage.done:
                return


if __name__ == "__main__":
    main()
