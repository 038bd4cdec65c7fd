"""The application by HTTP: offers good and bad, health, the page."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from bot.app import create_app
from bot.engine_process import EngineStatus
from bot.hosts import WebSettings
from bot.settings import Settings
from tests.bot.served_app import (
    ABOUT,
    GivenEngine,
    GivenReception,
    Line,
    code,
    nothing_known,
    parley,
    settle,
)


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
