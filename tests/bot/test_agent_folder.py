"""A folder of agents: what is wrong with one is said of that one, and two never answer the same call."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bot.agent_folder import AgentFolder, open_folder, read_folder
from bot.agent_keys import digest
from bot.agents import AgentError
from bot.ingress.sip.settings import SipSettings
from bot.settings import Settings


def write(folder: Path, **agents: str) -> None:
    for name, text in agents.items():
        (folder / f"{name}.yaml").write_text(text)


def answering(number: str) -> str:
    return f"name: A\nanswers:\n  numbers: ['{number}']\n"


def same(folder: Path, one: str, other: str) -> str:
    return f"{folder}/{one}: the same stands in {folder}/{other}, and it can only be one agent's."


def names(found: AgentFolder) -> list[str]:
    return sorted(found.agents)


def test_all_agents_are_found_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, a="name: A", b="name: B")
    (tmp_path / ".#a.yaml").symlink_to("nowhere")  # an editor's
    (tmp_path / "notes.txt").write_text("name: C")
    assert names(read_folder(tmp_path)) == ["a", "b"]


def test_a_broken_one_is_named_with_its_line_and_the_others_answer(tmp_path: Path) -> None:
    write(tmp_path, a="name: A", b="name: B\nvioce: x", c=": [")
    found = read_folder(tmp_path)
    assert names(found) == ["a"]
    assert f"{tmp_path}/b.yaml: line 2: vioce: there is no such field" in found.faults["b"]
    assert f"{tmp_path}/c.yaml, line 1: is not YAML" in found.faults["c"]


def test_two_that_answer_the_same_number_are_named_with_their_lines(tmp_path: Path) -> None:
    write(tmp_path, a=answering("100"), b=f"language: en\n{answering('100')}", c=answering("10*"))
    found = read_folder(tmp_path)
    assert names(found) == ["a", "c"]
    assert found.faults == {"b": same(tmp_path, "b.yaml, line 4", "a.yaml, line 3")}
    found = read_folder(tmp_path, ["b"])  # who answers the page comes first
    assert found.faults == {"a": same(tmp_path, "a.yaml, line 3", "b.yaml, line 4")}


def test_one_key_opens_one_agent(tmp_path: Path) -> None:
    key = digest("k" * 20)
    write(tmp_path, a=f"name: A\nkeys: ['{key}']", b=f"name: B\nkeys:\n- '{digest('x')}'\n- '{key}'")
    found = read_folder(tmp_path)
    assert found.faults == {"b": same(tmp_path, "b.yaml, line 4", "a.yaml, line 2")}


def test_what_has_not_changed_is_the_same_object_and_what_was_touched_is_not(tmp_path: Path) -> None:
    write(tmp_path, a="name: A", b="name: B\ntools: [{name: mine, from: mine.py}]")
    tool = tmp_path / "mine.py"
    tool.write_text('def mine() -> str:\n    """Do."""\n    return "x"\n')
    first = read_folder(tmp_path)
    again = read_folder(tmp_path, before=first)
    assert again.agents["a"] is first.agents["a"]
    assert again.agents["b"] is first.agents["b"]
    os.utime(tool, ns=(1, 1))
    third = read_folder(tmp_path, before=again)
    assert third.agents["a"] is first.agents["a"]
    assert third.agents["b"] is not first.agents["b"]


def test_one_that_breaks_stays_as_it_was_until_it_is_mended(tmp_path: Path) -> None:
    write(tmp_path, a="name: A", b="name: B")
    first = read_folder(tmp_path)
    write(tmp_path, a="name: [", b="name: Bee")
    broken = read_folder(tmp_path, before=first)
    assert broken.agents["a"] is first.agents["a"]
    assert "a.yaml, line 1: is not YAML" in broken.faults["a"]
    assert broken.agents["b"].name == "Bee"
    (tmp_path / "b.yaml").unlink()
    still = read_folder(tmp_path, before=broken)
    assert still.agents == {"a": first.agents["a"]}
    assert still.faults == broken.faults
    write(tmp_path, a="name: Ann")
    mended = read_folder(tmp_path, before=still)
    assert (mended.agents["a"].name, mended.faults) == ("Ann", {})


def test_a_number_goes_to_another_agent_when_both_files_say_so(tmp_path: Path) -> None:
    write(tmp_path, a=answering("1"), b=answering("2"))
    first = read_folder(tmp_path)
    write(tmp_path, b=answering("1"))
    half = read_folder(tmp_path, before=first)
    assert half.agents == first.agents
    assert half.faults == {"b": same(tmp_path, "b.yaml, line 3", "a.yaml, line 3")}
    write(tmp_path, a=answering("2"))
    swapped = read_folder(tmp_path, before=half)
    assert swapped.faults == {}
    assert swapped.agents["b"].answers == first.agents["a"].answers


def test_who_has_not_changed_keeps_the_number_even_from_the_first(tmp_path: Path) -> None:
    write(tmp_path, a=answering("1"), b=answering("2"))
    first = read_folder(tmp_path, ["b"])
    write(tmp_path, b=answering("1"), c=answering("1"), d=answering("2"))
    now = read_folder(tmp_path, ["b"], first)
    assert now.agents == first.agents  # b stays as it was, and then 2 is not d's
    assert sorted(now.faults) == ["b", "c", "d"]


def test_those_without_whom_parley_cannot_be_stay_when_their_file_is_gone(tmp_path: Path) -> None:
    write(tmp_path, a="name: A", b="name: B")
    first = read_folder(tmp_path, ["a"])
    (tmp_path / "a.yaml").unlink()
    (tmp_path / "b.yaml").unlink()
    now = read_folder(tmp_path, ["a"], first)
    assert now.agents == {"a": first.agents["a"]}
    assert "There is no agent 'a'" in now.faults["a"]


def test_a_header_that_is_not_told_is_refused_with_the_setting_that_tells_it(tmp_path: Path) -> None:
    write(tmp_path, a="name: A\nanswers:\n  headers:\n    x-parley-source: '192.0.2.1'\n    X-Dept: '1'")
    with pytest.raises(AgentError, match=r"a\.yaml, line 5: .* X-Dept unless PARLEY_SIP__HEADERS names it"):
        open_folder(settings(tmp_path, "a"))
    told = Settings.model_construct(agents_dir=tmp_path, agent="a", sip=SipSettings(headers=("x-dept",)))
    assert names(open_folder(told)) == ["a"]


def settings(folder: Path, agent: str, on_phone: str = "") -> Settings:
    return Settings.model_construct(agents_dir=folder, agent=agent, sip=SipSettings(agent=on_phone))


def test_parley_starts_without_a_broken_agent_but_not_without_its_own(tmp_path: Path) -> None:
    write(tmp_path, a="name: A", b="name: ''")
    assert "b" in open_folder(settings(tmp_path, "a")).faults
    with pytest.raises(AgentError, match=r"b\.yaml: line 1: name"):
        open_folder(settings(tmp_path, "b"))
    with pytest.raises(AgentError, match=r"b\.yaml: line 1: name"):
        open_folder(settings(tmp_path, "a", "b"))
    with pytest.raises(AgentError, match=r"There is no agent 'c' in .*; there is: a, b"):
        open_folder(settings(tmp_path, "a", "c"))
    with pytest.raises(AgentError, match="nowhere: the agents cannot be read: No such file"):
        open_folder(settings(tmp_path / "nowhere", "a"))
