"""infra/compose as docker-compose reads it. No image is built here: there is no Docker daemon."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from bot.settings import Settings
from infra.sip.settings import Settings as EdgeSettings
from infra.sip.settings import read_file, read_settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra" / "compose"
ALL = ("--profile", "phone", "--profile", "turn")


def _config(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PARLEY_", "REDIS_"))}
    return subprocess.run(
        ["docker-compose", *options, "config"], cwd=folder, env=clean, capture_output=True, text=True
    )


def _services(folder: Path, *options: str, **variables: str) -> dict[str, Any]:
    own = {"REDIS_PASSWORD": "secret"} | variables
    (folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in own.items()))
    done = _config(folder, *options)
    assert done.returncode == 0, done.stderr
    services: dict[str, Any] = yaml.safe_load(done.stdout)["services"]
    return services


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(FOLDER, tmp_path / "compose")
    return tmp_path / "compose"


@pytest.mark.e2e
def test_nothing_starts_without_a_password_for_redis(folder: Path) -> None:
    done = _config(folder)
    assert done.returncode != 0
    assert "set REDIS_PASSWORD in .env" in done.stderr


@pytest.mark.e2e
def test_parley_is_told_what_env_says_and_nothing_empty(folder: Path) -> None:
    services = _services(folder, PARLEY_MAX_CALLS="7")
    environment = {
        name: value for name, value in services["parley"]["environment"].items() if value is not None
    }
    assert environment["PARLEY_MAX_CALLS"] == "7"
    assert environment["PARLEY_REDIS__URL"] == "redis://:secret@127.0.0.1:6379/0"
    assert "PARLEY_CHECKPOINT" not in environment  # its default is nano, and "" is no checkpoint
    known = {f"PARLEY_{name.upper()}" for name in Settings.model_fields}
    assert {name.partition("__")[0] for name in environment} <= known


@pytest.mark.e2e
def test_a_profile_brings_what_it_is_named_for(folder: Path) -> None:
    services = _services(folder, *ALL)
    assert services["edge"]["profiles"] == ["phone"]
    assert services["coturn"]["profiles"] == ["turn"]
    assert not any("profiles" in services[name] for name in ("parley", "redis"))


@pytest.mark.e2e
def test_calls_are_over_before_parley_is_killed(folder: Path) -> None:
    parley = _services(folder)["parley"]
    grace = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", parley["stop_grace_period"])
    assert grace is not None
    seconds = int(grace[1] or 0) * 60 + int(grace[2] or 0)
    assert seconds > float(parley["environment"]["PARLEY_DRAIN_S"])


@pytest.mark.e2e
def test_nothing_has_rights_or_a_log_without_bounds(folder: Path) -> None:
    for name, service in _services(folder, *ALL).items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["logging"]["options"]["max-size"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    for file in ("Dockerfile", "edge.Dockerfile"):
        instructions = (FOLDER / file).read_text()
        assert instructions.rindex("USER parley") > instructions.rindex("FROM ")


def test_what_the_images_copy_is_there_and_let_through() -> None:
    let_through = re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.M)
    for file in ("Dockerfile", "edge.Dockerfile"):
        for line in re.findall(r"^COPY (?!--from)(.+)$", (FOLDER / file).read_text(), re.M):
            for source in line.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert source.partition("/")[0] in let_through, source


def test_the_example_of_the_edges_settings_is_good(tmp_path: Path) -> None:
    example = ROOT / "infra" / "sip" / "edge.env.example"
    assert isinstance(read_settings(read_file(example)), EdgeSettings)
    everything = tmp_path / "edge.env"
    everything.write_text(
        example.read_text().replace("# EDGE_", "EDGE_").replace("/etc/parley/secrets/", "/dev/null/")
    )
    with pytest.raises(Exception, match="Not a directory") as caught:
        read_settings(read_file(everything))
    assert "no such setting" not in str(caught.value)
