"""What the backbone is taught: calls laid out by the product's template, and what of each answer."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from bot.tools.function import Terms
from bot.tools.registry import SHIPPED
from model_runtime.interleave import ToolCall, parse_tool_call
from model_runtime.training.conversations import Conversation, HeardTurn, Writer
from model_runtime.training.encoder import NANO
from model_runtime.training.hearer import HIDDEN, Hearer
from model_runtime.training.language_model import (
    CLEAR,
    Mind,
    losses,
    new_backbone,
    plan,
    with_the_ripple_of,
)
from model_runtime.training.texts import REPEAT, shop
from model_runtime.training.tokenizer import ANSWERS


def no_line() -> Any:
    raise AssertionError("no tool is run here")


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
    talk = writer.conversation(heard, random.Random(4), decides=True)
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


def test_what_is_asked_is_what_the_ears_tell_of_the_blend_and_its_intent_reaches_the_loss(
    writer: Writer,
) -> None:
    torch.manual_seed(0)
    mind = Mind(new_backbone(writer.tokenizer.get_vocab_size()))
    hearer = Hearer()
    heard = [torch.randn(6 + at, HIDDEN) for at in range(6)]
    talks, rows, believed = plan(hearer, heard, [], writer, random.Random(2))
    asked = [
        (index, count, name)
        for talk in talks
        for (_, index, count), (_, name) in zip(talk.slots, talk.asked, strict=True)
    ]
    assert [index for index, _, _ in asked] == list(range(6))
    assert all(name == hearer.told_by(rows[index, :count]) for index, count, name in asked)
    assert rows.shape == (6, 11, HIDDEN)
    torch.testing.assert_close(believed[1], hearer.scores(rows[1, : len(heard[1])]))
    lost, right = losses(mind, talks, rows, believed)
    assert 0 <= right <= 1
    sum(lost.values(), torch.zeros(())).backward()
    assert mind.intent.weight.grad is not None
    assert mind.backbone.model.embed_tokens.weight.grad is not None
    assert all(torch.isfinite(loss) and loss > 0 for loss in lost.values())


def test_the_tools_nano_learns_from_are_those_that_ship(writer: Writer) -> None:
    uses = {"hang_up": Terms("allow"), "date_time": Terms(), "search_voice": Terms()}
    for name, terms in uses.items():
        assert SHIPPED[name].bind(no_line, {}, terms).schema == writer.schemas[name]
    assert set(uses) == set(writer.schemas)


def test_it_is_taught_to_hang_up_after_a_goodbye_where_it_has_that_tool(writer: Writer) -> None:
    tokens, draw = writer.tokens, random.Random(5)
    assert tokens.tool_call is not None
    assert tokens.tool_call_end is not None
    hung_up = 0
    for _ in range(300):
        talk = writer.conversation([HeardTurn(0, 7, "bye"), HeardTurn(1, 9, "hours")], draw)
        has_tool = "hang_up" in writer.tokenizer.decode(talk.ids[: talk.asked[0][0]])
        if tokens.tool_call not in talk.ids:
            assert not has_tool
            continue
        assert has_tool
        hung_up += 1
        at = talk.ids.index(tokens.tool_call)
        assert [name for _, name in talk.asked] == ["hours", "bye"]  # after which nothing comes
        assert talk.ids[at - 1] == tokens.tts_end
        assert talk.ids[-1] == tokens.eot
        call = writer.tokenizer.decode(talk.ids[at + 1 : talk.ids.index(tokens.tool_call_end)])
        assert parse_tool_call(call) == ToolCall("hang_up", {}, "function\nhang_up\n{}")
        assert min(talk.weights[at:]) == 1.0
    assert hung_up > 50
