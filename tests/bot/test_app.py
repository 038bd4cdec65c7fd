"""The application by HTTP: offers good and bad, health, the page."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from aiortc import RTCPeerConnection
from aiortc.mediastreams import AudioStreamTrack
from fastapi import FastAPI
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection

from bot.agent_folder import AgentFolder
from bot.agent_keys import digest
from bot.agents import Agent
from bot.app import create_app
from bot.engine_process import Engine, EngineStatus
from bot.hosts import WebSettings
from bot.ingress.webrtc import LiveCall, MakeCall, Recall
from bot.reception import Reception
from bot.remembering import F_AGENT
from bot.settings import IceServer, Settings
from bot.voices.shared import SharedVoices
from model_runtime.protocol import HistoryEntry, Opened
from pipeline.call import CallEnd
from pipeline.conversation import Conversation
from pipeline.memory import Memory, Remembered

ABOUT = Opened("nano", label="demo model", voice="slt", transcribes=True, examples=["When are you open?"])
AGENT = Agent(name="Bluebird", greeting="Hello")
ENTRY = HistoryEntry(0, [1, 2])


ALONE = AgentFolder({"bluebird": AGENT})


class GivenReception(Reception):
    """A reception whose calls the test makes."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        make_call: MakeCall,
        recall: Recall,
        agents: AgentFolder = ALONE,
    ) -> None:
        memory = Memory("unix:///nowhere")
        super().__init__(settings, agents, engine, memory, SharedVoices(memory.voices, settings.voices_dir))
        self._make_call = make_call
        self._recall = recall

    def browser_call(self, *of_call: Any) -> LiveCall:
        return self._make_call(*of_call)

    async def recall(self, name: str) -> Remembered | None:
        return await self._recall(name)


class GivenEngine(Engine):
    """An engine whose state the test decides."""

    def __init__(self, status: EngineStatus) -> None:
        super().__init__("ws://nowhere")
        self.status = status

    async def run(self) -> None:
        await asyncio.Event().wait()


@dataclass
class Line:
    """A call without sound: lasts until it is ended."""

    connection: SmallWebRTCConnection
    over: asyncio.Event = field(default_factory=asyncio.Event)
    reason: str = ""
    agent: str = ""
    name: str = ""
    remembered: Remembered | None = None
    conversation: Conversation = field(default_factory=Conversation)

    async def run(self) -> CallEnd:
        await self.over.wait()
        return CallEnd("id", self.reason, 0.0, self.conversation, [ENTRY])

    async def end(self, reason: str = "ended") -> None:
        self.reason = reason
        self.over.set()


@dataclass
class Parley:
    """The application under test, a client for it, and the calls it has made."""

    http: httpx.AsyncClient
    engine: GivenEngine
    lines: list[Line]
    asked: list[str]

    async def post(self, body: Any, **headers: str) -> httpx.Response:
        return await self.http.post("/api/offer", json=body, headers=headers)


@asynccontextmanager
async def parley(
    status: EngineStatus | None = None,
    known: Remembered | None = None,
    agents: AgentFolder = ALONE,
    **changes: Any,
) -> AsyncIterator[Parley]:
    """``known``: what is remembered of every conversation that this process does not know."""
    engine = GivenEngine(status or EngineStatus("ready", about=ABOUT))
    lines: list[Line] = []
    asked: list[str] = []

    def make_call(
        agent: str, connection: SmallWebRTCConnection, _: str, name: str, remembered: Remembered | None
    ) -> Line:
        lines.append(Line(connection, agent=agent, name=name, remembered=remembered))
        return lines[-1]

    async def recall(name: str) -> Remembered | None:
        asked.append(name)
        return known

    settings = Settings.model_construct(**changes)
    async with GivenReception(settings, engine, make_call, recall, agents) as reception:
        app: FastAPI = create_app(settings, reception, engine)
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://localhost") as http,
        ):
            yield Parley(http, engine, lines, asked)


@pytest.fixture
async def offer() -> AsyncIterator[dict[str, str]]:
    """What a browser posts, made by aiortc."""
    peer = RTCPeerConnection()
    peer.addTrack(AudioStreamTrack())
    peer.createDataChannel("parley")
    await peer.setLocalDescription(await peer.createOffer())
    yield {"sdp": peer.localDescription.sdp, "type": "offer"}
    await peer.close()


async def nothing_known(name: str) -> Remembered | None:
    return None


async def settle(fact: Callable[[], bool]) -> None:
    for _ in range(500):
        if fact():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to be")


