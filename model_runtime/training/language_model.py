"""Stage two: ``torchrun --nproc-per-node 2 -m model_runtime.training.language_model --work DIR``.

The backbone learns to answer from the rows the adaptor makes; the hearing half stands still. What is hard is
to decide which answer it is, and that is said by an answer's first piece of text (see `tokenizer`): half of
the steps teach no more, so that many more questions are answered in the time. A head that is thrown away
afterwards asks for the intent where the answer begins.

What it is to answer is not what was said but what the ears make of it (`Hearer.scores`), and how likely each
answer is, as in distillation (Hinton et al. 2015). Of the training voices they tell nearly everything,
clearly, so a backbone taught by what was said never meets a doubtful question, and is surest of its wrong
answers where a stranger's voice leaves the ears in doubt. Blended with others, hearings are as doubtful as
one likes, and what the ears make of the blend is still known.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from model_runtime.thinking.backbone import Backbone, BackboneConfig
from model_runtime.training.conversations import (
    DECIDED_GROUPS,
    GOODBYE,
    HANG_UP,
    Conversation,
    HeardTurn,
    Writer,
)
from model_runtime.training.encoder import NANO, batches, examine
from model_runtime.training.hearer import HIDDEN, LABELS, Hearer, collate
from model_runtime.training.hearings import Said, heard_on_the_test_line, read, shards
from model_runtime.training.speakers import strangers
from model_runtime.training.stage import Stage, autocast
from model_runtime.training.texts import REFUSE, shop
from model_runtime.training.tokenizer import ANSWERS
from model_runtime.training.wiring import Asked, Listener, nearby, questions

LAYERS, HEADS, KV_HEADS, FEED_FORWARD, POSITIONS = 5, 4, 2, 640, 2560  # half of it: what it was taught
LONG = 12  # turns of a long call: what the engine keeps before it lets the oldest go
QUESTIONS = 16  # a step and process
REUSE = 8  # times a hearing is asked in a call: hearing costs as much as answering
KEPT = 5120  # hearings to draw from: several shards, so that those of a step are not all of one
PRACTISED = 2560  # hearings the listening head practises on
OWN = 0.1  # share of hearings whose rows are left as they are
# Share of calls that end in a goodbye: it is one question in 44, and seldom the last, and a call is hung up
# after it alone.
GOODBYES = 0.25
REQUESTED = 0.2  # share of hearings that are requests, beside those there are: each is one in fifty
CLEAR = 0.45  # of a blend at least so much is the hearing's own
# Taken off the ears' score for refusing. Of 219 known questions and 121 others over the gate's line, in
# festival's voices, .90 and .87 come out right with it and .88 and .92 without: whoever asks for a
# thing that is sold is worse off with a refusal than a stranger with an answer.
HANDICAP = 0.4
EXAMINE_S = 1200.0


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


class Mind(nn.Module):
    """The backbone and the head that asks it for the intent."""

    def __init__(self, backbone: Backbone) -> None:
        """The head's weights are fresh."""
        super().__init__()
        self.backbone = backbone
        self.intent = nn.Linear(HIDDEN, len(LABELS))


def of_questions(talks: Sequence[Conversation], scores: Tensor) -> Tensor:
    """Of scores [N, labels] of hearings, those of what is asked, in the order of the calls."""
    return scores[[index for talk in talks for _, index, _ in talk.slots]]


def losses(
    mind: Mind, talks: Sequence[Conversation], rows: Tensor, believed: Tensor
) -> tuple[dict[str, Tensor], float]:
    """Three losses, and the share of questions that the head tells as the ears do.

    ``speech``: weighted cross-entropy of all targets; ``opening`` and ``intent``: how far what the backbone
    and the head make of each question is from what the ears do. ``believed``: their scores [N, labels] of the
    questions in ``rows``.

    Long and short conversations go through apart, so that little of the work is padding.
    """
    ordered = sorted(talks, key=lambda talk: len(talk.ids))
    middle = next((at for at, talk in enumerate(ordered) if len(talk.ids) > 0.55 * len(ordered[-1].ids)), 0)
    speech, opening, intent = torch.zeros(3)
    weight, hits, count = 0.0, 0.0, 0
    for part in (ordered[:middle], ordered[middle:]):
        if not part:
            continue
        embeddings, at, ids, weights = laid_out(part, rows, mind.backbone)
        length = embeddings.shape[1]
        places = torch.tensor(
            [row * length + place for row, talk in enumerate(part) for place, _ in talk.asked]
        )
        first = torch.tensor([tokens for talk in part for tokens in talk.openings])
        wanted = of_questions(part, believed).softmax(-1)
        with autocast():
            hidden = mind.backbone.hidden(embeddings).flatten(0, 1)
            scores, openings = mind.backbone.logits(hidden[at]), mind.backbone.logits(hidden[places])
            guesses = mind.intent(hidden[places])
        speech = speech + (F.cross_entropy(scores.float(), ids, reduction="none") * weights).sum()
        weight += float(weights.sum())
        opening = opening - (wanted * openings.float().log_softmax(-1).gather(-1, first)).sum()
        intent = intent + F.cross_entropy(guesses.float(), wanted, reduction="sum")
        hits += float((guesses.detach().argmax(-1) == wanted.argmax(-1)).float().sum())
        count += len(places)
    told = {"speech": speech / max(weight, 1.0), "opening": opening / count, "intent": intent / count}
    return told, hits / count


