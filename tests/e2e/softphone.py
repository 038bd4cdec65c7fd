"""A softphone for tests: Debian's baresip without a screen or a sound card, driven over its control port.

It speaks what is in a WAV file from the moment a call is answered, and records what it heard and what it
said (``Recording``), both on one clock.
"""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from bot.waveform import Pcm
from tests.ports import free_port

CODECS = {"pcmu": (8000, 1), "pcma": (8000, 1), "g722": (16_000, 1), "opus": (48_000, 2), "l16": (8000, 1)}
_NAMES = {"pcmu": "PCMU/8000/1", "pcma": "PCMA/8000/1"}  # share a module; of the others all is offered
WAIT_S = 30.0
ATTEMPTS = 3


@dataclass(frozen=True)
class Recording:
    """One call's sound, mono float32."""

    heard: Pcm
    said: Pcm
    rate: int


class SoftPhone:
    """A running softphone; made by ``softphone``."""

    def __init__(self, folder: Path, codec: str, port: int, control: socket.socket) -> None:
        self.port = port
        self._codec = codec
        self._folder = folder
        self._control = control
        self._events: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def dial(self, uri: str) -> None:
        self._command("dial", uri)

    def hang_up(self) -> None:
        self._command("hangup")

    def hold(self) -> None:
        self._command("hold")

    def resume(self) -> None:
        self._command("resume")

    def press(self, key: str) -> None:
        """Press a key, and let it go."""
        self._command("sndcode", key)

    def seen(self, kind: str) -> list[str]:
        """What came with each event of that kind."""
        with self._news:
            return [str(event.get("param", "")) for event in self._events if event.get("type") == kind]

    def wait(self, kind: str, seconds: float = WAIT_S) -> str:
        """Wait for the first event of a kind; what came with it."""
        with self._news:
            if not self._news.wait_for(lambda: any(e.get("type") == kind for e in self._events), seconds):
                raise AssertionError(f"no {kind}; there was {[e.get('type') for e in self._events]}")
        return self.seen(kind)[0]

    def recording(self) -> Recording:
        """All the phone has recorded since it started; a hold begins a new file."""
        return Recording(self._joined("dec"), self._joined("enc"), CODECS[self._codec][0])

    def close(self) -> None:
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._control.close()
        self._reader.join(5)

    def _joined(self, side: str) -> Pcm:
        channels = CODECS[self._codec][1]
        pieces = [np.zeros(0, np.float32)]
        for path in sorted((self._folder / "rec").glob(f"*-{side}.wav")):
            data = path.read_bytes()[44:]  # while the call lasts, the header does not know how much there is
            samples = np.frombuffer(data[: len(data) // (2 * channels) * 2 * channels], "<i2")
            pieces.append(samples[::channels].astype(np.float32) / np.float32(32768))
        return np.concatenate(pieces)

    def _command(self, command: str, params: str = "") -> None:
        body = json.dumps({"command": command, "params": params}).encode()
        self._control.sendall(b"%d:%s," % (len(body), body))

    def _read(self) -> None:
        buffer = b""
        while True:
            try:
                data = self._control.recv(1 << 16)
            except OSError:
                return
            if not data:
                return
            buffer += data
            while b":" in buffer:  # netstrings
                length, _, rest = buffer.partition(b":")
                if len(rest) <= int(length):
                    break
                body, buffer = rest[: int(length)], rest[int(length) + 1 :]
                with self._news:
                    self._events.append(json.loads(body))
                    self._news.notify_all()


@contextmanager
def softphone(
    folder: Path, says: Pcm | None = None, codec: str = "pcmu", rate: int = 48_000, answers: bool = False
) -> Iterator[SoftPhone]:
    """A softphone that says ``says`` (mono at ``rate`` Hz), then nothing; ``answers``: whoever calls it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rec").mkdir()
    _write_microphone(
        folder / "microphone.wav", np.zeros(0, np.float32) if says is None else says, rate, codec
    )
    names = f";audio_codecs={_NAMES[codec]}" if codec in _NAMES else ""
    auto = ";answermode=auto" if answers else ""
    (folder / "contacts").touch()
    for _ in range(ATTEMPTS):
        port, control_port = free_port(), free_port()
        (folder / "config").write_text(_config(folder, port, control_port, codec))
        (folder / "accounts").write_text(f"<sip:alice@127.0.0.1:{port}>;regint=0{names}{auto}\n")
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                ["baresip", "-f", str(folder), "-s", "-v"], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        phone = None
        try:
            control = _connected(control_port, process)
            if control is None:
                continue
            phone = SoftPhone(folder, codec, port, control)
            yield phone
            return
        finally:
            if phone is not None:
                phone.close()
            process.kill()
            process.wait()
    raise AssertionError(f"the softphone did not start:\n{(folder / 'log').read_text()[-1000:]}")


def _connected(port: int, process: subprocess.Popen[bytes]) -> socket.socket | None:
    """Its control port; None if it ended, as it does when somebody was quicker to take a port."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError):
            return socket.create_connection(("127.0.0.1", port))
        time.sleep(0.05)
    return None


def _write_microphone(path: Path, says: Pcm, rate: int, codec: str) -> None:
    """The end of the file ends the call, so silence follows that outlasts any test."""
    to_rate, channels = CODECS[codec]
    pcm = soxr.resample(says, rate, to_rate) if len(says) else says
    pcm = np.concatenate([pcm, np.zeros(180 * to_rate, np.float32)])
    samples = np.repeat((np.clip(pcm, -1, 1) * 32767).astype("<i2"), channels)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(to_rate)
        file.writeframes(samples.tobytes())


def _config(folder: Path, port: int, control_port: int, codec: str) -> str:
    module = {"pcmu": "g711", "pcma": "g711"}.get(codec, codec)
    lines = [
        "net_interface 127.0.0.1",  # an address: by the name of the interface it would offer another one's
        f"sip_listen 127.0.0.1:{port}",
        f"audio_source aufile,{folder}/microphone.wav",
        "audio_player aubridge,nil",
        f"snd_path {folder}/rec",
        "module_path /usr/lib/baresip/modules",
        *[f"module {name}.so" for name in (module, "aufile", "aubridge", "sndfile")],
        *[f"module_app {name}.so" for name in ("account", "contact", "menu", "ctrl_tcp")],
        f"ctrl_tcp_listen 127.0.0.1:{control_port}",
    ]
    return "\n".join(lines) + "\n"
