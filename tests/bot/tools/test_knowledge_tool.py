"""Looking things up in a call: in the agent's own documents, and in no others."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing
from pathlib import Path

import pytest

from bot.agents import load_agent
from bot.knowledge import knowledge
from bot.knowledge.knowledge import AWAY, NOTHING, Knowledge
from bot.knowledge.passages import Passage
from bot.knowledge.store import Store
from bot.settings import KnowledgeSettings, ToolSettings
from bot.tools.toolbox import open_toolbox
from pipeline.tools.runner import Outcome
from tests.bot.tools.kit import use


def fill(folder: Path, base: str, name: str, text: str) -> None:
    with closing(Store(folder, base, create=True, writing=True)) as store:
        store.put(name, "digest", 1, [Passage(text, ("Returns",), line=3)])


async def looked_up(folder: Path, query: str) -> Outcome:
    """By an agent whose file is ``shop.yaml``."""
    (folder / "shop.yaml").write_text("name: Shop\ntools: [search_knowledge]\n")
    agent = load_agent(folder, "shop")
    async with (
        Knowledge(KnowledgeSettings(folder=folder)) as base,
        open_toolbox(ToolSettings(), agent, knowledge=base) as box,
    ):
        tools = box.tools()
        assert tools["search_knowledge"].outside  # a document may come from anybody
        return await use(tools, "search_knowledge", query=query)


async def test_what_the_agents_documents_say_is_told_with_its_source(tmp_path: Path) -> None:
    fill(tmp_path, "shop", "returns.md", "Boots come back within thirty days.")
    fill(tmp_path, "other", "secret.md", "Boots never come back.")
    found = await looked_up(tmp_path, "can boots come back")
    assert found.sources == ("returns.md, line 3",)
    assert found.content == "[returns.md, line 3] Returns\nBoots come back within thirty days."


async def test_what_is_nowhere_near_is_said_so(tmp_path: Path) -> None:
    fill(tmp_path, "shop", "returns.md", "Boots come back within thirty days.")
    assert await looked_up(tmp_path, "the capital of mongolia") == Outcome(NOTHING, ok=True, outside=True)


async def test_without_a_base_the_model_is_told_not_to_guess(tmp_path: Path) -> None:
    assert (await looked_up(tmp_path, "boots")).content == AWAY


async def test_it_is_made_ready_before_anybody_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks first does not wait for an encoder to be loaded."""
    loaded = threading.Event()
    monkeypatch.setattr(knowledge, "load_encoder", lambda _: loaded.set())
    fill(tmp_path, "shop", "returns.md", "Boots come back within thirty days.")
    (tmp_path / "shop.yaml").write_text("name: Shop\ntools: [search_knowledge]\n")
    async with (
        Knowledge(KnowledgeSettings(folder=tmp_path)) as base,
        open_toolbox(ToolSettings(), load_agent(tmp_path, "shop"), knowledge=base),
    ):
        assert await asyncio.to_thread(loaded.wait, 10)