def code(response: httpx.Response) -> str:
    """The error's code; every refusal has a message, and shows nothing of our insides."""
    error = response.json()["error"]
    assert error["message"].endswith(".") or response.status_code in (404, 405)
    assert not re.search(r"Traceback|Error\(|/bot/|aiortc|pydantic", response.text)
    return str(error["code"])


async def test_an_offer_is_answered_and_a_call_begins(offer: dict[str, str]) -> None:
    async with parley() as p:
        response = await p.post(offer)
        answer = response.json()
        assert response.status_code == 200
        assert answer["type"] == "answer"
        assert "a=sendrecv" in answer["sdp"]
        assert len(p.lines) == 1
        assert (await p.http.get("/api/info")).json()["calls"] == {"now": 1, "max": 4}
        candidate = "candidate:1 1 udp 2113937151 127.0.0.1 50000 typ host"
        found = {"candidate": candidate, "sdp_mid": "0", "sdp_mline_index": 0}
        patch = {"pc_id": answer["pc_id"], "candidates": [found, found | {"candidate": ""}]}
        assert (await p.http.patch("/api/offer", json=patch)).json() == {"status": "success"}


async def test_a_full_server_refuses_at_once_and_takes_the_next_when_one_has_gone(
    offer: dict[str, str],
) -> None:
    async with parley(max_calls=1) as p:
        assert (await p.post(offer)).status_code == 200
        refused = await p.post(offer)
        assert refused.status_code == 503
        assert code(refused) == "full"
        assert int(refused.headers["retry-after"]) > 0
        assert (await p.http.get("/api/info")).json()["full"]
        await p.lines[0].end()
        await settle(lambda: p.lines[0].connection.pc.connectionState == "closed")
        assert (await p.post(offer)).status_code == 200


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


async def test_a_page_that_has_its_own_name_point_here_is_refused(offer: dict[str, str]) -> None:
    async with parley() as p:
        evil = {"Host": "evil.example:8080", "Origin": "http://evil.example:8080"}  # one site, to a browser
        for path in ("/", "/api/info", "/main.js", "/a/bluebird/"):
            assert (await p.http.get(path, headers=evil)).status_code == 421
        refused = await p.http.post("/api/offer", json=offer, headers=evil)
        assert (refused.status_code, code(refused)) == (421, "host")
        assert "PARLEY_WEB__HOSTS" in refused.text
        assert not p.lines
    async with parley(web=WebSettings(hosts=("bot.example",)), host="0.0.0.0") as p:
        assert (await p.http.get("/", headers={"Host": "bot.example"})).status_code == 200
        assert (await p.http.get("/", headers={"Host": "evil.example"})).status_code == 421


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


async def test_bad_offers_leave_nothing_behind(offer: dict[str, str]) -> None:
    broken = offer["sdp"].replace("opus/48000", "nonsense/48000").replace("PCM", "XXX").replace("G722", "XXX")
    video = offer["sdp"].replace("m=audio", "m=video")
    async with parley(max_calls=1) as p:
        for sdp in (
            "v=0",
            "hello",
            "\r\n\r\n",
            video,
            broken,
            offer["sdp"][:200],
            "a=" * 9000,
            "\x00\ud83d"[:1],
        ):
            response = await p.post({"sdp": sdp, "type": "offer"})
            assert response.status_code == 400, sdp
            assert code(response) == "bad_offer"
        assert p.lines == []
        assert (await p.post(offer)).status_code == 200  # none of them kept the only place


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        "offer",
        {"sdp": "v=0"},
        {"sdp": "", "type": "offer"},
        {"sdp": "v=0", "type": "answer"},
        {"sdp": 5, "type": "offer"},
        {"sdp": "v" * 40_000, "type": "offer"},
        {"sdp": "v=0", "type": "offer", "pc_id": {}},
        {"sdp": "v=0", "type": "offer", "request_data": "text"},
    ],
)
async def test_a_body_of_the_wrong_shape_is_refused(body: Any) -> None:
    async with parley() as p:
        response = await p.post(body)
        assert response.status_code == 422
        assert code(response) == "bad_request"


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 50_000, "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"{}", "application/x-www-form-urlencoded", 415),
        (b" " * 100_000, "application/json", 413),
    ],
)
async def test_what_is_not_small_json_is_refused(content: bytes, kind: str, status: int) -> None:
    async with parley() as p:
        for method in ("POST", "PATCH"):
            response = await p.http.request(
                method, "/api/offer", content=content, headers={"Content-Type": kind}
            )
            assert response.status_code == status
            assert code(response)


