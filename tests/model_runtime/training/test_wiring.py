"""The head that listens: it finds the question that was heard last, and stands still afterwards."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from model_runtime.training import wiring
from model_runtime.training.conversations import Conversation, HeardTurn, Writer
from model_runtime.training.encoder import NANO
from model_runtime.training.hearer import HIDDEN, LABELS, LOOKS, Hearer
from model_runtime.training.language_model import laid_out, new_backbone
from model_runtime.training.tokenizer import ANSWERS
from model_runtime.training.wiring import Asked, Listener, nearby, questions


def test_it_finds_what_was_asked_last_and_then_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "PRACTICE", 300)  # half of it does for voices that are so clear
    torch.manual_seed(0)
    writer, hearer = Writer(NANO / "tokenizer.json", ANSWERS), Hearer()
    backbone = new_backbone(writer.tokenizer.get_vocab_size())
    meaning = torch.linalg.qr(torch.randn(HIDDEN, len(LABELS)))[0].T  # each intent's direction
    with torch.no_grad():
        hearer.intent.weight.copy_(4 * meaning.repeat(1, LOOKS))
        hearer.intent.bias.zero_()
    voice = torch.randn(HIDDEN)  # what all audio has in common
    draw = random.Random(1)

    def question(intent: int) -> Tensor:
        rows: Tensor = voice + 6 * meaning[intent] + torch.randn(draw.randint(12, 30), HIDDEN)
        return rows

    talks: list[Conversation] = []

    def some() -> tuple[Tensor, list[Asked], Tensor]:
        intents = [draw.randrange(len(LABELS) - 1) for _ in range(8)]
        rows = [question(intent) for intent in intents]
        heard = [
            HeardTurn(i, len(one), LABELS[k]) for i, (one, k) in enumerate(zip(rows, intents, strict=True))
        ]
        talks[:] = [writer.conversation(heard[at : at + 4], draw, decides=True) for at in (0, 4)]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        with torch.no_grad():
            told = torch.stack([hearer.scores(one) for one in rows])
            return laid_out(talks, padded, backbone)[0], questions(talks), told

    listener = Listener(backbone)
    some()
    listener.lay_out(hearer, torch.cat([question(k % (len(LABELS) - 1)) for k in range(60)]), nearby(talks))
    listener.practise(some)
    agreed = []
    for _ in range(8):  # among three other questions in the same call
        embeddings, asked, told = some()
        agreed.append((listener.reads(embeddings, asked).argmax(-1) == told.argmax(-1)).float().mean())
    assert torch.stack(agreed).mean() > 0.9
    optimiser = torch.optim.AdamW(backbone.parameters(), lr=0.01, weight_decay=0.5)
    listener.hold(optimiser)
    embeddings, asked, _ = some()
    before = listener.reads(embeddings, asked)
    for _ in range(3):
        optimiser.zero_grad()
        backbone.hidden(embeddings).square().mean().backward()
        optimiser.step()
    assert torch.equal(listener.reads(embeddings, asked), before)
    query = backbone.model.layers[0].get_submodule("self_attn.q_proj").get_parameter("weight")
    assert query.grad is not None
    assert query.grad[2 * backbone.config.head_dim :].abs().max() > 0  # the others learn
