"""The engine as a person or a supervisor starts and stops it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.sync.client import unix_connect

from model_runtime.engine.settings import parse
from model_runtime.protocol import Open, Opened, decode_engine, encode
from model_runtime.speaking.schedule import Schedule
from tests.model_runtime.engine.rig import checkpoint


def start(*options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "model_runtime.engine", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_it_says_when_it_is_ready_and_ends_when_told(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    with start("--checkpoint", str(checkpoint()), "--socket", str(path)) as engine:
        try:
            assert engine.stdout is not None
            assert engine.stdout.readline() == f"ready ws+unix://{path}\n"
            with unix_connect(str(path)) as socket:
                socket.send(encode(Open("first\ncall", instructions="Hello.")))
                assert isinstance(decode_engine(socket.recv(decode=False)), Opened)
                engine.send_signal(signal.SIGTERM)
                log = engine.communicate(timeout=60)[1]
        finally:
            engine.kill()
    assert engine.returncode == 0
    assert "call_id='first\\ncall'" in log  # a name cannot forge a line of the log
    assert "Traceback" not in log
    assert not path.exists()


def test_a_bad_checkpoint_is_told_in_one_sentence(tmp_path: Path) -> None:
    with start("--checkpoint", str(tmp_path / "nothing"), "--port", "0") as engine:
        out, log = engine.communicate(timeout=60)
    assert engine.returncode == 2
    assert out == ""
    assert "nothing" in log
    assert "does not exist" in log
    assert "Traceback" not in log
    assert len(log.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "options",
    [[], ["--checkpoint", "x", "--port", "-1"], ["--checkpoint", "x", "--max-sessions", "0"],
     ["--checkpoint", "x", "--device", "abacus"], ["--checkpoint", "x", "--chunks", "8,many"],
     ["--checkpoint", "x", "--chunks", "0"]],
)  # fmt: skip
def test_wrong_options_are_refused(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(options)
    assert ended.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_options_become_settings() -> None:
    chosen = parse(
        [
            "--checkpoint",
            "x",
            "--socket",
            "/tmp/s",
            "--max-reply",
            "16",
            "--no-slot-masking",
            "--chunks",
            "5,25",
        ]
    )
    assert chosen.socket == Path("/tmp/s")
    assert chosen.max_groups == 100
    assert chosen.slot_masking is False
    assert chosen.chunks == (5, 25)
    assert chosen.warm_up
    assert chosen.schedule == Schedule((5, 25))
    assert parse(["--checkpoint", "x", "--like-reference"]).schedule == Schedule.reference()
