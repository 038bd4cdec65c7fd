"""The command line as a person meets it: exit status and words, never a traceback."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from bot import settings as conf
from bot.waveform import write_wav
from tests.bot.speaking_engine import SpeakingEngine
from tests.bot.test_talk import parley, voice
from tests.bot.undisturbed import undisturbed


def environment(tmp_path: Path, **settings: str) -> dict[str, str]:
    """This one, but of Parley's settings only ``settings``."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(conf.PREFIX)}
    data = str(tmp_path / "redis")
    fixed = {"COLUMNS": "200", "PYTHONPATH": str(conf.PACKAGE.parent), "PARLEY_REDIS__DATA_DIR": data}
    return plain | fixed | settings


def run(tmp_path: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "bot.cli", *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(tmp_path, **settings),
        timeout=120,
    )
    assert "Traceback" not in done.stdout + done.stderr
    return done


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield holder.getsockname()[1]


def test_without_a_command_it_says_what_there_is(tmp_path: Path) -> None:
    done = run(tmp_path)
    for command in (
        "serve",
        "talk",
        "call",
        "agents",
        "calls",
        "voices",
        "tools",
        "knowledge",
        "check",
        "settings",
    ):
        assert command in done.stdout + done.stderr


def test_settings_prints_what_is_set_and_the_readmes_table(tmp_path: Path) -> None:
    shown = run(tmp_path, "settings", PARLEY_PORT="8123")
    assert shown.returncode == 0
    assert "PARLEY_TURNS__END_MS" in shown.stdout
    assert "8123" in shown.stdout
    assert run(tmp_path, "settings", "--markdown", PARLEY_PORT="8123").stdout == conf.markdown()


@pytest.mark.parametrize("command", ["serve", "check", "settings"])
def test_a_wrong_setting_is_named(tmp_path: Path, command: str) -> None:
    done = run(tmp_path, command, PARLEY_PORT="high")
    assert done.returncode == 1
    assert done.stderr.startswith("PARLEY_PORT: is 'high'")


def test_serving_on_a_taken_port_says_so(tmp_path: Path) -> None:
    with taken_port() as port:
        done = run(tmp_path, "serve", "--port", str(port))
    assert done.returncode == 1
    assert f"Port {port} on 127.0.0.1 cannot be used" in done.stderr
    assert "--port" in done.stderr


def test_serving_an_agent_that_is_not_there_says_so(tmp_path: Path) -> None:
    done = run(tmp_path, "serve", "--port", "0", "--agent", "nobody")
    assert done.returncode == 1
    assert "There is no agent 'nobody'" in done.stderr
    assert "bluebird" in done.stderr


def test_serving_what_is_no_checkpoint_says_so_and_ends(tmp_path: Path) -> None:
    done = run(tmp_path, "serve", "--port", "0", "--checkpoint", str(tmp_path))
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert str(tmp_path) in last


async def test_serving_until_sigterm_is_a_good_end(tmp_path: Path) -> None:
    async with SpeakingEngine() as engine:
        server = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bot.cli", "serve", "--port", "0"),
            stderr=asyncio.subprocess.PIPE,
            cwd=tmp_path,
            env=environment(tmp_path, PARLEY_ENGINE__URL=engine.url),
        )
        assert server.stderr is not None
        while b"Parley is ready" not in (line := await server.stderr.readline()):
            assert line, "it ended before it was ready"
        url = next(word for word in line.decode().split() if word.startswith("http"))
        async with httpx.AsyncClient(trust_env=False) as client:
            assert (await client.get(f"{url}/readyz")).status_code == 200
        server.send_signal(signal.SIGTERM)
        assert await server.wait() == 0


async def test_talk_prints_the_answer_and_writes_the_recording(tmp_path: Path) -> None:
    write_wav(tmp_path / "question.wav", [voice(1.0)], 48_000)
    arguments = ("talk", "--wav", "question.wav", "--out", "answer.wav", "--json", "--url")
    async with SpeakingEngine() as engine, parley(engine) as url:
        done = await undisturbed(lambda: asyncio.to_thread(run, tmp_path, *arguments, url))
    assert done.returncode == 0, done.stderr
    (turn,) = json.loads(done.stdout)["turns"]
    assert turn["answer"] == "Delivery takes two to three days."
    assert turn["voice_to_voice_ms"] > 0
    assert (tmp_path / "answer.wav").stat().st_size > 100_000


def test_talk_says_what_stands_in_its_way(tmp_path: Path) -> None:
    missing = run(tmp_path, "talk", "--wav", "missing.wav")
    assert (missing.returncode, "missing.wav: cannot be read" in missing.stderr) == (1, True)
    write_wav(tmp_path / "q.wav", [voice(0.1)], 48_000)
    nobody = run(tmp_path, "talk", "--wav", "q.wav", "--url", "http://127.0.0.1:9")
    assert (nobody.returncode, "Is Parley running there?" in nobody.stderr) == (1, True)


