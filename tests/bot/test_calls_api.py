"""Calls by HTTP, up to the door: who may ask, for what, and what they are told; nobody is really called."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from pydantic import ValidationError

from bot.calls_api import CallRequest, add_calls_api
from tests.bot.test_sip_placing import Desk, desk

KEY = "a key that nobody guesses"
ALICE = {"to": "sip:alice@pbx.example", "agent": "test"}

Ask = Callable[..., Awaitable[httpx.Response]]


async def read(request: Request, shape: type[CallRequest]) -> CallRequest:
    return shape.model_validate_json(await request.body())


def asking(here: Desk | None, key: str = KEY, given: str = KEY) -> Ask:
    """Ask the API of ``here``, whose key is ``key``."""
    app = FastAPI()
    add_calls_api(app, here.placing if here else None, key, read)

    async def ask(method: str, path: str = "", body: Any = None, **headers: str) -> httpx.Response:
        sent = [
            (name.encode(), value.encode("latin-1"))
            for name, value in ({"authorization": f"Bearer {given}"} | headers).items()
        ]
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://parley") as client:
            return await client.request(method, f"/api/calls{path}", json=body, headers=sent)

    return ask


def refusal(response: httpx.Response) -> tuple[int, str]:
    assert response.json()["error"]["message"]
    return response.status_code, response.json()["error"]["code"]


async def test_without_a_key_or_a_phone_there_is_no_such_service() -> None:
    async with desk() as here:
        for ask in (asking(here, key="", given=""), asking(None)):
            assert refusal(await ask("POST", body=ALICE)) == (404, "off")
        assert not here.phone.dialled


@pytest.mark.parametrize("said", ["", "Bearer", "Bearer wrong", f"Basic {KEY}", f"Bearer {KEY}x", "Bearer ä"])
async def test_nobody_without_the_key_learns_or_does_anything(said: str) -> None:
    async with desk() as here:
        ask = asking(here)
        for method, path in (("POST", ""), ("GET", "/id"), ("DELETE", "/id")):
            refused = await ask(method, path, {"nonsense": 1}, authorization=said)
            assert refusal(refused) == (401, "key")
            assert refused.headers["www-authenticate"] == "Bearer"
        assert not here.phone.dialled


async def test_a_call_is_placed_told_of_and_ended() -> None:
    async with desk() as here:
        ask = asking(here)
        placed = await ask("POST", body=ALICE | {"headers": {"X-Order": "7"}})
        assert placed.status_code == 201
        path = placed.headers["location"].removeprefix("/api/calls")
        assert here.phone.dialled == [("sip:alice@pbx.example", {"X-Order": "7"})]
        assert (await ask("GET", path)).json() == placed.json()
        assert placed.json()["state"] == "dialing"
        assert (await ask("DELETE", path)).status_code == 204
        await here.over(placed.json()["id"])
        assert (await ask("GET", path)).json()["reason"] == "hung-up-by-api"
        for method in ("GET", "DELETE"):
            assert refusal(await ask(method, "/another")) == (404, "unknown_call")


async def test_a_request_sent_again_is_told_of_the_same_call() -> None:
    async with desk() as here:
        ask = asking(here)
        first, again = [await ask("POST", body=ALICE, **{"idempotency-key": "a"}) for _ in range(2)]
        assert (first.status_code, again.status_code) == (201, 201)
        assert first.json()["id"] == again.json()["id"]
        assert len(here.phone.dialled) == 1
        other = await ask("POST", body=ALICE | {"to": "bob@pbx.example"}, **{"idempotency-key": "a"})
        assert refusal(other) == (422, "idempotency_key")
        long = await ask("POST", body=ALICE, **{"idempotency-key": "a" * 256})
        assert refusal(long) == (422, "bad_header")


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"to": "alice"}, (422, "bad_address")),
        ({"headers": {"Via": "x"}}, (422, "bad_header")),
        ({"agent": "nobody"}, (404, "agent")),
        ({"to": "alice@elsewhere.example"}, (403, "destination")),
    ],
)
async def test_each_refusal_has_its_own_code(change: dict[str, Any], refused: tuple[int, str]) -> None:
    async with desk() as here:
        assert refusal(await asking(here)("POST", body=ALICE | change)) == refused


async def test_too_many_are_told_when_to_ask_again() -> None:
    async with desk(calls_a_minute=1) as here:
        ask = asking(here)
        assert (await ask("POST", body=ALICE)).status_code == 201
        refused = await ask("POST", body=ALICE)
        assert refusal(refused) == (429, "rate")
        assert refused.headers["retry-after"] == "60"


@pytest.mark.parametrize(
    "change",
    [{"to": "a" * 401}, {"more": 1}, {"variables": {"Name": "x"}}, {"variables": {"name": "x" * 501}}],
)
def test_what_is_no_request_is_none(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CallRequest.model_validate(ALICE | change)
