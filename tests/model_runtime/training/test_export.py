"""What export writes is a checkpoint as published, opened by the product's own reader."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer

import model_runtime
from model_runtime.checkpoint import open_checkpoint
from model_runtime.training import export
from model_runtime.training.hearer import Hearer
from model_runtime.training.language_model import Mind, new_backbone

NANO = Path(model_runtime.__file__).parent / "checkpoints" / "nano"
SIZE = Tokenizer.from_file(str(NANO / "tokenizer.json")).get_vocab_size()


@pytest.fixture
def exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.manual_seed(0)
    for stage, name, module in (
        ("encoder", "hearer", Hearer()), ("language_model", "mind", Mind(new_backbone(SIZE)))
    ):  # fmt: skip
        torch.save({"averages": {name: module.state_dict()}}, tmp_path / f"{stage}.pt")
    out = tmp_path / "nano"
    out.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(NANO / name, out / name)
    monkeypatch.setattr(
        "sys.argv", ["export", "--work", str(tmp_path), "--out", str(out), "--heads", str(tmp_path / "heads")]
    )
    export.main()
    (out / "token2wav").mkdir()
    for name in ("flow.yaml", "flow.pt", "hift.pt", "campplus.onnx", "speech_tokenizer_v2_25hz.onnx"):
        (out / "token2wav" / name).touch()
    return out


def test_the_folder_opens_with_the_sizes_it_was_trained_with(exported: Path) -> None:
    checkpoint = open_checkpoint(exported)
    assert checkpoint.text.vocab_size == checkpoint.tokenizer.size == SIZE
    assert (checkpoint.audio.n_state, checkpoint.audio.n_layer) == (192, 6)
    assert checkpoint.card.label == "nano: a demo model made for Parley, not Step-Audio 2"


def test_heads_of_training_stay_behind_and_embeddings_are_not_tied(exported: Path) -> None:
    with safe_open(exported / "model.safetensors", "pt") as held:
        names = set(held.keys())
        dtypes = {held.get_tensor(name).dtype for name in names}
        assert not torch.equal(
            held.get_tensor("lm_head.weight"), held.get_tensor("model.embed_tokens.weight")
        )
    assert dtypes == {torch.float16}
    assert {name.split(".")[0] for name in names} == {"encoder", "adapter", "model", "lm_head"}
    assert (exported / "model.safetensors").stat().st_size < 24e6


def test_the_shipped_card_tells_what_it_is() -> None:
    card = json.loads((NANO / "parley.json").read_text())["card"]
    assert card["label"] == export.LABEL
    assert card["default_voice"] == "rms"
    assert len(card["examples"]) >= 8
