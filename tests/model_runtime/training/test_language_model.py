"""What the backbone is taught: calls laid out by the product's template, and what of each answer."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
import torch

from bot.tools.function import Terms
from bot.tools.registry import SHIPPED
from bot.voices.finder import VoiceFinder
from model_runtime.interleave import ToolCall, parse_tool_call
from model_runtime.library.entry import Entry
from model_runtime.training import results
from model_runtime.training.conversations import CALLED, Conversation, HeardTurn, Writer
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
from model_runtime.training.texts import REPEAT, labels, shop
from model_runtime.training.tokenizer import ANSWERS
from tests.bot.tools.kit import toolbox, use
from tests.bot.tools.test_shipped import Caller


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
    uses = {
        "hang_up": Terms("allow"),
        "date_time": Terms(),
        "search_voice": Terms(),
        "transfer": Terms("allow"),
    }
    options = {"transfer": {"targets": {"support": "sip:support@example.com"}}}
    for name, terms in uses.items():
        assert SHIPPED[name].bind(no_line, options.get(name, {}), terms).schema == writer.schemas[name]
    assert set(uses) == set(writer.schemas)


def test_it_is_taught_to_hang_up_after_a_goodbye_where_it_has_that_tool(writer: Writer) -> None:
    tokens, draw = writer.tokens, random.Random(5)
    assert tokens.tool_call is not None
    assert tokens.tool_call_end is not None
    hung_up = 0
    for _ in range(800):
        talk = writer.conversation([HeardTurn(0, 7, "bye"), HeardTurn(1, 9, "hours")], draw)
        has_tool = "End the call." in writer.tokenizer.decode(talk.ids[: talk.asked[0][0]])
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
        assert min(talk.weights[at:]) == CALLED
    assert hung_up > 50


REQUESTS = list(shop().requests)


@pytest.mark.parametrize("decides", [True, False])
@pytest.mark.parametrize("intent", REQUESTS)
def test_a_request_is_refused_without_its_tool_and_else_calls_it_and_goes_by_the_result(
    writer: Writer, intent: str, decides: bool
) -> None:
    tokens, draw, request = writer.tokens, random.Random(8), shop().requests[intent]
    assert tokens.tool_call is not None
    assert tokens.tool_call_end is not None
    called, failed = 0, 0
    for _ in range(200):
        heard = [HeardTurn(0, 7, intent), HeardTurn(1, 7, "hours")]
        talk = writer.conversation(heard, draw, decides=decides)
        before = writer.tokenizer.decode(talk.ids[: talk.asked[0][0]])
        opened = talk.openings[0][labels().index(intent)]
        if f'"name": "{request.tool}"' not in before:
            assert tokens.tool_call not in talk.ids
            assert opened == writer.encode(shop().refuse)[0]
            continue
        called += 1
        assert opened == writer.encode(request.before)[0]
        at, end = talk.ids.index(tokens.tool_call), talk.ids.index(tokens.tool_call_end)
        call = parse_tool_call(writer.tokenizer.decode(talk.ids[at + 1 : end]))
        assert isinstance(call, ToolCall)
        assert (call.name, call.arguments) == (request.tool, request.arguments)
        assert min(talk.weights[at : end + 1]) == CALLED
        result = writer.tokenizer.decode(talk.ids[end : talk.asked[1][0]])
        if "been silent" in result or "these keys" in result:  # something else came between
            continue
        said = shop().refuse if "Error: " in result else request.after
        failed += "Error: " in result
        wanted = writer.tokenizer.decode(writer.encode(said)[:3] if decides else writer.encode(said))
        beginnings = [
            i for i, one in enumerate(talk.ids) if end < i < talk.asked[1][0] and one == tokens.tts_start
        ]
        assert len(beginnings) == bool(said)
        if said:
            spoken = talk.ids[beginnings[0] + 1 :: 5]
            assert writer.tokenizer.decode(spoken[:30]).startswith(wanted)
    assert called > 10
    assert failed > 0


async def test_results_are_worded_as_the_tools_word_them() -> None:
    finder, line = VoiceFinder(), Caller()
    finder.know([Entry(name="slt-low", origin="checkpoint", description="A low woman.", pitch_hz=150)])
    async with toolbox(voices=finder, tools=["search_voice"]) as box:
        found = await use(box.tools(), "search_voice", line, description="a woman")
        none = await use(box.tools(), "search_voice", line, description="zzz")
    assert found.content == results.SPEAKS.format(voice="slt-low", about="A low woman")
    assert none.content == f"Error: {results.ERRORS['search_voice'][0]}"


def test_every_request_is_worded_and_its_sentences_are_the_shops() -> None:
    said = set(json.loads(ANSWERS.read_text()))
    for request in shop().requests.values():
        assert {request.before, request.after or request.before} <= said
