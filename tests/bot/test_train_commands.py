"""``parley train nano``: the recipe's stages, from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bot.cli import app
from model_runtime.training import recipe


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[str]]:
    """Commands that were started; none of them really is."""
    started: list[Sequence[str]] = []

    def run(commands: Sequence[Sequence[str]]) -> int:
        started.extend(commands)
        return 0

    monkeypatch.setattr(recipe, "missing", list)
    monkeypatch.setattr(recipe, "run", run)
    return started


def arguments(folder: Path, *more: str) -> list[str]:
    return ["train", "nano", "--work", str(folder / "work"), "--out", str(folder / "nano"), *more]


def test_it_runs_every_stage_once_and_says_how_to_start_what_it_made(
    ran: list[Sequence[str]], tmp_path: Path
) -> None:
    done = CliRunner().invoke(app, arguments(tmp_path, "--share", "0.01", "--processes", "2"))
    assert done.exit_code == 0, done.output
    assert f"parley serve --checkpoint {tmp_path / 'nano'}" in done.output.replace("\n", "")
    count = len(ran)
    again = CliRunner().invoke(app, arguments(tmp_path, "--share", "0.01", "--processes", "2"))
    assert again.exit_code == 0
    assert len(ran) == count > 15
    assert "done before" in again.output


def test_what_is_missing_is_named_before_anything_runs(
    ran: list[Sequence[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "missing", lambda: ["the program flite (Debian's flite)"])
    done = CliRunner().invoke(app, arguments(tmp_path))
    assert done.exit_code == 1
    assert "the program flite (Debian's flite)" in done.stderr
    assert ran == []


def test_a_stage_that_is_none_is_refused_with_those_there_are(
    ran: list[Sequence[str]], tmp_path: Path
) -> None:
    done = CliRunner().invoke(app, arguments(tmp_path, "--again", "baking"))
    assert done.exit_code == 1
    assert "no stage 'baking'" in done.stderr
    assert "language_model" in done.stderr
    assert ran == []
