"""A Ray cluster of two nodes on this machine's loopback, with Parley's engines on it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

import httpx
import yaml

from bot.child_process import die_with_parent
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "infra" / "ray" / "serve.yaml"
PATIENCE_S = 300.0  # nobody waits for it: two engines load in 20 s where nothing else is at work
OBJECT_STORE = (
    100_000_000  # bytes, of shared memory: no audio goes through it, and Ray would take a third of all
)


@dataclass(frozen=True)
class Replica:
    """An engine, as Ray Serve's own status has it."""

    pid: int
    node: str
    state: str


class Cluster:
    """Made by ``cluster``. Engines are there after ``deploy``."""

    def __init__(self, folder: Path, env: dict[str, str], dashboard: str, port: int) -> None:
        self.url = f"ws://127.0.0.1:{port}"
        self._env = env
        self._folder = folder
        self._dashboard = dashboard
        self._port = port

    def deploy(self, options: str, drain_s: int = 60, **autoscaling: float) -> None:
        """What ``serve deploy`` makes of the shipped file, with these numbers in it."""
        config = yaml.safe_load(CONFIG.read_text())
        config["http_options"]["port"] = self._port
        (application,) = config["applications"]
        application["args"]["options"] = options
        (deployment,) = application["deployments"]
        deployment["graceful_shutdown_timeout_s"] = drain_s
        deployment["autoscaling_config"] |= autoscaling
        changed = self._folder / "serve.yaml"
        changed.write_text(yaml.safe_dump(config))
        self.run("serve", "deploy", "--address", self._dashboard, str(changed))

    def run(self, program: str, *arguments: str) -> str:
        """Run a program of the virtual environment as a person on a node would. Returns what it printed."""
        command = [str(Path(sys.executable).with_name(program)), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, env=self._env, timeout=PATIENCE_S
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def told(self) -> str:
        """All that ``serve status`` prints."""
        return self.run("serve", "status", "--address", self._dashboard)

    def status(self) -> dict[str, Any]:
        """The deployment, as Ray Serve's REST API tells of it; empty before there is one."""
        headers = {"Authorization": f"Bearer {self._env['RAY_AUTH_TOKEN']}"}
        answer = httpx.get(f"{self._dashboard}/api/serve/applications/", headers=headers, timeout=30).json()
        deployments = answer["applications"].get("parley", {}).get("deployments", {})
        found: dict[str, Any] = deployments.get("engine", {})
        return found

    def replicas(self) -> list[Replica]:
        """All that have a process by now, those that are going included."""
        return [
            Replica(each["pid"], each["node_id"], each["state"])
            for each in self.status().get("replicas", [])
            if each.get("pid")
        ]

    def running(self) -> list[Replica]:
        """Those that take calls."""
        return [replica for replica in self.replicas() if replica.state == "RUNNING"]

    def pids(self) -> set[int]:
        """Of all engines."""
        return {replica.pid for replica in self.replicas()}

    def until(self, true: Callable[[], bool], what: str) -> None:
        """Wait for what is about to be so."""
        deadline = time.monotonic() + PATIENCE_S
        while not true():
            if time.monotonic() > deadline:
                raise AssertionError(f"{what} did not come about; Ray Serve says {self.status()}")
            time.sleep(0.5)

    def until_running(self, number: int) -> None:
        """Wait until so many engines are ready, no more and no others."""

        def settled() -> bool:
            return self.status().get("status") == "HEALTHY" and len(self.running()) == number

        self.until(lambda: settled() and len(self.replicas()) == number, f"{number} engines")

    def engines_of(self, call_id: str) -> set[int]:
        """The processes that have or had this call, by their logs."""
        return {
            int(log.stem.rpartition("-")[2])
            for log in self._folder.glob("ray/session_*/logs/worker-*.err")
            if f"opened call_id='{call_id}'" in log.read_text(errors="replace")
        }

    def engine_of(self, call_id: str) -> int:
        """The process that has this call."""
        (pid,) = self.engines_of(call_id)
        return pid


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Two nodes, one CPU each, so that two engines cannot lie on one. Nothing of them is left at the end."""
    folder = Path(tempfile.mkdtemp(prefix="pray-"))  # short: Ray's sockets lie in it
    head, dashboard, port = free_port(), free_port(), free_port()
    # Ray listens on every address whatever it is told, and runs what it is sent: so it asks for a token.
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token_hex(32)}
    env = os.environ | token | {"PYTHONPATH": str(ROOT)}
    nodes = [
        ["--head", "--node-ip-address", "127.0.0.2", "--port", str(head), "--temp-dir", str(folder / "ray"),
         "--include-dashboard", "true", "--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard),
         "--ray-client-server-port", str(free_port())],
        ["--address", f"127.0.0.2:{head}", "--node-ip-address", "127.0.0.3"],
    ]  # fmt: skip
    try:
        with ExitStack() as running:
            for number, options in enumerate(nodes):
                running.enter_context(_node(folder / f"node{number}.log", env, options))
                if number == 0:
                    _until_answers(f"http://127.0.0.1:{dashboard}/api/version", folder / "node0.log")
            yield Cluster(folder, env, f"http://127.0.0.1:{dashboard}", port)
        deadline = time.monotonic() + 60
        while left := _holding(folder):
            assert time.monotonic() < deadline, f"processes outlive the cluster: {left}"
            time.sleep(0.2)
    finally:
        for pid in _holding(folder):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _node(log: Path, env: dict[str, str], options: list[str]) -> Iterator[None]:
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--block", "--disable-usage-stats",
        "--num-cpus", "1", "--object-store-memory", str(OBJECT_STORE),
        "--dashboard-agent-listen-port", str(free_port()), *options,
    ]  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=env, cwd=ROOT, preexec_fn=die_with_parent
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until_answers(url: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            httpx.get(url, timeout=5)  # that it wants a token is an answer
            return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise AssertionError(f"Ray's head did not start:\n{log.read_text(errors='replace')[-4000:]}")


def _holding(folder: Path) -> list[int]:
    """Every process with an open file in ``folder``, as each of Ray's has its log."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):  # it has just ended, or is another user's
            if link.readlink().is_relative_to(folder):
                found.add(int(link.parts[2]))
    return sorted(found - {os.getpid()})
