"""Parley's SIP edge: checks its settings, runs Kamailio and rtpengine, and speaks with them while they run.

``python3 -m infra.sip.edge run --env edge.env`` stays in the foreground. Both daemons end with it: on SIGTERM
or SIGINT, or when one of them ends by itself. Standard library only: it runs where Parley is not installed.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from infra.sip.render import configuration, kamailio_command, rtpengine_command
from infra.sip.settings import BadSettings, Settings, read_file, read_settings

START_S = 60.0  # until both daemons answer; each process of Kamailio reads the list of certificates
STOP_S = 5.0  # from SIGTERM to SIGKILL
PROBE_EVERY_S = 0.1
RPC_S = 5.0
BAD = 2  # exit status of an edge that cannot start however often it is tried


class Unavailable(Exception):  # noqa: N818 - reads as what it is
    """A daemon cannot be run or does not answer. The message is a sentence that says which and why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    chosen = _parser().parse_args(arguments)
    try:
        settings = read_settings({**os.environ, **(read_file(chosen.env) if chosen.env else {})})
        match chosen.command:
            case "run":
                return asyncio.run(run(settings))
            case "check":
                check(settings)
                print("The settings and Kamailio's configuration are good.")
            case "status":
                return 0 if show_status(settings) else 1
            case "drain" | "resume":
                set_node(settings, chosen.node, "d" if chosen.command == "drain" else "ap")
            case "unban":
                unban(settings, chosen.address)
            case "reload-tls":
                ask(settings, "tls.reload")
    except (BadSettings, Unavailable) as error:
        print(error, file=sys.stderr)
        return BAD
    return 0


def check(settings: Settings) -> None:
    """Have Kamailio read its configuration. Raises ``Unavailable`` with what it says."""
    with tempfile.TemporaryDirectory() as folder:
        here = Settings(**{**vars(settings), "run_folder": Path(folder)})
        _write(here)
        command = [*kamailio_command(here), "-c"]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            raise Unavailable(
                "There is no kamailio here: apt-get install kamailio kamailio-tls-modules"
            ) from None
    if done.returncode != 0:
        raise Unavailable(f"Kamailio refuses its configuration:\n{done.stderr.strip()[-2000:]}")


async def run(settings: Settings) -> int:
    """Run both daemons until told to stop (0) or until one of them ends (1). Raises ``Unavailable``."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    _write(settings)
    told = asyncio.create_task(stop.wait())
    daemons: list[Daemon] = []
    try:
        for name, command in (
            ("rtpengine", rtpengine_command(settings)),
            ("kamailio", kamailio_command(settings)),
        ):
            daemons.append(await Daemon.start(name, command))
            ready = asyncio.create_task(_until_ready(settings, name))
            await asyncio.wait({told, ready, daemons[-1].ended}, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                ready.cancel()
                await asyncio.wait({ready})
                break
            ready.result()
        else:
            _say(f"ready: calls come to {settings.public_address}:{settings.public_port}")
            await asyncio.wait(
                {told, *(daemon.ended for daemon in daemons)}, return_when=asyncio.FIRST_COMPLETED
            )
        for daemon in daemons:
            if daemon.ended.done() and not told.done():
                _say(f"{daemon.name} ended ({_ending(daemon.ended.result())}), and so does the edge")
                return 1
        return 0
    finally:
        told.cancel()
        await asyncio.wait({told})
        for daemon in reversed(daemons):  # signalling first: nobody is let in to silence
            await daemon.stop()
        for name in configuration(settings):
            (settings.run_folder / name).unlink(missing_ok=True)


class Daemon:
    """One child and all its children, which are a process group."""

    def __init__(self, name: str, child: asyncio.subprocess.Process) -> None:
        """Use ``start``."""
        self.name = name
        self._child = child
        self.ended = asyncio.create_task(child.wait())

    @classmethod
    async def start(cls, name: str, command: list[str]) -> Daemon:
        """Raises ``Unavailable`` where the program is not installed."""
        program = shutil.which(command[0], path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            raise Unavailable(f"There is no {command[0]} here: apt-get install {_PACKAGES[command[0]]}")
        child = await asyncio.create_subprocess_exec(
            program,
            *command[1:],
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        return cls(name, child)

    async def stop(self) -> None:
        """SIGTERM to the first process, which ends its own; SIGKILL to whatever is left."""
        if not self.ended.done():
            with suppress(ProcessLookupError):
                self._child.terminate()
            await asyncio.wait({self.ended}, timeout=STOP_S)
        with suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        await self.ended


def ask(settings: Settings, method: str, *parameters: str | int) -> Any:
    """Ask the Kamailio that runs (JSON-RPC 2.0 on its Unix datagram socket). Raises ``Unavailable``."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(f"{folder}/answer")
        line.settimeout(RPC_S)
        try:
            line.connect(str(settings.run_folder / "rpc.sock"))
            line.send(
                json.dumps({"jsonrpc": "2.0", "method": method, "params": parameters, "id": 1}).encode()
            )
            answer = json.loads(line.recv(1 << 20))
        except (OSError, ValueError) as error:
            raise Unavailable(f"Kamailio does not answer in {settings.run_folder}: {error}") from error
    if "error" in answer:
        raise Unavailable(f"Kamailio refuses {method}: {answer['error'].get('message', answer['error'])}")
    return answer["result"]