@torch.no_grad()
def listened(hearer: Hearer, work: Path, seed: int, draw: random.Random) -> Iterator[list[Tensor]]:
    """Shards of hearings as the ears hand them on, [n, hidden] at 12.5 Hz each, without end."""
    others = strangers(work, np.random.default_rng(seed))
    for shard in shards(work / "train", seed, done=10_000, reuse=1, others=others):
        heard: list[Tensor] = []
        for group in batches(shard, draw):
            batch = collate(group, draw)
            with autocast():
                made = hearer(batch.mel, batch.lengths)
            counts = made.count.tolist()
            heard += [
                rows[:count].clone() for rows, count in zip(made.rows, counts, strict=True) if count > 0
            ]
        yield heard


def with_the_ripple_of(rows: Tensor, others: Tensor, draw: random.Random) -> Tensor:
    """[n, hidden] with the mean of ``rows``, and what another hearing's rows do around theirs.

    The ears put the intent into the mean of the rows as the backbone normalises them, and there it is told in
    voices they have never heard. A backbone that may read single rows learns those of the training voices by
    heart. The size of each row stays its own. The mean, too, is blended with the other's, until nobody can
    tell which of the two it is: in a voice that the ears have never heard it is never as clear as in those
    they were taught by.
    """
    size = rows.square().mean(-1, keepdim=True).sqrt()
    own, other = (F.rms_norm(one, (HIDDEN,)) for one in (rows, others))
    ripple = other[(torch.arange(len(rows)) + draw.randrange(len(others))) % len(others)]
    clear = draw.uniform(CLEAR, 1.0)
    mean = clear * own.mean(0) + (1 - clear) * other.mean(0)
    return size * (mean + draw.uniform(0.2, 1.0) * (ripple - ripple.mean(0)))


@torch.no_grad()
def plan(
    hearer: Hearer,
    heard: Sequence[Tensor],
    goodbyes: Sequence[Tensor],
    writer: Writer,
    draw: random.Random,
    share: float = 0.5,
) -> tuple[list[Conversation], Tensor, Tensor]:
    """Hearings dealt out as calls of one to twelve turns.

    And their rows [B, N, hidden], zero-padded, and what the ears make of them: scores [B, labels].

    A ``share`` of the steps only decide, in long calls, so that little of the work is instructions; the
    others speak, and some of their calls end in one of ``goodbyes``.
    """
    decides = draw.random() < share
    turns = draw.choice([8, LONG] if decides else [1, 2, 4, 6])
    heard = list(heard)
    for last in range(turns - 1, len(heard), turns):
        if goodbyes and not decides and draw.random() < GOODBYES:
            heard[last] = draw.choice(goodbyes)
    taught = [
        rows if draw.random() < OWN else with_the_ripple_of(rows, draw.choice(heard), draw) for rows in heard
    ]
    believed = torch.stack([hearer.scores(rows) for rows in taught])
    told = [LABELS[int(label)] for label in believed.argmax(-1)]
    asked = [HeardTurn(index, len(rows), told[index]) for index, rows in enumerate(taught)]
    talks = [writer.conversation(asked[at : at + turns], draw, decides) for at in range(0, len(asked), turns)]
    return talks, nn.utils.rnn.pad_sequence(taught, batch_first=True), believed


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
    embeddings, _, _, _ = laid_out([replace(talk, weights=[0.0] * len(talk.ids))], rows, backbone)
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
    """Share of questions answered with the right words, of others refused, of requests rightly called.

    A kind of which nothing was asked is left out.
    """
    draw = np.random.default_rng(9)
    right: dict[str, list[bool]] = {"right": [], "refused": [], "called": []}
    tokens = writer.tokens
    for number, one in enumerate(said):
        batch = collate([heard_on_the_test_line(one, draw, noisy)])
        heard = hearer(batch.mel, batch.lengths)
        greeted = number % 2 == 0
        turn = HeardTurn(0, int(heard.count[0]), one.intent)
        request = shop().requests.get(one.intent)
        if request:
            talk = writer.prompt(turn, greeted=greeted, tools=[request.tool, HANG_UP])
            call = writer.called(request.tool, request.arguments)
            whole = [*writer.spoken(request.before), tokens.tts_end, *call]
            ids = answered(backbone, talk, heard.rows, [tokens.eot], len(whole) + 1)
            right["called"].append(ids[-len(call) :] == call)
            continue
        talk = writer.prompt(turn, greeted=greeted)
        wanted = shop().answer(one.intent, shop().greeting if greeted else "")
        groups = min(DECIDED_GROUPS, len(writer.encode(wanted)))
        ids = answered(backbone, talk, heard.rows, [tokens.tts_end, tokens.eot], 5 * groups)
        text = writer.tokenizer.decode([i for i in ids[::5] if i != tokens.tts_pad], skip_special_tokens=True)
        right["refused" if one.intent == REFUSE else "right"].append(
            text.strip() == writer.tokenizer.decode(writer.encode(wanted)[:groups])
        )
    return {kind: round(sum(hits) / len(hits), 3) for kind, hits in right.items() if hits}