async def test_check_says_what_is_fine_and_what_is_not(tmp_path: Path) -> None:
    async with SpeakingEngine() as engine:
        fine = await asyncio.to_thread(run, tmp_path, "check", PARLEY_PORT="0", PARLEY_ENGINE__URL=engine.url)
    assert fine.returncode == 0, fine.stdout
    assert "tone (demo model for tests, not Step-Audio 2)" in fine.stdout
    assert f"keeps calls in {tmp_path / 'redis'}" in fine.stdout
    assert not (tmp_path / "redis").exists()  # it looks and changes nothing
    with taken_port() as port:
        bad = run(
            tmp_path,
            "check",
            PARLEY_PORT=str(port),
            PARLEY_AGENT="nobody",
            PARLEY_REDIS__URL="redis://:secret@127.0.0.1:9",
            PARLEY_CHECKPOINT=str(tmp_path),
        )
    assert bad.returncode == 1
    for words in (
        "choose another with PARLEY_PORT",
        "no agent 'nobody'",
        "Redis cannot be reached",
        str(tmp_path),
    ):
        assert words in bad.stdout
    assert "secret" not in bad.stdout + bad.stderr


def test_agents_are_listed_with_their_calls_and_checked(tmp_path: Path) -> None:
    (tmp_path / "main.yaml").write_text("name: Main\n")
    (tmp_path / "sales.yaml").write_text("name: Sales\nanswers: {numbers: ['100', '2*'], trunks: [office]}\n")
    settings = {"PARLEY_AGENTS_DIR": str(tmp_path), "PARLEY_AGENT": "main"}
    listed = run(tmp_path, "agents", "list", **settings)
    lines = {line.split()[0]: line for line in listed.stdout.splitlines() if line.strip()}
    assert "/a/main/ and /" in lines["main"]
    assert "all others" in lines["main"]
    assert "100, 2*; from office" in lines["sales"]
    fine = run(tmp_path, "agents", "check", **settings)
    assert (fine.returncode, fine.stdout) == (0, f"2 agents in {tmp_path}: fine.\n")
    (tmp_path / "other.yaml").write_text("name: O\nanswers:\n  numbers: ['2*']\n  trunks: [office]\n")
    (tmp_path / "bad.yaml").write_text("name: B\nvioce: x\n")
    bad = run(tmp_path, "agents", "check", **settings)
    assert bad.returncode == 1
    assert "bad.yaml: line 2: vioce: there is no such field" in bad.stderr
    assert f"{tmp_path}/sales.yaml, line 2: the same stands in {tmp_path}/other.yaml, line 3" in bad.stderr
    assert (
        "There is no agent 'nobody'"
        in run(tmp_path, "agents", "check", **settings, PARLEY_SIP__AGENT="nobody").stderr
    )


def test_a_key_is_made_with_the_line_for_a_file(tmp_path: Path) -> None:
    made = run(tmp_path, "agents", "key").stdout.split()
    digest = hashlib.sha256(made[made.index("nowhere:") + 1].encode()).hexdigest()
    assert f'["sha256:{digest}"]' in made


async def test_a_parley_whose_other_agent_is_broken_starts_without_it_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "main.yaml").write_text("name: Main\n")
    (tmp_path / "bad.yaml").write_text("name: [\n")
    settings = {"PARLEY_AGENTS_DIR": str(tmp_path), "PARLEY_AGENT": "main"}
    async with SpeakingEngine() as engine:
        server = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bot.cli", "serve", "--port", "0"),
            stderr=asyncio.subprocess.PIPE,
            cwd=tmp_path,
            env=environment(tmp_path, PARLEY_ENGINE__URL=engine.url, **settings),
        )
        assert server.stderr is not None
        said = b""
        while b"Parley is ready" not in said:
            line = await server.stderr.readline()
            assert line, "it ended before it was ready"
            said += line
        server.send_signal(signal.SIGTERM)
        assert await server.wait() == 0
    assert f"bad does not answer: {tmp_path}/bad.yaml, line 2: is not YAML" in said.decode()


def test_tools_are_listed_with_what_the_agent_has(tmp_path: Path) -> None:
    agent = "name: A\ntools: [date_time, {name: hang_up, policy: confirm}]\n"
    agent += "mcp: [{name: gone, command: [/no/such/server], tools: [x]}]\n"
    (tmp_path / "a.yaml").write_text(agent)
    settings = {"PARLEY_AGENTS_DIR": str(tmp_path), "PARLEY_AGENT": "a"}
    done = run(tmp_path, "tools", "list", **settings)
    assert done.returncode == 0
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert lines["date_time"].rstrip().endswith("yes")
    assert lines["hang_up"].rstrip().endswith("asks the caller first")
    assert lines["transfer"].rstrip().endswith("no (privileged)")
    assert "city, [day]" in lines["weather"]
    assert "MCP server gone" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["date_time", "what=date"], 0, " 20"),
        (["date_time", "what=era"], 1, "Error: what: should be one of time, date, both."),
        (["hang_up"], 1, "Error: there is no call to end."),
        (["transfer", "to=sales"], 1, "transfer: options: targets: field required"),
        (["nothing"], 1, "Error: there is no tool named nothing."),
        (["date_time", "date"], 1, "'date' should be KEY=VALUE."),
    ],
)
def test_a_tool_is_tried_without_a_call(tmp_path: Path, arguments: list[str], status: int, said: str) -> None:
    done = run(tmp_path, "tools", "run", *arguments)
    assert done.returncode == status
    assert said in (done.stderr if status else done.stdout)
