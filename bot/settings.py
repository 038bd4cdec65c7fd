"""Every setting a person can turn, in one place: ``PARLEY_*`` in the environment or in a ``.env`` file.

Nested settings take two underscores: ``PARLEY_TURNS__END_MS=300``. ``parley settings`` prints the table of
all of them with what they are now; ``parley settings --markdown`` prints the one in the README.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from bot.hosts import WebSettings
from bot.ingress.sip.settings import SipSettings
from bot.setting_group import Group, words
from bot.turn_settings import TurnSettings

PREFIX = "PARLEY_"
PACKAGE = Path(__file__).resolve().parent
NANO = PACKAGE.parent / "model_runtime" / "checkpoints" / "nano"


class BadSettings(Exception):  # noqa: N818 - reads as what it is wherever it is caught
    """Some settings cannot be used. The message has a line for each: its variable and what is wrong."""


class IceServer(Group):
    """One STUN or TURN server, in the terms of W3C's RTCIceServer."""

    urls: str | list[str]
    username: str | None = None
    credential: str | None = None


class EngineSettings(Group):
    """The process that runs the speech model."""

    url: str = Field(
        default="", description="Engine to call, `ws://host:port` or `unix:/path`. Empty: start our own."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where our own engine computes; `auto` takes the GPU if there is one."
    )
    threads: int = Field(
        default=0, ge=0, le=256, description="CPU threads of our own engine; 0 chooses by the model's size."
    )
    options: str = Field(
        default="",
        description="More for our own engine, as on a command line: "
        "`python -m model_runtime.engine --help` lists it.",
    )
    start_timeout_s: float = Field(
        default=600, gt=0, description="Seconds our own engine may take to load before it is started anew."
    )

    @field_validator("options")
    @classmethod
    def _parts(cls, options: str) -> str:
        shlex.split(options)  # raises ValueError, which says what is open
        return options


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:  # a user whom the system does not know, as in some containers
        return None


def _data_dir() -> Path:
    """Where a person's data belongs (XDG Base Directory Specification: a relative path there is ignored)."""
    data = Path(os.environ.get("XDG_DATA_HOME", ""))
    if not data.is_absolute():
        data = home / ".local" / "share" if (home := _home()) else Path(tempfile.gettempdir())
    return data / "parley"


def _expanded(folder: Path) -> Path:
    """``~`` as a shell would have it: no shell has seen what is in a .env file."""
    try:
        return folder.expanduser()
    except RuntimeError as error:
        raise ValueError(str(error)) from None


Folder = Annotated[Path, AfterValidator(_expanded)]


class RedisSettings(Group):
    """What remembers calls beyond the process that holds them."""

    url: SecretStr = Field(
        default=SecretStr(""),
        description="Redis that remembers calls: `redis://:password@host:6379/0`, `unix:///path`, "
        "`redis+sentinel://host:26379,host2:26379/mymaster`, `redis+cluster://host:6379,host2:6379`; with "
        "TLS `rediss`. Empty: start our own, which only this Parley can reach.",
    )
    data_dir: Folder = Field(
        default_factory=_data_dir,
        description="Folder of our own Redis's data. Each Parley that runs needs one to itself.",
    )
    keep_s: float = Field(
        default=86_400,
        ge=0,
        le=366 * 86_400,
        description="Seconds for which a call is remembered after its last word.",
    )
    tenant: str = Field(
        default="default",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="Whose calls these are: Parleys that share a Redis see each other's calls only if this "
        "is the same.",
    )

    @field_validator("url")
    @classmethod
    def _scheme(cls, url: SecretStr) -> SecretStr:
        if url and not re.match(r"(unix|rediss?(\+sentinel|\+cluster)?)://", url.get_secret_value()):
            raise ValueError(
                "should begin with redis://, rediss://, unix:// or one with +sentinel or +cluster"
            )
        return url


