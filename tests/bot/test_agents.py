"""Agents in YAML files: the shipped one, and what a person who wrote a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.agent_keys import opens
from bot.agents import AgentError, load_agent
from bot.settings import PACKAGE
from bot.tools.registry import find


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
        ("name: A\ntools: [wether]", "line 2: tools[1]: there is no tool 'wether' (there are date_time"),
        ("name: A\ntools:\n  - weather\n  - transfer", "line 4: tools[2]: transfer: options: targets"),
        (
            "name: A\ntools:\n  - name: transfer\n    policy: allow\n    options: {targets: {sales: '100'}}",
            "line 3: tools[1]: transfer: options: targets: sales: '100' is not an address to call; one looks",
        ),
        ("name: A\ntools:\n  - hang_up", "line 3: tools[1]: hang_up is privileged"),
        ("name: A\ntools:\n  - weather\n  - weather", "line 4: tools[2]: weather is there twice"),
        ("name: A\ntools:\n  - name: weather\n    polcy: allow", "line 4: tools[1].polcy: there is no such"),
        ("name: A\ntools:\n  - name: weather\n    allow: {town: [Rome]}", "it has no argument 'town'"),
        ("name: A\ntools:\n  - {name: mine, from: mine.py}", "line 3: tools[1]: there is no file"),
        ("name: A\nmcp:\n  - name: shop\n    tools: [x]", "line 3: mcp[1]: should have either a command or"),
        ("name: A\nmcp:\n  - name: shop\n    url: http://x", "line 3: mcp[1].tools: is missing"),
        ("name: A\n\ntime_zone: Mars", "line 3: time_zone: there is no time zone 'Mars'"),
        ("name: A\nanswers:\n  numbers: [100]", "line 3: answers.numbers[1]: write it in quotes"),
        ("name: A\nanswers: {}", "line 2: answers: should say which calls"),
        ("name: A\nkeys:\n  - open-sesame-open", "line 3: keys[1]: should be $NAME"),
        ("name: A\nagreeing: {words: []}", "line 2: agreeing.words: "),
        ("name: A\nvoice: [x]", "voice"),
        ("name: A\nwaiting: {after_s: -1}", "line 2: waiting.after_s: "),
        ("name: A\nwaiting:\n  words: Hold on.", "line 3: waiting.words: there is no such field"),
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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "One moment, please."),
        ("language: en-GB", "One moment, please."),
        ("language: de", "Einen Moment, bitte."),
        ("language: sw", ""),  # none of ours: the file has to say them
        ("language: sw\nwaiting: {say: Subiri kidogo.}", "Subiri kidogo."),
        ("waiting: {say: ' Hold on. ', after_s: 2}", "Hold on."),
        ("waiting: {after_s: 0}", ""),
        ("waiting: {say: Hold on., after_s: 0}", ""),
    ],
)
def test_what_those_hear_who_wait_for_a_tool(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.yaml").write_text(f"name: A\n{text}\n")
    assert load_agent(tmp_path, "a").waiting_words == words


def test_the_shipped_agent_says_nothing_that_its_model_cannot_say() -> None:
    assert load_agent(PACKAGE / "agents", "bluebird").waiting_words == ""


def readme_agent() -> str:
    """The agent in the README's section on tools."""
    readme = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## Tools\n")[2]
    return section.partition("```yaml\n")[2].partition("```")[0]


def test_the_agent_in_the_readme_has_its_tools(tmp_path: Path) -> None:
    (tmp_path / "receptionist.yaml").write_text(readme_agent())
    (tmp_path / "orders.py").write_text(readme_tool())
    agent = load_agent(tmp_path, "receptionist")
    assert {use.name for use in agent.tools} == {
        "date_time", "weather", "web_search", "hang_up", "transfer", "cancel_order",
    }  # fmt: skip
    assert agent.time_zone == "America/New_York"
    assert agent.mcp[0].tools[0].name == "order_status"
    assert find(agent.tools[-1], tmp_path).privileged


def test_the_agent_in_the_readme_answers_its_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALES_KEY", "a key of many letters")
    readme = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    text = readme.partition("## Agents\n")[2].partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "sales.yaml").write_text(text)
    agent = load_agent(tmp_path, "sales")
    assert agent.answers is not None
    assert agent.answers.said() == "100, +4930123*; from carrier; X-Department: sales"
    assert opens("a key of many letters", agent.keys)


def readme_tool() -> str:
    """The operator's own tool there."""
    readme = (PACKAGE.parent / "README.md").read_text(encoding="utf-8")
    return readme.partition("## Tools\n")[2].partition("```python\n")[2].partition("```")[0]


def test_callers_may_agree_in_another_language(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: A\nagreeing: {words: [ja], filler: [bitte]}\n")
    words = load_agent(tmp_path, "a").agreeing_words
    assert (sorted(words.yes), sorted(words.filler)) == (["ja"], ["bitte"])
