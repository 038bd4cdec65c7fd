"""The web application: signalling for calls, health for whoever runs it, and the page.

Every refusal is JSON of one shape, ``{"error": {"code": ..., "message": ...}}``, with a message that may be
shown to the caller and nothing of our insides.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from bot.agent_keys import bearer, opens
from bot.agents import Agent
from bot.beside import beside
from bot.calls import Calls, Refused
from bot.calls_api import add_calls_api
from bot.engine_process import Engine
from bot.hosts import is_ours
from bot.ingress.sip.ingress import SipIngress
from bot.ingress.sip.phone import Phone
from bot.ingress.sip.placing import Placing
from bot.ingress.webrtc import (
    BadOffer,
    Candidates,
    Offer,
    UnknownConnection,
    WebRTCIngress,
)
from bot.reception import NeedsKey, Reception, UnknownAgent
from bot.settings import PACKAGE, Settings, variable

BODY_S = 10.0  # a request's body has to be here by then
MAX_BODY = 64 * 1024  # bytes; a browser's offer is about 3 KiB, with video and every codec about 12
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
}

Body = TypeVar("Body", bound=BaseModel)


class BadRequest(Exception):  # noqa: N818 - the caller's fault
    """A request that cannot be served, with the HTTP status that says so."""

    def __init__(self, status: int, code: str, message: str) -> None:
        """``code`` is for programs, ``message`` for people."""
        super().__init__(message)
        self.status = status
        self.code = code


def create_app(
    settings: Settings,
    reception: Reception,
    engine: Engine,
    phone: Callable[[Calls], SipIngress] | None = None,
    placing: Callable[[Calls, Phone], Placing] | None = None,
) -> FastAPI:
    """The application. Its lifespan owns ``engine`` and every call: when it ends, both are gone.

    ``phone`` makes the ingress of callers by phone, whose lifespan it is, too; ``placing`` has it call.
    """
    calls = Calls(settings.max_calls)
    telephone = phone(calls) if phone else None
    ingress = WebRTCIngress(
        calls,
        reception.browser_call,
        reception.recall,
        ice_servers=settings.ice_servers,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(beside(engine.run(), "engine"))
            if telephone is not None:
                await stack.enter_async_context(beside(telephone.run(), "phone"))
            stack.push_async_callback(calls.drain, settings.drain_s)
            yield

    app = FastAPI(title="Parley", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    _add_faults(app)
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST", "PATCH"],
            allow_headers=["Content-Type", "Authorization"],
        )

    @app.middleware("http")
    async def every_request(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        host = request.headers.get("host", "")
        if is_ours(host, settings.host, settings.web.hosts, settings.allowed_origins):
            response = await call_next(request)
        else:
            said = f"This server is not known as {host!r}; {variable('web', 'hosts')} names what it is."
            response = _refusal(421, "host", said)
        response.headers.update(SECURITY_HEADERS)
        response.headers.setdefault("Cache-Control", "no-cache")
        return response

    # Of one agent, under /a/NAME/, and of the one who answers where nobody is named.
    api = APIRouter()

    @api.post("/api/offer")
    async def offer(request: Request) -> dict[str, Any]:
        asked = await _read(request, Offer, settings.allowed_origins)
        if not engine.status.ready:
            raise Refused("engine_not_ready", _not_ready(engine), retry_s=2)
        return (await ingress.offer(asked, partial(reception.choose, *_asked(request)))).model_dump()

    @api.patch("/api/offer")
    async def candidates(request: Request) -> dict[str, Any]:
        await ingress.candidates(await _read(request, Candidates, settings.allowed_origins))
        return {"status": "success"}

    @api.get("/api/info")
    async def info(request: Request) -> dict[str, Any]:
        name, key = _asked(request)
        agent = reception.answering(reception.meant(name, key)).agent
        return _info(settings, agent, not agent.keys or opens(key, agent.keys), engine, calls)

    @app.get("/healthz")
    async def healthz() -> dict[str, Any]:
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        status = engine.status
        body = {
            "ready": status.ready,
            "engine": status.state,
            "reason": "" if status.ready else _not_ready(engine),
            "phone": (telephone.trouble or "ok") if telephone else "off",
        }
        return JSONResponse(
            body, 200 if status.ready else 503, None if status.ready else {"Retry-After": "2"}
        )

    app.include_router(api)
    app.include_router(api, prefix="/a/{agent}")
    page = StaticFiles(directory=PACKAGE / "web", html=True)

    @app.get("/a/{agent}")
    async def without_a_slash(request: Request) -> Response:
        # What the page names is seen from its own address, so that has to end in a slash.
        return RedirectResponse(f"{quote(request.path_params['agent'])}/", 307)

    @app.get("/a/{agent}/{path:path}")
    async def page_of(request: Request) -> Response:
        path = request.path_params["path"]
        response = await page.get_response(path or "index.html", request.scope)
        if not path and request.path_params["agent"] not in reception.agents:
            response.status_code = 404  # the page itself says it in words, which it gets with its info
        return response

    add_calls_api(
        app,
        placing(calls, telephone.phone) if placing and telephone else None,
        settings.sip.api_key.get_secret_value(),
        lambda request, shape: _read(request, shape, settings.allowed_origins),
    )
    app.mount("/", page)
    return app


def _asked(request: Request) -> tuple[str, str]:
    """The agent that a request is for, if it names one, and the key that it brings."""
    return request.path_params.get("agent", ""), bearer(request.headers.get("authorization", ""))


def _info(settings: Settings, agent: Agent, opened: bool, engine: Engine, calls: Calls) -> dict[str, Any]:
    """What the page shows before a call; ``opened``: whoever asks may call."""
    status, about = engine.status, engine.status.about
    servers = settings.ice_servers if opened else ()  # they may hold a password
    return {
        "agent": {"name": agent.name, "language": agent.language, "greeting": agent.greeting},
        "needs_key": not opened,
        "ready": status.ready,
        "reason": "" if status.ready else _not_ready(engine),
        "full": calls.full,
        "calls": {"now": calls.taken, "max": calls.limit},
        "checkpoint": about.checkpoint if about else "",
        "label": about.label if about else "",
        "transcribes": about.transcribes if about else False,
        "examples": list(agent.examples or (about.examples if about else ())),
        "ice_servers": [server.model_dump(exclude_none=True) for server in servers],
    }


def _not_ready(engine: Engine) -> str:
    return engine.status.reason or "The speech model is not ready."


def _host(origin: str) -> str | None:
    """The host and port of an Origin header; None if it is no such thing."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


