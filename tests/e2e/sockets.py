"""The sockets of a process, as the kernel has them."""

from __future__ import annotations

from pathlib import Path


def sockets(process: int, kind: str) -> list[tuple[str, int, str]]:
    """Address, port and state of each socket of a process that ``/proc/net/KIND`` tells."""
    folder = Path("/proc", str(process))
    own = {str(entry.readlink()) for entry in (folder / "fd").iterdir()}
    rows = [row.split() for row in (folder / "net" / kind).read_text().splitlines()[1:]]
    return [
        (row[1].split(":")[0], int(row[1].split(":")[1], 16), row[3])
        for row in rows
        if f"socket:[{row[9]}]" in own
    ]
