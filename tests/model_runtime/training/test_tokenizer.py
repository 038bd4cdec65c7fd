"""Nano's tokenizer.

Every text survives it, and the added tokens are the published ones in the published order.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

import model_runtime
from model_runtime.tokens import SpecialTokens
from model_runtime.training import tokenizer as training
from model_runtime.training.texts import shop

SHIPPED = Tokenizer.from_file(
    str(Path(model_runtime.__file__).parent / "checkpoints" / "nano" / "tokenizer.json")
)


@given(st.text(max_size=60))
def test_any_text_comes_back(text: str) -> None:
    shipped = SHIPPED
    shipped.encode_special_tokens = True
    assert shipped.decode(shipped.encode(text).ids, skip_special_tokens=False) == text


def test_added_tokens_follow_the_text_in_the_published_order() -> None:
    first = SHIPPED.token_to_id(training.ADDED[0])
    assert first is not None
    assert [SHIPPED.token_to_id(name) for name in training.ADDED] == list(
        range(first, first + 22 + 31 + 6656)
    )
    assert SHIPPED.get_vocab_size() == first + len(training.ADDED)
    # The published ids are these plus a constant, so anchors of the specification hold here too.
    offset = 151_643 - first
    for name, published in [
        ("<|EOT|>", 151_665),
        ("<audio_start>", 151_688),
        ("<tts_start>", 151_693),
        ("<audio_0>", 151_696),
    ]:
        assert SHIPPED.token_to_id(name) == published - offset


def test_it_can_steer_the_model() -> None:
    tokens = SpecialTokens.from_vocabulary(SHIPPED.token_to_id, SHIPPED.get_added_tokens_decoder())
    assert tokens.audio_pad == SHIPPED.token_to_id("<audio_6561>")
    assert tokens.tool_call is not None


@pytest.mark.parametrize("answer", shop().spoken)
def test_every_answer_fits_beside_its_speech(answer: str) -> None:
    assert len(SHIPPED.encode(answer).ids) <= 27


def test_the_first_token_tells_which_sentence_it_is() -> None:
    sentences = list(json.loads(training.ANSWERS.read_text()))
    assert len({SHIPPED.encode(sentence).ids[0] for sentence in sentences}) == len(sentences) > 40


def test_a_sentence_that_begins_otherwise_is_split_word_by_word() -> None:
    assert SHIPPED.encode("You can pay by card").tokens[0] == "YouĠcanĠpay"
    assert SHIPPED.encode("You can payroll").tokens[:2] == ["You", "Ġcan"]
    assert "YouĠcanĠpay" not in SHIPPED.encode("so You can pay").tokens


def test_openings_are_the_shortest_words_that_tell_sentences_apart() -> None:
    sentences = ["Yes.", "We are open.", "We are closed today.", "We sell tents."]
    assert training.openings(sentences) == ["Yes", "We are open", "We are closed", "We sell"]
    with pytest.raises(ValueError, match=r"'Yes\.' is the beginning of another"):
        training.openings(["Yes.", "Yes, we do."])
