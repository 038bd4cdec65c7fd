"""A PBX for tests: a real Kamailio that registers one extension by digest and puts calls through to it."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path

HOST = "127.0.0.3"
EXTENSION, PASSWORD = "2000", "open sesame"
GRANTED_S = 4  # what every registration is cut down to
START_S = 20.0
_CONFIG = """\
debug=1
log_stderror=yes
children=1
tcp_children=1
server_signature=no
dns=no
listen=udp:{host}:{port}
listen=tcp:{host}:{port}
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "xlog.so"
loadmodule "maxfwd.so"
loadmodule "textops.so"
loadmodule "siputils.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "auth.so"
modparam("usrloc", "db_mode", 0)
modparam("auth", "nonce_expire", 2)  # so that every refresh comes with a stale one
modparam("registrar", "max_expires", {granted})
modparam("registrar", "min_expires", 1)
request_route {{
    if (!mf_process_maxfwd_header("20")) exit;
    if (is_method("REGISTER")) {{
        xlog("L_ERR", "asked to REGISTER\n");
        if (!pv_www_authenticate("pbx", "{password}", "0")) {{
            www_challenge("pbx", "1");
            exit;
        }}
        consume_credentials();
        xlog("L_ERR", "REGISTER from $si of $ct\\n");
        save("location");
        exit;
    }}
    if (has_totag()) {{
        loose_route();
        t_relay();
        exit;
    }}
    if (is_method("CANCEL")) {{
        if (t_check_trans()) t_relay();
        exit;
    }}
    record_route();
    if (!lookup("location")) {{
        sl_send_reply("404", "Not Registered");
        exit;
    }}
    t_relay();
}}
"""


class Pbx:
    """Started and stopped at will, always on the same port."""

    def __init__(self, folder: Path, port: int, password: str = PASSWORD) -> None:
        self.folder = folder
        self.port = port
        folder.mkdir(parents=True, exist_ok=True)
        self._config = folder / "kamailio.cfg"
        self._config.write_text(_CONFIG.format(host=HOST, port=port, granted=GRANTED_S, password=password))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """Whoever has the extension."""
        return f"sip:{EXTENSION}@{HOST}:{self.port}"

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def registrations(self) -> int:
        """REGISTERs with good credentials, the refreshing and the ending ones included."""
        return self.log().count("REGISTER from")

    def asked(self) -> int:
        """REGISTERs of any kind."""
        return self.log().count("asked to REGISTER")

    def start(self) -> Pbx:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["kamailio", "-DD", "-E", "-f", str(self._config), "-P", str(self.folder / "pid"),
                 "-Y", str(self.folder), "-m", "16", "-M", "4"],
                stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection((HOST, self.port), 1.0).close()
                return self
            except OSError:
                assert self._process.poll() is None, self.log()
                assert time.monotonic() < deadline, self.log()
                time.sleep(0.05)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def __enter__(self) -> Pbx:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
