"""Looking things up in a call: in the agent's own documents, and in no others."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from bot.agents import load_agent
from bot.knowledge.knowledge import AWAY, NOTHING, Knowledge
from bot.knowledge.passages import Passage
from bot.knowledge.store import Store
from bot.settings import KnowledgeSettings, ToolSettings
from bot.tools.toolbox import open_toolbox
from tests.bot.tools.kit import use


def fill(folder: Path, base: str, name: str, text: str) -> None:
    with closing(Store(folder, base, create=True, writing=True)) as store:
        store.put(name, "digest", 1, [Passage(text, ("Returns",), line=3)])


async def looked_up(folder: Path, query: str) -> str:
    """By an agent whose file is ``shop.yaml``."""
    (folder / "shop.yaml").write_text("name: Shop\ntools: [search_knowledge]\n")
    agent = load_agent(folder, "shop")
    async with (
        Knowledge(KnowledgeSettings(folder=folder)) as knowledge,
        open_toolbox(ToolSettings(), agent, knowledge=knowledge) as box,
    ):
        tools = box.tools()
        assert tools["search_knowledge"].outside  # a document may come from anybody
        return (await use(tools, "search_knowledge", query=query)).content


async def test_what_the_agents_documents_say_is_told_with_its_source(tmp_path: Path) -> None:
    fill(tmp_path, "shop", "returns.md", "Boots come back within thirty days.")
    fill(tmp_path, "other", "secret.md", "Boots never come back.")
    said = await looked_up(tmp_path, "can boots come back")
    assert said == "[returns.md, line 3] Returns\nBoots come back within thirty days."


async def test_what_is_nowhere_near_is_said_so(tmp_path: Path) -> None:
    fill(tmp_path, "shop", "returns.md", "Boots come back within thirty days.")
    assert await looked_up(tmp_path, "the capital of mongolia") == NOTHING


async def test_without_a_base_the_model_is_told_not_to_guess(tmp_path: Path) -> None:
    assert await looked_up(tmp_path, "boots") == AWAY