async def test_pages_of_other_sites_may_not_call_unless_allowed(offer: dict[str, str]) -> None:
    async with parley(allowed_origins=("https://shop.example",)) as p:
        assert code(await p.post(offer, Origin="https://evil.example")) == "origin"
        assert (await p.post(offer, Origin="null")).status_code == 403
        assert (await p.post(offer, Origin="http://[")).status_code == 403
        assert (await p.post(offer, Origin="http://localhost")).status_code == 200
        allowed = await p.post(offer, Origin="https://shop.example")
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
        asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
        asked["Access-Control-Request-Headers"] = "authorization,content-type"
        assert (await p.http.options("/api/offer", headers=asked)).status_code == 200


async def test_bad_candidates_are_refused(offer: dict[str, str]) -> None:
    async with parley() as p:
        unknown = await p.http.patch("/api/offer", json={"pc_id": "nobody", "candidates": []})
        assert (unknown.status_code, code(unknown)) == (404, "unknown_connection")
        known = (await p.post(offer)).json()["pc_id"]
        good = "candidate:1 1 udp 2113937151 127.0.0.1 50000 typ host"
        for found in (
            {"candidate": "candidate:", "sdp_mid": "0"},
            {"candidate": "1 1 udp x y z typ host", "sdp_mid": "0"},
            {"candidate": good},
        ):
            response = await p.http.patch("/api/offer", json={"pc_id": known, "candidates": [found]})
            assert (response.status_code, code(response)) == (400, "bad_offer")
        many = {"pc_id": known, "candidates": [{"candidate": good, "sdpMid": "0"}] * 100}
        assert (await p.http.patch("/api/offer", json=many)).status_code == 422


async def test_until_the_engine_answers_calls_are_refused_with_the_reason(offer: dict[str, str]) -> None:
    async with parley(EngineStatus("starting", "The speech model is being loaded.")) as p:
        ready = await p.http.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["reason"] == "The speech model is being loaded."
        assert (await p.http.get("/healthz")).status_code == 200
        refused = await p.post(offer)
        assert (refused.status_code, code(refused)) == (503, "engine_not_ready")
        assert "loaded" in refused.json()["error"]["message"]
        assert p.lines == []
        p.engine.status = EngineStatus("ready", about=ABOUT)
        assert (await p.http.get("/readyz")).json() == {
            "ready": True,
            "engine": "ready",
            "reason": "",
            "phone": "off",
        }
        assert (await p.post(offer)).status_code == 200


async def test_the_page_is_told_who_answers_and_what_to_ask() -> None:
    async with parley() as p:
        info = (await p.http.get("/api/info")).json()
    assert info["agent"]["name"] == "Bluebird"
    assert (info["checkpoint"], info["label"]) == ("nano", "demo model")
    assert info["examples"] == ["When are you open?"]
    assert info["ready"]
    assert not info["full"]


async def test_the_page_and_all_it_names_are_served_under_a_strict_policy() -> None:
    async with parley() as p:
        page = await p.http.get("/")
        assert page.status_code == 200
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert page.headers["x-content-type-options"] == "nosniff"
        assert "microphone=(self)" in page.headers["permissions-policy"]
        named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        script = (await p.http.get("/main.js")).text
        named += re.findall(r"from '\./([^']+)'", script)
        assert {"main.js", "parley.css", "mark.svg", "call.js", "captions.js"} <= set(named)
        for name in named:
            assert "//" not in name  # nothing from anybody else's server
            assert (await p.http.get(f"/{name}")).status_code == 200
        assert not re.search(r"<script(?![^>]* src=)|<style| style=| on\w+=", page.text)


@pytest.mark.parametrize(
    "path", ["/no-such-thing", "/../settings.py", "/%2e%2e/settings.py", "/docs", "/openapi.json"]
)
async def test_nothing_else_is_served(path: str) -> None:
    async with parley() as p:
        response = await p.http.get(path)
        assert response.status_code == 404
        assert code(response)


async def test_stopping_ends_the_calls_there_are(offer: dict[str, str]) -> None:
    async with parley() as p:
        await p.post(offer)
        lines = p.lines
    assert lines[0].reason == "stopping"
    assert lines[0].connection.pc.connectionState == "closed"


async def test_a_call_that_cannot_be_built_gives_its_place_back(offer: dict[str, str]) -> None:
    def fails(*_: Any) -> Line:
        raise RuntimeError("secret detail")

    settings, engine = Settings.model_construct(max_calls=1), GivenEngine(EngineStatus("ready"))
    async with GivenReception(settings, engine, fails, nothing_known) as reception:
        transport = httpx.ASGITransport(create_app(settings, reception, engine), raise_app_exceptions=False)
        http = httpx.AsyncClient(transport=transport, base_url="http://localhost")
        for _ in range(2):
            response = await http.post("/api/offer", json=offer)
            assert (response.status_code, code(response)) == (500, "internal")
            assert "secret" not in response.text
