"""Real phones for the edge's tests: Debian's baresip, headless. Plays a tone, records what it hears."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bot.waveform import Pcm, write_wav
from tests.ports import free_port

RATE = 8000
TONE_S = 60  # the file is played once
MODULES = Path("/usr/lib/baresip/modules")
STUTTER_HZ = 20  # a lost frame of a busy machine shifts a tone's phase, and the peak of 100 ms with it
LONG_S = 20.0  # only a test that fails waits so long


class Phone:
    """A baresip of its own folder, at ``address``; ``sip`` is its UDP and TCP port, the next its TLS port."""

    def __init__(
        self,
        folder: Path,
        address: str,
        name: str,
        tone_hz: int,
        sip: int = 0,
        params: str = "",
        registrar: str = "",
    ) -> None:
        """``params`` are the account's (``;auth_pass=...``); ``registrar`` is HOST:PORT.

        Nothing runs before ``start``.
        """
        self.folder, self.address, self.name = folder, address, name
        self.sip = sip or free_port()
        self.tone_hz = tone_hz
        self.events: list[dict[str, Any]] = []
        self._control = free_port()
        self._params = f";audio_codecs=PCMU/8000/1{params}"
        self._registrar = registrar
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._rest = b""

    @property
    def uri(self) -> str:
        return f"sip:{self.name}@{self.address}:{self.sip}"

    def start(self) -> Phone:
        self._configure()
        log = (self.folder / "log").open("wb")
        self._process = subprocess.Popen(
            ["baresip", "-f", str(self.folder), "-s", "-v"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        log.close()
        deadline = time.monotonic() + LONG_S
        while self._line is None:
            try:
                self._line = socket.create_connection((self.address, self._control), 1.0)
            except OSError:
                assert self._process.poll() is None, self.log()
                assert time.monotonic() < deadline, self.log()
                time.sleep(0.05)
        return self

    def kill(self) -> None:
        """As a machine that is gone."""
        if self._line is not None:
            self._line.close()
            self._line = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self, on: bool) -> None:
        """A process that hangs: its port is open and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if on else signal.SIGCONT)

    def dial(self, uri: str) -> str:
        """Call ``uri``; what became of it: ``established``, or why it ended."""
        before = len(self.events)
        self.do("dial", uri)
        return self.outcome(before)

    def outcome(self, since: int = 0) -> str:
        """Wait for the next call's fate."""
        deadline = time.monotonic() + LONG_S
        while time.monotonic() < deadline:
            for event in self.events[since:]:
                if event.get("type") == "CALL_ESTABLISHED":
                    return "established"
                if event.get("type") == "CALL_CLOSED":
                    return str(event.get("param"))
            self.listen(0.2)
        return f"nothing in {LONG_S:g} s"

    def await_event(self, kind: str, since: int = 0) -> dict[str, Any]:
        deadline = time.monotonic() + LONG_S
        while time.monotonic() < deadline:
            for event in self.events[since:]:
                if event.get("type") == kind:
                    return event
            self.listen(0.2)
        raise AssertionError(
            f"{self.name}: no {kind} in {LONG_S:g} s, but {self.events[since:]}\n{self.log()}"
        )

    def await_log(self, text: str) -> None:
        deadline = time.monotonic() + LONG_S
        while text not in self.whole_log():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.1)

    def hang_up(self) -> None:
        self.do("hangup")

    def do(self, command: str, params: str = "") -> None:
        assert self._line is not None
        message = json.dumps({"command": command, "params": params, "token": "t"}).encode()
        self._line.sendall(b"%d:%b," % (len(message), message))

    def listen(self, seconds: float) -> None:
        """Take what events come in the meantime (netstrings of JSON)."""
        assert self._line is not None
        self._line.settimeout(seconds)
        try:
            self._rest += self._line.recv(65536)
        except TimeoutError:
            return
        while b":" in self._rest:
            size, _, rest = self._rest.partition(b":")
            if len(rest) <= int(size):
                return
            message, self._rest = json.loads(rest[: int(size)]), rest[int(size) + 1 :]
            if message.get("event"):
                self.events.append(message)

    def listen_for(self, seconds: float) -> None:
        """Talk on for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.listen(0.2)

    def heard_hz(self) -> list[int]:
        """The tones that were heard, loudest first, of all the recordings, each for half a second or more."""
        import soundfile

        seconds: dict[int, float] = {}
        for path in sorted((self.folder / "rec").glob("*-dec.wav")):
            sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
            for hz in _tones(sound[:, 0], rate):
                seconds[hz] = seconds.get(hz, 0.0) + 0.1
        heard: dict[int, float] = {}
        for hz in sorted(seconds, key=lambda hz: -seconds[hz]):
            same = next((one for one in heard if abs(one - hz) <= STUTTER_HZ), hz)
            heard[same] = heard.get(same, 0.0) + seconds[hz]
        return [hz for hz, s in heard.items() if s >= 0.5]

    def log(self) -> str:
        """The end of it."""
        return self.whole_log()[-4000:]

    def whole_log(self) -> str:
        """With every message, as sent and as received."""
        return (self.folder / "log").read_text(errors="replace")

    def _configure(self) -> None:
        (self.folder / "rec").mkdir(parents=True, exist_ok=True)
        t = np.arange(TONE_S * RATE) / RATE
        tone: Pcm = (0.3 * np.sin(2 * np.pi * self.tone_hz * t)).astype(np.float32)
        write_wav(self.folder / "tone.wav", [tone], RATE)
        certificate = certificate_of(self.folder)
        modules = [
            *(f"module {name}.so" for name in ("g711", "aufile", "sndfile", "srtp", "dtls_srtp")),
            *(f"module_app {name}.so" for name in ("account", "ctrl_tcp", "menu")),
            "module aubridge.so",
        ]
        rtp = free_port()
        (self.folder / "config").write_text(
            "\n".join(
                (
                    f"sip_listen {self.address}:{self.sip}",
                    f"sip_certificate {certificate}",
                    f"net_interface {self.address}",
                    f"rtp_ports {rtp}-{rtp + 20}",
                    "audio_player aubridge,nil",
                    f"audio_source aufile,{self.folder}/tone.wav",
                    "audio_alert aubridge,nil",
                    f"snd_path {self.folder}/rec",
                    f"ctrl_tcp_listen {self.address}:{self._control}",
                    f"module_path {MODULES}",
                    *modules,
                )
            )
            + "\n"
        )
        account = (
            f"<sip:{self.name}@{self._registrar}>;regint=60" if self._registrar else f"<{self.uri}>;regint=0"
        )
        (self.folder / "accounts").write_text(f"{account}{self._params}\n")
        (self.folder / "contacts").write_text("")


def certificate_of(folder: Path) -> Path:
    """A certificate of its own signing, and its key, in one file; made once."""
    path = folder / "certificate.pem"
    if not path.exists():
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-keyout", f"{path}.key", "-out", f"{path}.crt"],
            check=True, capture_output=True,
        )  # fmt: skip
        path.write_text(Path(f"{path}.key").read_text() + Path(f"{path}.crt").read_text())
    return path


def _tones(sound: Any, rate: int) -> Iterator[int]:
    """The loudest frequency of each 100 ms that is not silent, rounded to 10 Hz."""
    size = rate // 10
    for start in range(0, len(sound) - size, size):
        block = sound[start : start + size]
        if np.abs(block).max() > 0.05:
            yield int(round(float(np.abs(np.fft.rfft(block * np.hanning(size))).argmax()) * 10, -1))


@contextmanager
def phones(*wanted: Phone) -> Iterator[None]:
    """Have them run meanwhile."""
    try:
        for phone in wanted:
            phone.start()
        yield
    finally:
        for phone in wanted:
            phone.kill()
            shutil.rmtree(phone.folder / "rec", ignore_errors=True)
