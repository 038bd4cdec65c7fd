"""All stages in their order, once each, and from where they were stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from model_runtime.training import curves, recipe
from model_runtime.training.recipe import Amounts, Places, RecipeError, Stage


@pytest.fixture
def places(tmp_path: Path) -> Places:
    made = Places(tmp_path / "work", tmp_path / "nano", 3)
    recipe.begin(made, {"share": 1.0, "seed": 1})
    return made


def test_each_stage_comes_behind_what_it_reads(places: Places) -> None:
    order = [stage.name for stage in recipe.stages(places, Amounts(), 1)]
    assert len(order) == len(set(order))
    for first, then in [
        ("corpus", "codec"), ("codec", "codes"), ("speaker", "flow"), ("codes", "tokenizer"),
        ("pitch", "vocoder"), ("vocoder", "export"), ("say-train", "encoder"), ("say-dev-known", "encoder"),
        ("encoder", "language_model"), ("tokenizer", "language_model"), ("language_model", "weights"),
        ("export", "gate"), ("weights", "gate"),
    ]:  # fmt: skip
        assert order.index(first) < order.index(then), (first, then)


def test_a_rehearsal_takes_a_share_of_all_that_takes_long(places: Places) -> None:
    whole, part = (
        {stage.name: stage.arguments for stage in recipe.stages(places, Amounts(share), 1)}
        for share in (1.0, 0.01)
    )

    def told(arguments: Sequence[str], option: str) -> float:
        return float(arguments[arguments.index(option) + 1])

    for name, option in [
        ("vocoder", "--steps"), ("say-train", "--count"), ("encoder", "--minutes"),
        ("language_model", "--minutes"),
    ]:  # fmt: skip
        assert told(part[name], option) == pytest.approx(told(whole[name], option) / 100, rel=0.1)


def test_a_rehearsal_is_not_examined(places: Places) -> None:
    assert "gate" not in {stage.name for stage in recipe.stages(places, Amounts(0.01), 1)}


def test_the_cores_share_the_speech_and_train_together(places: Places) -> None:
    stages = {stage.name: stage for stage in recipe.stages(places, Amounts(), 1)}
    spoken = recipe.commands(stages["say-train"], 3)
    assert [command[-2:] for command in spoken] == [["--part", f"{part}/3"] for part in range(3)]
    (together,) = recipe.commands(stages["encoder"], 3)
    assert "--nproc-per-node=3" in together
    (alone,) = recipe.commands(stages["encoder"], 1)
    assert "torch.distributed.run" not in alone


STAGES = [Stage(name, "", name, (), states=(f"{name}-*.pt",)) for name in ("one", "two", "three")]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages that were run; "two" fails the first time."""
    names: list[str] = []

    def run(started: Sequence[Sequence[str]]) -> int:
        names.append(started[0][2].rpartition(".")[2])
        return 3 if names == ["one", "two"] else 0

    monkeypatch.setattr(recipe, "run", run)
    return names


def test_it_goes_on_where_it_failed_and_does_nothing_twice(places: Places, ran: list[str]) -> None:
    told: list[str] = []
    with pytest.raises(RecipeError, match=r"'two' failed \(exit status 3\).*goes on from there"):
        recipe.make(places, STAGES, told.append)
    recipe.make(places, STAGES, told.append)
    assert ran == ["one", "two", "two", "three"]
    assert [line for line in told if "done before" in line] == ["[1/3] one:  - done before"]


def test_what_was_begun_otherwise_is_not_gone_on_with(places: Places) -> None:
    recipe.begin(places, {"share": 1.0, "seed": 1})
    with pytest.raises(RecipeError, match=r"begun with share 1\.0, seed 1"):
        recipe.begin(places, {"share": 0.01, "seed": 1})


def test_a_stage_is_done_again_from_its_beginning_with_all_behind_it(places: Places, ran: list[str]) -> None:
    with pytest.raises(RecipeError):
        recipe.make(places, STAGES, print)
    recipe.make(places, STAGES, print)
    del ran[:]
    for name in ("one-a.pt", "two-a.pt", "two-b.pt", "three-a.pt"):
        (places.work / name).touch()
    recipe.make(places, STAGES, print, again="two")
    assert ran == ["two", "three"]
    assert [path.name for path in places.work.glob("*.pt")] == ["one-a.pt"]  # nothing else to go on from
    with pytest.raises(RecipeError, match=r"no stage 'four'\. There are: one, two, three"):
        recipe.make(places, STAGES, print, again="four")


def test_one_that_fails_stops_those_beside_it() -> None:
    assert recipe.run([["sleep", "60"], ["sh", "-c", "exit 5"]]) == 5
    assert recipe.run([["true"], ["true"]]) == 0


def test_what_a_machine_lacks_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(recipe, "WORDNET", Path("/nowhere/data.noun"))
    monkeypatch.setattr(recipe, "MODULES", ("onnx", "no_such_module"))
    flite, *_, texts, modules = recipe.missing()
    assert "flite" in flite
    assert "wordnet-base" in texts
    assert "no_such_module" in modules
    assert "onnx" not in modules


def test_only_the_last_run_of_a_log_is_drawn(tmp_path: Path) -> None:
    log = tmp_path / "encoder.jsonl"
    found = dict.fromkeys(("frames", "path", "intent", "mean_intent", "hit"), 0.5)
    lines: list[dict[str, Any]] = [{"step": step, "min": step / 50, **found} for step in (50, 100, 50, 100)]
    lines.append({**lines[-1], "step": 150, "known": {"intent": 0.9, "refused": 0.8}})
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [line["step"] for line in curves.read(log)] == [50, 100, 150]
    curves.draw("encoder", curves.read(log), tmp_path)
    assert (tmp_path / "encoder.png").read_bytes().startswith(b"\x89PNG")