def teach_to_listen(
    listener: Listener, hearer: Hearer, backbone: Backbone, writer: Writer, work: Path, seed: int
) -> None:
    """Lay the listening head out and have it practise, alike in every process."""
    torch.set_num_threads(1)
    draw = random.Random(seed)
    heard: list[Tensor] = []
    for shard in listened(hearer, work, seed, draw):
        heard += shard
        if len(heard) >= PRACTISED:
            break

    def some() -> tuple[list[Conversation], Tensor, Tensor]:
        return plan(hearer, draw.sample(heard, QUESTIONS), [], writer, draw)

    def asked() -> tuple[Tensor, list[Asked], Tensor]:
        talks, rows, believed = some()
        with torch.no_grad():
            embeddings = laid_out(talks, rows, backbone)[0]
        return embeddings, questions(talks), of_questions(talks, believed)

    near = torch.cat([nearby(some()[0]) for _ in range(12)])
    listener.lay_out(hearer, torch.cat(heard[:200]), near)
    print(json.dumps({"listener": round(listener.practise(asked), 3)}), flush=True)


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
    parse.add_argument("--tokenizer", type=Path, default=NANO / "tokenizer.json")
    parse.add_argument("--minutes", type=float, default=45.0)
    parse.add_argument("--from-nano", action="store_true", help="begin from the shipped weights")
    parse.add_argument(
        "--new-ears", action="store_true", help="the encoder has changed since language_model.pt: listen anew"
    )
    parse.add_argument("--rate", type=float, default=1.2e-3)
    parse.add_argument("--decides", type=float, default=0.5, help="share of steps that speak no answer whole")
    parse.add_argument("--seed", type=int, default=1)
    args = parse.parse_args()
    writer = Writer(args.tokenizer, args.answers)
    hearer, backbone = Hearer().eval(), new_backbone(writer.tokenizer.get_vocab_size())
    hearer.load_state_dict(torch.load(args.work / "encoder.pt", weights_only=True)["averages"]["hearer"])
    with torch.no_grad():
        hearer.intent.bias[LABELS.index(REFUSE)] -= HANDICAP
    if args.from_nano:
        from_nano(backbone)
    mind = Mind(backbone)
    stage = Stage(
        "language_model", args.work, {"mind": mind}, {"mind": args.rate}, args.minutes, args.seed, 50
    )
    listener = Listener(backbone)
    if args.new_ears or not stage.step:
        mind.load_state_dict(stage.averages["mind"].state_dict())
        teach_to_listen(listener, hearer, backbone, writer, args.work, args.seed)
        stage.averages["mind"].load_state_dict(mind.state_dict())
    listener.hold(stage.optimiser)
    seed = args.seed + 1000 * stage.rank + stage.step
    draw = random.Random(seed)
    dev = {kind: read(args.work / "dev", f"{kind}-*.npz") for kind in ("known", "new")}
    examined = stage.used
    pool: list[Tensor] = []
    for shard in listened(hearer, args.work, seed, draw):
        pool = [*pool, *shard][-KEPT:]
        labels = [hearer.told_by(rows) for rows in pool]
        goodbyes = [rows for rows, label in zip(pool, labels, strict=True) if label == GOODBYE]
        requests = [rows for rows, label in zip(pool, labels, strict=True) if label in shop().requests]
        for _ in range(REUSE * len(shard) // QUESTIONS):
            heard = [
                draw.choice(requests) if requests and draw.random() < REQUESTED else rows
                for rows in draw.sample(pool, QUESTIONS)
            ]
            planned = plan(hearer, heard, goodbyes, writer, draw, args.decides)
            lost, right = losses(mind, *planned)
            told = {"right": right} | {key: float(loss.detach()) for key, loss in lost.items()}
            if not stage.learn(sum(lost.values(), torch.zeros(())), told):
                continue
            found: dict[str, object] = {}
            if stage.done or stage.used - examined > EXAMINE_S:
                examined = stage.used
                average = stage.averages["mind"]
                assert isinstance(average, Mind)
                if stage.rank == 0:
                    for kind, said, noisy in (
                        ("known-phone", dev["known"][:80], True), ("known", dev["known"][:80], False),
                        ("new-phone", dev["new"][:40], True),
                    ):  # fmt: skip
                        found[kind] = interview(hearer, average.backbone, writer, said, noisy)
                    found["heads-phone"] = examine(hearer, dev["known"], True)
            stage.tell(**found)
            if stage.done:
                return


if __name__ == "__main__":
    main()
