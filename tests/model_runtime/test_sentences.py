"""Sentence encoders as they are published, and what is said of those that are none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from model_runtime.errors import EncoderError
from model_runtime.sentences import SentenceEncoder
from tests.bot.knowledge.encoders import meaning_encoder, random_encoder

MEANINGS = {"tent": 0, "boots": 1, "shoes": 1, "query": 2}


def test_a_sentence_is_the_mean_of_its_words_and_padding_is_none(tmp_path: Path) -> None:
    encoder = meaning_encoder(tmp_path, MEANINGS)
    both = encoder.query("tent boots")
    assert both[:2] == pytest.approx([2**-0.5, 2**-0.5], abs=0.01)
    batch = encoder.passages(["tent", "tent boots shoes " * 4, "boots", ""])
    assert np.linalg.norm(batch, axis=1) == pytest.approx([1, 1, 1, 0])  # nothing said is near nothing
    assert batch[2] @ encoder.query("shoes") == pytest.approx(1, abs=1e-4)
    assert batch[0] @ encoder.query("tent") == pytest.approx(1, abs=1e-4)


def test_many_texts_keep_their_order_and_are_what_each_is_alone(tmp_path: Path) -> None:
    encoder = random_encoder(tmp_path, layers=1, width=16, heads=2, hidden=32)
    texts = [" ".join(f"w{(3 * at + word) % 97}" for word in range(at % 7 + 1)) for at in range(40)]
    together = encoder.passages(texts)
    assert together.shape == (40, encoder.width) == (40, 16)
    for at in (0, 6, 39):
        np.testing.assert_allclose(together[at], encoder.query(texts[at]), atol=1e-5)
    assert abs(together[0] @ together[6]) < 0.999


def test_prompts_and_the_first_token_are_used_if_the_folder_says_so(tmp_path: Path) -> None:
    plain = meaning_encoder(tmp_path, MEANINGS)
    (tmp_path / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"query": "query tent "}})
    )
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    told = SentenceEncoder(tmp_path)
    assert told.query("boots")[2] == pytest.approx(1, abs=0.01)
    assert told.passages(["boots tent"])[0][1] == pytest.approx(1, abs=0.01)
    assert told.name != plain.name
    assert SentenceEncoder(tmp_path).name == told.name


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("model.onnx", None, "should hold model.onnx and tokenizer.json"),
        ("tokenizer.json", None, "should hold model.onnx and tokenizer.json"),
        ("model.onnx", b"no graph", "cannot be read as an ONNX model"),
        ("tokenizer.json", b"{}", "cannot be read as a tokenizer"),
        ("config_sentence_transformers.json", b"{", "cannot be read as JSON"),
        ("config_sentence_transformers.json", b"[]", "should hold a JSON object"),
    ],
)
def test_what_is_no_encoder_is_named(tmp_path: Path, file: str, content: bytes | None, said: str) -> None:
    meaning_encoder(tmp_path, MEANINGS)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(EncoderError, match=said) as refused:
        SentenceEncoder(tmp_path)
    assert str(tmp_path) in str(refused.value)
    assert "\n" not in str(refused.value)