async def _read(request: Request, shape: type[Body], allowed_origins: tuple[str, ...]) -> Body:
    """The request's body as ``shape``. Raises ``BadRequest``."""
    origin = request.headers.get("origin")
    # Without this any page in the world could call from a visitor's browser: signalling needs no cookie.
    if origin and origin not in allowed_origins and _host(origin) != request.headers.get("host"):
        raise BadRequest(403, "origin", "This page may not place calls here.")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise BadRequest(415, "media_type", "Send JSON, as Content-Type: application/json.")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    raise BadRequest(413, "too_large", "The request is too large.")
    except TimeoutError:
        raise BadRequest(408, "too_slow", "The request took too long to arrive.") from None
    except ClientDisconnect:
        raise BadRequest(400, "gone", "The request ended before it was whole.") from None
    try:
        return shape.model_validate_json(bytes(body))
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        if fault["type"] == "json_invalid":
            raise BadRequest(400, "bad_json", "The request is not valid JSON.") from None
        where = ".".join(str(part) for part in fault["loc"]) or "the request"
        raise BadRequest(422, "bad_request", f"{where}: {fault['msg']}.") from None


def _refusal(status: int, code: str, message: str, **headers: str) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)


def _add_faults(app: FastAPI) -> None:
    """Give every fault the one JSON shape."""

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> JSONResponse:
        return _refusal(503, error.code, str(error), **{"Retry-After": str(error.retry_s)})

    @app.exception_handler(UnknownAgent)
    async def unknown_agent(_: Request, error: UnknownAgent) -> JSONResponse:
        return _refusal(404, "unknown_agent", str(error))

    @app.exception_handler(NeedsKey)
    async def needs_key(_: Request, error: NeedsKey) -> JSONResponse:
        return _refusal(401, "needs_key", str(error), **{"WWW-Authenticate": "Bearer"})

    @app.exception_handler(BadRequest)
    async def bad_request(_: Request, error: BadRequest) -> JSONResponse:
        return _refusal(error.status, error.code, str(error))

    @app.exception_handler(BadOffer)
    async def bad_offer(_: Request, error: BadOffer) -> JSONResponse:
        return _refusal(400, "bad_offer", str(error))

    @app.exception_handler(UnknownConnection)
    async def unknown(_: Request, error: UnknownConnection) -> JSONResponse:
        return _refusal(404, "unknown_connection", str(error))

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        return _refusal(error.status_code, "http", str(error.detail))

    @app.exception_handler(Exception)
    async def anything(_: Request, error: Exception) -> JSONResponse:
        # Starlette logs the traceback; the caller need not see it.
        return _refusal(500, "internal", "Something went wrong in Parley. Its log says what.")