class ToolSettings(Group):
    """The services that shipped tools ask; see `parley tools list`."""

    geocoding_url: str = Field(
        default="https://geocoding-api.open-meteo.com",
        description="Where `weather` finds places: Open-Meteo's, or one that speaks its protocol.",
    )
    forecast_url: str = Field(
        default="https://api.open-meteo.com", description="Where `weather` gets its forecasts, likewise."
    )
    search_provider: Literal["searxng", "tavily", "brave"] = Field(
        default="searxng", description="Whom `web_search` asks."
    )
    searxng_url: str = Field(
        default="", description="Your SearXNG, with the JSON format enabled: `http://host:8888`."
    )
    tavily_url: str = Field(default="https://api.tavily.com", description="Tavily's address.")
    tavily_key: SecretStr = Field(default=SecretStr(""), description="Key for Tavily.")
    brave_url: str = Field(default="https://api.search.brave.com", description="Brave Search's address.")
    brave_key: SecretStr = Field(default=SecretStr(""), description="Key for Brave Search.")

    @field_validator("geocoding_url", "forecast_url", "searxng_url", "tavily_url", "brave_url")
    @classmethod
    def _scheme(cls, url: str) -> str:
        if url and not url.startswith(("http://", "https://")):
            raise ValueError("should begin with http:// or https://")
        return url.rstrip("/")


class KnowledgeSettings(Group):
    """What agents can look up, and how it is found."""

    folder: Folder = Field(
        default_factory=lambda: _data_dir() / "knowledge",
        description="Folder of the knowledge bases; `parley knowledge` keeps it.",
    )
    encoder: Annotated[Folder | None, BeforeValidator(lambda given: given or None)] = Field(
        default=None,
        description="Folder of a sentence encoder (`model.onnx`, `tokenizer.json`), to find by meaning, too. "
        "Empty: by words alone.",
    )
    least_likeness: float = Field(
        default=0.4,
        ge=-1,
        le=1,
        description="Cosine to the question from which a passage is near it by meaning; it depends on the "
        "encoder.",
    )
    vectors_in_redis: bool = Field(
        default=True,
        description="Have the Redis of `PARLEY_REDIS__URL` find what is near by meaning, if it has vector "
        "sets (Redis 8). Otherwise each Parley does it in its own memory.",
    )


def _ice_servers(value: Any) -> Any:
    """Accept JSON, and bare URLs parted by commas: ``stun:stun.example.org,turn:...``."""
    if isinstance(value, str):
        text = value.strip()
        value = (
            json.loads(text) if text.startswith("[") else [part for part in text.split(",") if part.strip()]
        )
    if isinstance(value, list):
        return [{"urls": item.strip()} if isinstance(item, str) else item for item in value]
    return value


class Settings(BaseSettings):
    """All of Parley's settings, read once at the start."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", env_file=".env", extra="ignore", frozen=True
    )

    host: str = Field(
        default="127.0.0.1",
        description="Address to listen on. Browsers give the microphone only to "
        "`localhost` and to HTTPS pages, so put a TLS proxy in front of anything else.",
    )
    port: int = Field(default=8080, ge=0, le=65535, description="TCP port of the page and of the signalling.")
    checkpoint: str = Field(
        default=str(NANO),
        description="The speech model: a folder in Step-Audio 2's published layout, or `hf://owner/name`.",
    )
    agent: str = Field(
        default="bluebird", description="Who answers: the name of a file in `agents_dir`, without `.yaml`."
    )
    agents_dir: Path = Field(default=PACKAGE / "agents", description="Folder of the agents' YAML files.")
    voices_dir: Folder = Field(
        default_factory=lambda: _data_dir() / "voices",
        description="Folder of your own voices, beside the checkpoint's; `parley voices` keeps it.",
    )
    max_calls: int = Field(
        default=4, ge=1, le=1000, description="Calls at once. One more is refused with 503 at once."
    )
    max_call_s: float = Field(default=1800, gt=0, description="Seconds after which a call is ended.")
    connect_timeout_s: float = Field(
        default=15, gt=0, description="Seconds a caller has, from the offer to the first connection."
    )
    drain_s: float = Field(default=3, ge=0, description="Seconds calls get to end when Parley is stopped.")
    allowed_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(lambda v: _origins(v))] = Field(
        default=(),
        description="Other sites, `https://host`, whose pages may place calls here; parted by commas.",
    )
    echo_guard: bool = Field(
        default=False,
        description="Take our own voice out of what callers on the page send back; browsers mostly do so "
        "themselves.",
    )
    noise_suppression: bool = Field(
        default=False,
        description="Take steady noise out of what callers on the page send; browsers mostly do so "
        "themselves.",
    )
    ice_servers: Annotated[tuple[IceServer, ...], NoDecode, BeforeValidator(_ice_servers)] = Field(
        default=(),
        description="STUN and TURN servers: URLs parted by commas, or JSON like "
        '`[{"urls": "turn:host", "username": "u", "credential": "c"}]`. The page gets them too.',
    )
    log_level: Literal["TRACE", "DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="How much is written to the log."
    )
    web: WebSettings = WebSettings()
    engine: EngineSettings = EngineSettings()
    redis: RedisSettings = RedisSettings()
    sip: SipSettings = SipSettings()
    knowledge: KnowledgeSettings = KnowledgeSettings()
    turns: TurnSettings = TurnSettings()
    tools: ToolSettings = ToolSettings()


def _origins(value: Any) -> Any:
    """As browsers send them: without a slash at the end."""
    value = words(value)
    return tuple(str(one).rstrip("/") for one in value) if isinstance(value, tuple) else value


def load(**changes: Any) -> Settings:
    """Settings from the environment and ``.env``, with ``changes`` (from the command line) before both.

    Raises ``BadSettings`` that names every variable at fault.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        lines = [f"{variable(*map(str, e['loc']))}: {_reason(e)}" for e in error.errors()]
        raise BadSettings("\n".join(lines)) from None
    except SettingsError as error:
        raise BadSettings(str(error)) from None


