"""Calls by HTTP: ``POST /api/calls`` has somebody called, ``GET`` says what became of it, ``DELETE`` ends it.

For programs, not for pages: whoever holds the key may place calls, so it is asked for before anything else is
looked at, and no other site's page may send it (there is no CORS for it).
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from bot.ingress.sip.destinations import NotCallable
from bot.ingress.sip.placing import Asked, OtherRequest, Placing, TooMany
from bot.variables import NAME

MAX_KEY = 255  # characters of an Idempotency-Key
STATUS = {"bad_address": 422, "bad_header": 422, "variables": 422, "agent": 404}  # others: 403

Value = Annotated[str, StringConstraints(max_length=500)]


class CallRequest(BaseModel):
    """Whom to call, as whom, and what to say for what the agent's words leave open."""

    model_config = ConfigDict(extra="forbid")

    to: Annotated[str, StringConstraints(max_length=400)]
    agent: Annotated[str, StringConstraints(max_length=100)]
    headers: dict[str, str] = Field(default={}, max_length=50)
    variables: dict[Annotated[str, StringConstraints(pattern=f"^{NAME}$")], Value] = Field(
        default={}, max_length=20
    )


class NoSuchCall(Exception):  # noqa: N818 - the asker's fault
    """There is no call of that id here."""


class NotAuthorised(Exception):  # noqa: N818 - the asker's fault
    """The key is missing or wrong, or there is none to know."""

    def __init__(self, status: int, code: str, message: str) -> None:
        """``code`` is for programs, ``message`` for people."""
        super().__init__(message)
        self.status, self.code = status, code


Read = Callable[[Request, type[CallRequest]], Awaitable[CallRequest]]
"""A request's body, checked."""


def add_calls_api(app: FastAPI, placing: Placing | None, api_key: str, read: Read) -> None:
    """Serve it; without ``placing`` or ``api_key`` every request is told that it is off."""
    _add_faults(app)

    def placer(request: Request) -> Placing:
        if placing is None or not api_key:
            raise NotAuthorised(
                404,
                "off",
                "No calls are placed by HTTP here: PARLEY_SIP__LISTEN and PARLEY_SIP__API_KEY turn it on.",
            )
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), api_key.encode()):
            raise NotAuthorised(401, "key", "Send the key, as Authorization: Bearer KEY.")
        return placing

    @app.post("/api/calls", status_code=201)
    async def place(request: Request, response: Response) -> dict[str, Any]:
        by = placer(request)
        key = request.headers.get("idempotency-key", "")
        if len(key) > MAX_KEY:
            raise NotCallable("bad_header", f"Idempotency-Key has more than {MAX_KEY} characters.")
        wanted = await read(request, CallRequest)
        told = await by.place(Asked(wanted.to, wanted.agent, wanted.headers, wanted.variables), key)
        response.headers["Location"] = f"/api/calls/{told['id']}"
        return told

    @app.get("/api/calls/{call_id}")
    async def tell(request: Request, call_id: str) -> dict[str, Any]:
        return _told(placer(request), call_id)

    @app.delete("/api/calls/{call_id}", status_code=204)
    async def hang_up(request: Request, call_id: str) -> None:
        if not await placer(request).hang_up(call_id):
            raise NoSuchCall


def _told(placing: Placing, call_id: str) -> dict[str, Any]:
    told = placing.told(call_id)
    if told is None:
        raise NoSuchCall
    return told


def _add_faults(app: FastAPI) -> None:
    """In the application's one JSON shape."""

    def refusal(status: int, code: str, message: str, **headers: str) -> JSONResponse:
        return JSONResponse({"error": {"code": code, "message": message}}, status, headers)

    @app.exception_handler(NotAuthorised)
    async def not_authorised(_: Request, error: NotAuthorised) -> JSONResponse:
        headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
        return refusal(error.status, error.code, str(error), **headers)

    @app.exception_handler(NotCallable)
    async def not_callable(_: Request, error: NotCallable) -> JSONResponse:
        return refusal(STATUS.get(error.code, 403), error.code, str(error))

    @app.exception_handler(TooMany)
    async def too_many(_: Request, error: TooMany) -> JSONResponse:
        return refusal(429, error.code, str(error), **{"Retry-After": str(error.retry_s)})

    @app.exception_handler(OtherRequest)
    async def other_request(_: Request, error: OtherRequest) -> JSONResponse:
        message = "This Idempotency-Key was sent with another request before."
        return refusal(422, "idempotency_key", message)

    @app.exception_handler(NoSuchCall)
    async def no_such_call(_: Request, error: NoSuchCall) -> JSONResponse:
        message = "There is no such call here: it was placed before Parley's start, or more than a day ago."
        return refusal(404, "unknown_call", message)
