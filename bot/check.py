"""``parley check``: is everything there that a call needs? Looks, changes nothing."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import httpx

from bot.agent_folder import open_folder
from bot.agents import AgentError
from bot.engine_probe import EngineUnavailable, ask_engine
from bot.ingress.sip.probe import silence_of
from bot.ingress.sip.registrar import Registrar
from bot.ingress.sip.settings import SipSettings
from bot.knowledge.knowledge import load_encoder
from bot.knowledge.store import KnowledgeError, Store, names
from bot.settings import KnowledgeSettings, RedisSettings, Settings, variable
from pipeline.memory import MemoryUnavailable, VectorStore
from pipeline.memory.address import parse
from pipeline.memory.client import asking, connect, in_words
from pipeline.memory.keys import Keys
from pipeline.memory.masters import let_go, master_of
from pipeline.memory.own_server import RedisImpossible, find_server, in_use
from pipeline.memory.vectors import NoVectorSets

PACKAGES = (
    "pipecat-ai",
    "aiortc",
    "baresip-python",
    "fastapi",
    "torch",
    "transformers",
    "onnxruntime",
    "numpy",
)
REDIS_S = 5.0  # a Sentinel or a node of a Cluster that is gone takes half a second to be passed over
CHECKPOINT_S = 600.0  # reading 16 GB from a slow disk

# Run in a process of its own: the bot itself never loads torch.
_LOOK_AT_MODEL = """
import json, sys
from model_runtime.checkpoint import CheckpointError, open_checkpoint
import torch
found = {"device": f"CPU, {torch.get_num_threads()} threads"}
if torch.cuda.is_available():
    found["device"] = torch.cuda.get_device_name() + f", {torch.cuda.mem_get_info()[1] / 2**30:.0f} GiB"
found["cuda"] = torch.cuda.is_available()
try:
    card = open_checkpoint(sys.argv[1]).card
    found["name"], found["label"] = getattr(card, "name", ""), getattr(card, "label", "")
except CheckpointError as error:
    found["error"] = str(error)
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Finding:
    """One thing looked at: ``note`` is worth knowing, ``bad`` keeps calls from working."""

    state: Literal["ok", "note", "bad"]
    what: str
    said: str


def look(settings: Settings, tell: Callable[[str], None] = lambda what: None) -> Iterator[Finding]:
    """Look at everything. ``tell`` hears what is being looked at now."""
    yield from _versions()
    yield _port(settings)
    yield _address(settings)
    yield _phone(settings.sip)
    if settings.sip.registrar:
        yield _registrar(settings)
    yield from _agents(settings)
    if settings.engine.url:
        yield asyncio.run(_engine(settings.engine.url))
    else:
        tell("opening the checkpoint")
        yield from _model(settings)
    yield _redis(settings.redis)
    yield from _knowledge(settings.knowledge)


def _versions() -> Iterator[Finding]:
    python = platform.python_version()
    right = sys.version_info[:2] == (3, 11)
    yield Finding("ok" if right else "bad", "Python", python + ("" if right else "; Parley needs 3.11"))
    found, missing = [], []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    if missing:
        yield Finding("bad", "Packages", f"not installed: {', '.join(missing)}; run: make setup")
    else:
        yield Finding("ok", "Packages", ", ".join(found))


def _port(settings: Settings) -> Finding:
    where = f"{settings.host}:{settings.port}"
    with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
        else:
            return Finding("ok", "Port", f"{where} is free")
    try:
        ready = httpx.get(f"http://{where}/readyz", timeout=2, trust_env=False).json()
        return Finding(
            "note", "Port", f"Parley is running on {where}, {'ready' if ready['ready'] else 'not ready'}"
        )
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return Finding("bad", "Port", f"{where}: {reason}; choose another with {variable('port')}")


def _address(settings: Settings) -> Finding:
    if settings.host in ("127.0.0.1", "::1", "localhost"):
        return Finding("ok", "Address", "this machine only; its own browsers may use the microphone")
    said = "not this machine only: browsers want HTTPS for the microphone, so put a TLS proxy in front"
    if not settings.ice_servers:
        said += f"; callers behind NAT need a TURN server ({variable('ice_servers')})"
    return Finding("note", "Address", said)


def _phone(settings: SipSettings) -> Finding:
    if not settings.listen:
        return Finding("ok", "Phone", f"off; {variable('sip', 'listen')}=127.0.0.1:5060 turns it on")
    where = f"sip:{settings.listen} ({', '.join(settings.transports)})"
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind is socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.host, int(settings.listen.rpartition(":")[2])))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return Finding("note", "Phone", f"{where} is taken; is Parley running already?")
                return Finding("bad", "Phone", f"{where}: {(error.strerror or str(error)).lower()}")
    named = [*settings.trusted, settings.registrar] if settings.registrar else settings.trusted
    who = "this machine only" if settings.networks != list(settings.trusted) else ", ".join(named)
    return Finding("ok", "Phone", f"answers {where}; who may call: {who}")


def _registrar(settings: Settings) -> Finding:
    """A Parley that runs knows whether it is registered; without one: whether there is a registrar."""
    registrar = Registrar.parse(settings.sip.registrar)
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    try:
        said = httpx.get(f"http://{host}:{settings.port}/readyz", timeout=3).json()["phone"]
    except (httpx.HTTPError, ValueError, KeyError):
        said = ""
    who = f"{settings.sip.username} at {registrar.domain}"
    if said == "ok":
        return Finding("ok", "Extension", f"registered as {who}")
    if said not in ("", "off"):
        return Finding("bad", "Extension", f"{who}: {said}")
    silence = silence_of(registrar)
    if silence:
        said = f"{registrar.domain}: {silence}; it is set by {variable('sip', 'registrar')}"
        return Finding("bad", "Extension", said)
    return Finding("ok", "Extension", f"{who}: the PBX answers; the password is tried when Parley runs")