def _reason(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    given = None if _is_secret(error["loc"]) else error.get("input")
    if error["type"] == "extra_forbidden":
        return "there is no such setting"
    return f"is {given!r}, should be {message}" if isinstance(given, str | int | float) else message


def _is_secret(path: tuple[int | str, ...]) -> bool:
    """Whether what is set there, or a part of it, is never to be printed."""
    model: Any = Settings
    for name in path:
        field = getattr(model, "model_fields", {}).get(name)
        model = field.annotation if field else None
    parts = getattr(model, "model_fields", {}).values()
    return model is SecretStr or any(part.annotation is SecretStr for part in parts)


def variable(*path: str) -> str:
    """The environment variable of a setting: ``("turns", "pause_ms")`` gives ``PARLEY_TURNS__PAUSE_MS``."""
    return PREFIX + "__".join(part.upper() for part in path)


@dataclass(frozen=True)
class Row:
    """One line of the table: a setting's variable, its default and present values as text, its purpose."""

    variable: str
    default: str
    value: str
    description: str


def rows(settings: Settings | None = None) -> Iterator[Row]:
    """Every setting, in the order of this file. Without ``settings`` the present values are the defaults."""
    defaults = Settings.model_construct()
    yield from _rows(defaults, settings or defaults)


def _rows(defaults: BaseModel, present: BaseModel, path: tuple[str, ...] = ()) -> Iterator[Row]:
    for name, field in type(defaults).model_fields.items():
        default, value = getattr(defaults, name), getattr(present, name)
        if isinstance(default, Group):
            yield from _rows(default, value, (*path, name))
        else:
            yield Row(variable(*path, name), _text(default), _text(value), field.description or "")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return str(value)  # stars, or nothing: a password is never printed
    if isinstance(value, tuple) and len(value) == 2 and all(isinstance(item, int) for item in value):
        return f"{value[0]}-{value[1]}"
    if isinstance(value, tuple):
        return ",".join(_text(item) for item in value)
    if isinstance(value, IceServer):
        return value.urls if isinstance(value.urls, str) else ",".join(value.urls)
    if isinstance(value, str | Path) and str(value).startswith(str(PACKAGE.parent)):
        return str(Path(value).relative_to(PACKAGE.parent))
    if isinstance(value, Path) and (home := _home()) and value.is_relative_to(home):
        return str(Path("~") / value.relative_to(home))
    return f"{value:g}" if isinstance(value, float) else str(value)


def markdown() -> str:
    """The table of all settings and their defaults for the README."""
    lines = ["| Setting | Default | What it does |", "|---|---|---|"]
    for row in rows():
        default = f"`{row.default}`" if row.default else "empty"
        lines.append(f"| `{row.variable}` | {default} | {row.description.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"
