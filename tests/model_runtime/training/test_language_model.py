"""What the backbone is taught: calls laid out by the product's template, and what of each answer."""

from __future__ import annotations

import random

import pytest
import torch

from model_runtime.training.conversations import Conversation, HeardTurn, Writer
from model_runtime.training.encoder import NANO
from model_runtime.training.hearer import HIDDEN
from model_runtime.training.language_model import (
    ANSWERS,
    CLEAR,
    Mind,
    Rows,
    losses,
    new_backbone,
    plan,
    with_the_ripple_of,
)
from model_runtime.training.texts import REPEAT, shop


@pytest.fixture(scope="module")
def writer() -> Writer:
    return Writer(NANO / "tokenizer.json", ANSWERS)


def answers(talk: Conversation, writer: Writer) -> list[str]:
    """What the assistant is taught to say, turn by turn, as far as it is given."""
    text = []
    for begun, _ in talk.asked:
        after = talk.ids[begun + 1 :]
        spoken = after[: after.index(writer.tokens.tts_end)] if writer.tokens.tts_end in after else after
        text.append(writer.tokenizer.decode(spoken[::5], skip_special_tokens=True).strip())
    return text


def test_a_call_that_decides_gives_the_beginning_of_every_answer(writer: Writer) -> None:
    heard = [HeardTurn(0, 9, "address"), HeardTurn(1, 7, REPEAT), HeardTurn(2, 8, "warranty")]
    talk = writer.conversation(heard, random.Random(1), decides=True)
    assert [talk.ids[begun] for begun, _ in talk.asked] == [writer.tokens.tts_start] * 3
    assert [intent for _, intent in talk.asked] == ["address", REPEAT, "warranty"]
    address, again, warranty = answers(talk, writer)
    assert shop().answer("address", "").startswith(address)
    assert shop().answer(REPEAT, shop().answer("address", "")).startswith(again)
    assert shop().answer("warranty", "").startswith(warranty)
    assert all((address, again, warranty))
    assert [count for _, _, count in talk.slots] == [9, 7, 8]


def test_a_call_that_speaks_gives_whole_answers_too(writer: Writer) -> None:
    whole = 0
    for seed in range(12):
        talk = writer.conversation([HeardTurn(0, 9, "address")], random.Random(seed))
        whole += answers(talk, writer) == [shop().answer("address", "")]
    assert 2 <= whole <= 10


def test_what_a_row_says_alone_can_be_another_hearings_and_the_mean_is_mostly_its_own() -> None:
    draw = torch.Generator().manual_seed(1)
    rows, others = torch.randn(9, HIDDEN, generator=draw), torch.randn(5, HIDDEN, generator=draw)
    size = rows.square().mean(-1, keepdim=True).sqrt()
    own, other = ((one / one.square().mean(-1, keepdim=True).sqrt()).mean(0) for one in (rows, others))
    for seed in range(20):
        mixed = with_the_ripple_of(rows, others, random.Random(seed))
        assert mixed.shape == rows.shape
        assert (mixed - rows).abs().max() > 0.1
        mean = (mixed / size).mean(0)  # lies on the way from its own to the other's, and nearer its own
        share = float((mean - other) @ (own - other) / (own - other).square().sum())
        torch.testing.assert_close(mean, share * own + (1 - share) * other)
        assert CLEAR - 1e-4 <= share <= 1 + 1e-4


def test_every_question_is_asked_and_its_intent_reaches_the_loss(writer: Writer) -> None:
    torch.manual_seed(0)
    mind = Mind(new_backbone(writer.tokenizer.get_vocab_size()))
    heard = [
        Rows(torch.randn(6 + at, HIDDEN), intent) for at, intent in enumerate(("address", "warranty") * 3)
    ]
    talks, rows = plan(heard, writer, random.Random(2))
    assert sum(len(talk.asked) for talk in talks) == 6
    assert rows.shape == (6, 11, HIDDEN)
    lost, right = losses(mind, talks, rows)
    assert 0 <= right <= 1
    (lost["speech"] + lost["intent"]).backward()
    assert mind.intent.weight.grad is not None
    assert mind.backbone.model.embed_tokens.weight.grad is not None
    assert all(torch.isfinite(loss) and loss > 0 for loss in lost.values())