def nodes(settings: Settings) -> dict[str, str]:
    """Each node's URI and the dispatcher's flags: A active, I inactive, D drained; P probed."""
    found: dict[str, str] = {}
    for record in ask(settings, "dispatcher.list").get("RECORDS", []):
        for target in record["SET"]["TARGETS"]:
            found[target["DEST"]["URI"]] = target["DEST"]["FLAGS"]
    return found


def show_status(settings: Settings) -> bool:
    """Print what there is to know. Whether calls can be answered."""
    flags = nodes(settings)
    for uri, state in flags.items():
        print(f"node {uri}: {_STATES.get(state[:1], state)}")
    media = ping_rtpengine(settings)
    print(f"rtpengine: {'answers' if media else 'does not answer'}")
    calls = ask(settings, "dlg.stats_active")
    ringing = calls.get("starting", 0) + calls.get("connecting", 0)
    print(f"calls: {calls.get('ongoing', 0)} ongoing, {ringing} ringing")
    return media and any(state.startswith("A") for state in flags.values())


def set_node(settings: Settings, name: str, state: str) -> None:
    """Take a node from new calls, or give it some again. ``name`` is as in ``EDGE_NODES``."""
    for node in settings.nodes:
        if name in (node.uri, f"{node.host}:{node.port}"):
            ask(settings, "dispatcher.set_state", state, 1, node.uri)
            return
    known = ", ".join(f"{node.host}:{node.port}" for node in settings.nodes)
    raise Unavailable(f"{name} is no node; there are: {known}")


def unban(settings: Settings, address: str) -> None:
    """Let an address try again. Raises ``Unavailable`` if it was not shut out."""
    ask(settings, "htable.delete", "banned", address)


def ping_rtpengine(settings: Settings) -> bool:
    """Whether rtpengine answers on its control socket: a cookie and a bencoded dictionary (NG)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.settimeout(1.0)
        try:
            line.connect(("127.0.0.1", settings.ng_port))
            line.send(b"edge d7:command4:pinge")
            return b"4:pong" in line.recv(4096)
        except OSError:
            return False


async def _until_ready(settings: Settings, name: str) -> None:
    """Raises ``Unavailable`` if it does not come to answer."""
    try:
        async with asyncio.timeout(START_S):
            while not await asyncio.to_thread(_answers, settings, name):  # noqa: ASYNC110 - another process
                await asyncio.sleep(PROBE_EVERY_S)
    except TimeoutError:
        raise Unavailable(f"{name} did not answer within {START_S:g} s of its start.") from None


def _answers(settings: Settings, name: str) -> bool:
    if name == "rtpengine":
        return ping_rtpengine(settings)
    try:
        ask(settings, "core.uptime")
    except Unavailable:
        return False
    return True


def _write(settings: Settings) -> None:
    """The daemons' files. Raises ``Unavailable``."""
    try:
        settings.run_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, text in configuration(settings).items():
            path = settings.run_folder / name
            path.unlink(missing_ok=True)
            path.touch(mode=0o600, exist_ok=False)
            path.write_text(text)
        (settings.run_folder / "rpc.sock").unlink(missing_ok=True)
    except OSError as error:
        raise Unavailable(f"EDGE_RUN_FOLDER: {settings.run_folder} cannot be written: {error}") from error


def _die_with_parent() -> None:
    """In the child, before exec: Linux ends it should this be killed. prctl(2), PR_SET_PDEATHSIG."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _ending(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def _say(text: str) -> None:
    print(f"edge: {text}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m infra.sip.edge", description="Parley's SIP edge.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, does in (
        ("run", "run Kamailio and rtpengine in the foreground"),
        ("check", "check the settings and start nothing"),
        ("status", "show nodes and calls; fails if no call could be answered"),
        ("drain", "give a node no new calls"),
        ("resume", "give a node calls again"),
        ("unban", "let an address that was shut out try again"),
        ("reload-tls", "read a renewed certificate"),
    ):
        command = commands.add_parser(name, help=does)
        command.add_argument(
            "--env", type=Path, help="file of EDGE_NAME=value lines, besides the environment"
        )
        if name in ("drain", "resume"):
            command.add_argument("node", help="ADDRESS:PORT, as in EDGE_NODES")
        if name == "unban":
            command.add_argument("address")
    return parser


_PACKAGES = {"kamailio": "kamailio kamailio-tls-modules", "rtpengine": "rtpengine-daemon"}
_STATES = {"A": "active", "I": "inactive", "D": "drained", "T": "trying"}

if __name__ == "__main__":
    sys.exit(main())
