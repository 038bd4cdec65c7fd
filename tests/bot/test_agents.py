"""Agents in YAML files: the shipped one, and what a person who wrote a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.agents import AgentError, load_agent
from bot.settings import PACKAGE


def test_the_shipped_agent_greets_for_the_shop() -> None:
    agent = load_agent(PACKAGE / "agents", "bluebird")
    assert agent.name == "Bluebird Outdoor"
    assert agent.greeting == "Hello, this is Bluebird Outdoor. How can I help you?"
    assert (agent.voice, agent.language) == ("rms", "en")


def test_a_name_alone_is_an_agent(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: Ann\n")
    agent = load_agent(tmp_path, "a")
    assert (agent.name, agent.greeting, agent.voice, agent.tools) == ("Ann", "", "", ())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("greeting: hi", "name: is missing"),
        ("name: ''", "name"),
        ("name: A\ngreting: hi", "greting: there is no such field"),
        ("name: A\nlanguage: English!", "language"),
        ("name: A\ntools: [weather]", "tools"),
        ("name: A\nvoice: [x]", "voice"),
        ("- name", "should hold fields"),
        ("", "should hold fields"),
        ("name: [", "line 1: is not YAML"),
        ("name: !!python/object/apply:os.system [ls]", "is not YAML"),
    ],
)
def test_a_wrong_file_is_refused_by_name_and_field(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(AgentError) as caught:
        load_agent(tmp_path, "wrong")
    assert "wrong.yaml" in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(AgentError, match="UTF-8"):
        load_agent(tmp_path, "wrong")


@pytest.mark.parametrize("name", ["nobody", "../secret", "/etc/passwd", ""])
def test_an_unknown_agent_is_refused_with_those_there_are(tmp_path: Path, name: str) -> None:
    (tmp_path / "ann.yaml").write_text("name: Ann")
    (tmp_path.parent / "secret.yaml").write_text("name: Secret")
    with pytest.raises(AgentError, match="there is: ann"):
        load_agent(tmp_path, name)