def _agents(settings: Settings) -> Iterator[Finding]:
    try:
        found = open_folder(settings)
    except AgentError as error:
        yield Finding("bad", "Agent", str(error))
        return
    names = ", ".join(f"{agent.name} ({name}.yaml)" for name, agent in found.agents.items())
    yield Finding("ok", "Agents" if len(found.agents) > 1 else "Agent", names)
    for fault in found.faults.values():
        yield Finding("bad", "Agent", f"{fault} Parley starts without it.")


async def _engine(url: str) -> Finding:
    try:
        about = await ask_engine(url)
    except EngineUnavailable as error:
        return Finding("bad", "Engine", f"{url}: {error}")
    return Finding(
        "ok", "Engine", f"{url} answers: {about.checkpoint}{f' ({about.label})' if about.label else ''}"
    )


def _model(settings: Settings) -> Iterator[Finding]:
    try:
        done = subprocess.run(
            [sys.executable, "-c", _LOOK_AT_MODEL, settings.checkpoint],
            capture_output=True,
            text=True,
            timeout=CHECKPOINT_S,
            env=os.environ | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        )
        found = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        yield Finding(
            "bad", "Checkpoint", f"{settings.checkpoint}: could not be read in {CHECKPOINT_S:.0f} s"
        )
        return
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["no word of why"])[-1]
        yield Finding("bad", "Model", f"the model code does not load: {last}")
        return
    if settings.engine.device == "cuda" and not found["cuda"]:
        yield Finding("bad", "Device", f"{variable('engine', 'device')} is cuda, and PyTorch finds no GPU")
    else:
        yield Finding("ok", "Device", found["device"])
    if "error" in found:
        yield Finding("bad", "Checkpoint", found["error"])
    else:
        label = f" ({found['label']})" if found["label"] else ""
        yield Finding("ok", "Checkpoint", f"{found['name'] or settings.checkpoint}{label}")


def _knowledge(settings: KnowledgeSettings) -> Iterator[Finding]:
    """Each base that agents can ask. Calls go on without one, so what is wrong with it is only a note."""
    encoder = None
    try:
        encoder = load_encoder(settings.encoder)
    except KnowledgeError as error:
        yield Finding("note", "Knowledge", f"is found by words alone: {error}")
    for name in names(settings.folder):
        try:
            with closing(Store(settings.folder, name)) as store:
                documents = store.documents()
        except KnowledgeError as error:
            yield Finding("note", "Knowledge", str(error))
            continue
        count = "1 document" if len(documents) == 1 else f"{len(documents)} documents"
        said = f"{name}: {count}, found by words"
        without = [one.source for one in documents if encoder and one.encoder != encoder.name]
        if without:
            said += f"; without vectors of this encoder: {len(without)}. Add them again: parley knowledge add"
        elif encoder:
            said += " and by meaning"
        yield Finding("note" if without else "ok", "Knowledge", said)


def _redis(settings: RedisSettings) -> Finding:
    url = settings.url.get_secret_value()
    return asyncio.run(_others_redis(url, settings.tenant)) if url else _own_redis(settings.data_dir)


async def _others_redis(url: str, tenant: str) -> Finding:
    set_by = variable("redis", "url")
    try:
        where = str(parse(url))
        client = connect(url, Keys(tenant))
    except ValueError:  # its words may repeat a part of the password
        return Finding("bad", "Redis", f"{set_by} is no URL that Redis's client understands")
    try:
        async with asking(REDIS_S):
            about = await client.info()
        vectors = await _vector_sets(VectorStore(client, Keys(tenant)))
    except MemoryUnavailable as error:
        return Finding("bad", "Redis", f"{where}: {in_words(error)} It is set by {set_by}")
    finally:
        master = master_of(client)
        await let_go(client)
    if about.get("role") == "slave":
        return Finding(
            "bad", "Redis", f"{where} is a replica, which takes no writes; {set_by} should name its master"
        )
    at = f", its master at {master[0]}:{master[1]}" if master else ""
    return Finding("ok", "Redis", f"{where} answers{at}, version {about['redis_version']}, {vectors}")


async def _vector_sets(store: VectorStore) -> str:
    """Whether knowledge can be asked of it."""
    try:
        await store.look("", 0)
    except NoVectorSets:
        return "without vector sets"
    except MemoryUnavailable as error:
        return f"whose vector sets cannot be used: {error}"
    return "with vector sets"


def _own_redis(folder: Path) -> Finding:
    """Whether our own could be started; starting it would change what is there."""
    try:
        said = subprocess.run(
            [find_server(), "--version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except RedisImpossible as error:
        return Finding("bad", "Redis", str(error))
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("bad", "Redis", f"our own does not run: {error}")
    number = said.partition("v=")[2].partition(" ")[0]
    first = next(there for there in (folder, *folder.parents) if os.access(there, os.F_OK))
    if not (first.is_dir() and os.access(first, os.W_OK | os.X_OK)):
        return Finding(
            "bad",
            "Redis",
            f"{first} cannot be written to; choose another with {variable('redis', 'data_dir')}",
        )
    if in_use(folder):
        said = f"our own runs for another Parley in {folder}; a second one would remember nothing there"
        return Finding("note", "Redis", said)
    return Finding("ok", "Redis", f"our own, version {number}, keeps calls in {folder}")
