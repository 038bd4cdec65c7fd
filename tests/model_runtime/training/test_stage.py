"""A timed stage learns, stops when its minutes are used, and goes on from its file."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from model_runtime.training import stage as module
from model_runtime.training.stage import Stage

STEP_S = 0.002


@pytest.fixture(autouse=True)
def every_step_takes_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, as many fit into the minutes."""
    ticks = itertools.count()
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(ticks) * STEP_S))


def run(work: Path, minutes: float, model: nn.Module, steps: int = 10_000) -> Stage:
    stage = Stage("line", work, {"line": model}, {"line": 0.05}, minutes, seed=3, warmup=5)
    for _ in range(steps):
        x = torch.randn(16, 1)
        loss = (model(x) - (2 * x + 1)).square().mean()
        if stage.learn(loss, {"loss": float(loss.detach())}):
            stage.tell()
        if stage.done:
            break
    return stage


def test_it_learns_and_writes_its_log_and_state(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    stage = run(tmp_path, 0.02, model)
    assert stage.done
    assert abs(float(model.weight) - 2) < 0.1
    lines = [json.loads(line) for line in (tmp_path / "line.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < 0.1
    state = torch.load(tmp_path / "line.pt", weights_only=True)
    assert set(state["modules"]) == set(state["averages"]) == {"line"}


def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    first = run(tmp_path, 0.01, nn.Linear(1, 1))
    fresh = nn.Linear(1, 1)
    again = Stage("line", tmp_path, {"line": fresh}, {"line": 0.05}, 10.0, seed=3)
    assert again.step == first.step
    assert torch.equal(fresh.weight, first.modules["line"].get_parameter("weight"))
    assert 0 < again.part < 0.01


def test_the_average_lags_behind_and_follows(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    stage = run(tmp_path, 1.0, model, steps=200)
    average = stage.averages["line"].get_parameter("weight")
    assert not torch.equal(average, model.weight)
    assert abs(float(average) - float(model.weight)) < 0.3
    assert not average.requires_grad
