"""The application by HTTP: which agent answers, and whose conversation goes on."""

from __future__ import annotations

import pytest

from bot.agent_folder import AgentFolder
from bot.agent_keys import digest
from bot.agents import Agent
from bot.remembering import F_AGENT
from bot.settings import IceServer
from pipeline.conversation import Conversation
from pipeline.memory import Remembered
from tests.bot.served_app import (
    AGENT,
    ENTRY,
    code,
    parley,
    settle,
)


async def test_one_who_calls_again_goes_on_with_what_was_said_even_where_all_lines_are_busy(
    offer: dict[str, str],
) -> None:
    async with parley(max_calls=1) as p:
        first = (await p.post(offer)).json()
        assert (await p.post(offer)).status_code == 503  # another caller
        again = await p.post(offer | {"resume": first["resume"]})
        assert again.status_code == 200
        old, new = p.lines
        assert old.reason == "replaced"
        assert new.name == old.name
        assert old.name not in first["resume"]
        assert new.remembered is not None
        assert new.remembered.conversation is old.conversation
        assert new.remembered.history == [ENTRY]
        assert again.json()["resume"] == first["resume"]
        assert not p.asked
        await new.end()
        await settle(lambda: new.connection.pc.connectionState == "closed")
        assert (await p.post(offer | {"resume": first["resume"]})).status_code == 200  # and again
        assert p.lines[2].remembered is not None


KEY = "a key of many letters"
SEVERAL = AgentFolder(
    {
        "bluebird": AGENT,
        "sales": Agent(name="Sales", examples=("What is new?",)),
        "locked": Agent(name="Locked", keys=(digest(KEY),)),
    },
    faults={"bad": "bad.yaml: line 1: secret: is wrong."},
)


async def test_each_agent_has_a_page_and_calls_of_its_own(offer: dict[str, str]) -> None:
    async with parley(agents=SEVERAL) as p:
        info = (await p.http.get("/a/sales/api/info")).json()
        assert (info["agent"]["name"], info["examples"]) == ("Sales", ["What is new?"])
        page = await p.http.get("/a/sales/")
        assert (page.status_code, page.text) == (200, (await p.http.get("/")).text)
        assert (await p.http.get("/a/sales/main.js")).text == (await p.http.get("/main.js")).text
        assert (await p.http.get("/a/sales")).headers["location"] == "sales/"
        for path in ("/a/sales/api/offer", "/api/offer"):
            assert (await p.http.post(path, json=offer)).status_code == 200
        assert [line.agent for line in p.lines] == ["sales", "bluebird"]
        candidates = await p.http.patch("/a/sales/api/offer", json={"pc_id": "nobody", "candidates": []})
        assert code(candidates) == "unknown_connection"


@pytest.mark.parametrize("name", ["nobody", "bluebird.yaml", "%2e%2e%2fbluebird", "a/b"])
async def test_an_agent_that_is_not_there_is_404_in_words(offer: dict[str, str], name: str) -> None:
    async with parley(agents=SEVERAL) as p:
        assert (await p.http.get(f"/a/{name}/")).status_code == 404
        info = await p.http.get(f"/a/{name}/api/info")
        assert (info.status_code, code(info)) in ((404, "unknown_agent"), (404, "http"))
        called = await p.http.post(f"/a/{name}/api/offer", json=offer)
        assert called.status_code in (404, 405)
        assert not p.lines


async def test_an_agent_with_a_fault_says_so_and_shows_nothing_of_its_file(offer: dict[str, str]) -> None:
    async with parley(agents=SEVERAL) as p:
        assert (await p.http.get("/a/bad/")).status_code == 404
        for response in (
            await p.http.get("/a/bad/api/info"),
            await p.http.post("/a/bad/api/offer", json=offer),
        ):
            assert (response.status_code, code(response)) == (503, "agent_fault")
            assert "secret" not in response.text


async def test_an_agent_with_a_key_answers_only_who_has_it(offer: dict[str, str]) -> None:
    async with parley(agents=SEVERAL, ice_servers=(IceServer(urls="turn:a", credential="c"),)) as p:
        right, wrong = {"Authorization": f"Bearer {KEY}"}, {"Authorization": "Bearer another"}
        for headers in ({}, wrong, {"Authorization": f"Basic {KEY}"}):
            refused = await p.http.post("/a/locked/api/offer", json=offer, headers=headers)
            assert (refused.status_code, code(refused)) == (401, "needs_key")
            assert refused.headers["www-authenticate"] == "Bearer"
        assert (await p.http.post("/a/locked/api/offer", json=offer, headers=right)).status_code == 200
        assert (await p.http.post("/api/offer", json=offer, headers=right)).status_code == 200
        assert (await p.http.post("/a/sales/api/offer", json=offer, headers=right)).status_code == 200
        assert (await p.http.post("/api/offer", json=offer)).status_code == 200
        assert [line.agent for line in p.lines] == ["locked", "locked", "sales", "bluebird"]
        assert (await p.http.post("/api/offer", json=offer, headers=wrong)).status_code == 401
        closed = (await p.http.get("/a/locked/api/info")).json()
        assert (closed["needs_key"], closed["ice_servers"]) == (True, [])  # which may hold a password
        opened = (await p.http.get("/api/info", headers=right)).json()
        assert (opened["agent"]["name"], opened["needs_key"], len(opened["ice_servers"])) == (
            "Locked",
            False,
            1,
        )


async def test_without_any_keys_a_bearer_is_nobodys_business(offer: dict[str, str]) -> None:
    async with parley() as p:
        assert (await p.post(offer, Authorization="Bearer anything")).status_code == 200


async def test_who_calls_again_stays_with_the_agent_of_the_conversation(offer: dict[str, str]) -> None:
    right = {"Authorization": f"Bearer {KEY}"}
    async with parley(agents=SEVERAL, max_calls=8) as p:
        first = (await p.http.post("/a/locked/api/offer", json=offer, headers=right)).json()
        again = offer | {"resume": first["resume"]}
        refused = await p.http.post("/api/offer", json=again)
        assert code(refused) == "needs_key"  # the token alone does not open it
        assert (await p.http.post("/a/sales/api/offer", json=again, headers=right)).status_code == 200
        old, new = p.lines
        assert (old.agent, new.agent, new.name) == ("locked", "locked", old.name)
        assert new.remembered is not None


@pytest.mark.parametrize(
    ("facts", "agent", "goes_on"),
    [({F_AGENT: "sales"}, "sales", True), ({F_AGENT: "gone"}, "bluebird", False), ({}, "bluebird", True)],
)
async def test_a_conversation_of_another_process_stays_with_its_agent_while_there_is_one(
    offer: dict[str, str], facts: dict[str, str], agent: str, goes_on: bool
) -> None:
    async with parley(known=Remembered("x", facts, [ENTRY], Conversation()), agents=SEVERAL) as p:
        assert (await p.post(offer | {"resume": "a" * 32})).status_code == 200
        assert p.lines[0].agent == agent
        assert (p.lines[0].remembered is not None) is goes_on


async def test_a_conversation_of_another_process_is_looked_up(offer: dict[str, str]) -> None:
    known = Remembered("x", {}, [ENTRY], Conversation())
    async with parley(known=known) as p:
        assert (await p.post(offer | {"resume": "a" * 32})).status_code == 200
        assert p.lines[0].remembered is known
        assert p.asked == [p.lines[0].name]
        assert (await p.post(offer)).status_code == 200
        assert p.lines[1].remembered is None  # a new caller has no past
        assert p.lines[1].name != p.lines[0].name


async def test_a_token_that_is_none_is_refused_in_words(offer: dict[str, str]) -> None:
    async with parley() as p:
        for token in ("", "short", "a" * 33, "../" * 11, 7):
            response = await p.post(offer | {"resume": token})
            assert response.status_code == 422
            assert code(response) == "bad_request"
        assert not p.lines
