"""Real Redises whose master can die: one with Sentinels, and a small Cluster, on free ports."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from pipeline.memory.keys import Keys
from tests.pipeline.memory.redis_server import until
from tests.ports import free_port

PASSWORD = "s3cret/@"
URL_PASSWORD = "s3cret%2F%40"
DOWN_MS = 500  # after which a master that does not answer counts as gone


class Redises:
    """Servers by port; all have the password."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="parley-test-"))
        self.url = ""
        self.ports: list[int] = []
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, port: int, *options: str) -> None:
        program = shutil.which("redis-server")
        assert program is not None, "redis-server is missing: make packages"
        folder = self.folder / str(port)
        folder.mkdir(exist_ok=True)
        own = ("--requirepass", PASSWORD, "--masterauth", PASSWORD, "--save", "")
        where = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder))
        log = ("--logfile", str(folder / "log"))
        self._processes[port] = subprocess.Popen(
            [program, *options, *where, *log, *(() if options[-1:] == ("--sentinel",) else own)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )

    def kill(self, port: int) -> None:
        process = self._processes.pop(port)
        process.kill()
        process.wait()

    def freeze(self, port: int) -> None:
        """It answers nothing any more, but its connections stand."""
        self._processes[port].send_signal(signal.SIGSTOP)

    def thaw(self, port: int) -> None:
        self._processes[port].send_signal(signal.SIGCONT)

    async def do(self, port: int, *command: object, password: str | None = PASSWORD) -> object:
        async with Redis(port=port, password=password, protocol=2, socket_timeout=2) as client:
            answer: object = await client.execute_command(*command)  # type: ignore[no-untyped-call] # redis-py's
            return answer

    async def answers(self, port: int, password: str | None = PASSWORD) -> bool:
        try:
            return await self.do(port, "PING", password=password) is True
        except (RedisError, OSError):
            return False

    async def takes_writes(self, port: int) -> bool:
        try:
            return await self.do(port, "SET", "{default}", "1") is True
        except (RedisError, OSError):
            return False

    async def is_master(self, port: int) -> bool:
        try:
            role = await self.do(port, "ROLE")
        except (RedisError, OSError):
            return False
        return isinstance(role, list) and role[0] == b"master"

    async def cli(self, *arguments: str) -> None:
        program = shutil.which("redis-cli")
        assert program is not None, "redis-cli is missing: make packages"
        process = await asyncio.create_subprocess_exec(
            program, "--no-auth-warning", "-a", PASSWORD, *arguments, stdout=subprocess.PIPE
        )
        out, _ = await process.communicate()
        assert process.returncode == 0, out.decode()

    def close(self) -> None:
        for port in list(self._processes):
            self.kill(port)
        shutil.rmtree(self.folder)


@asynccontextmanager
async def with_sentinels() -> AsyncIterator[Redises]:
    """A master and a replica (``ports``), and three Sentinels that watch them."""
    redises = Redises()
    try:
        master, replica = redises.ports = [free_port(), free_port()]
        redises.start(master)
        redises.start(replica, "--replicaof", f"127.0.0.1 {master}")
        for port in redises.ports:
            await until(lambda port=port: redises.answers(port), "Redis")  # type: ignore[misc]  # of a lambda with a default
        sentinels = [free_port() for _ in range(3)]
        for port in sentinels:
            file = redises.folder / f"sentinel-{port}.conf"
            file.write_text(
                f"sentinel monitor mine 127.0.0.1 {master} 2\n"
                f'sentinel auth-pass mine "{PASSWORD}"\n'
                f"sentinel down-after-milliseconds mine {DOWN_MS}\nsentinel failover-timeout mine 2000\n"
            )
            redises.start(port, str(file), "--sentinel")

        async def watched() -> bool:
            """All three know the replica and each other, and it has all that the master has."""
            for port in sentinels:
                try:
                    told = await redises.do(port, "SENTINEL", "MASTER", "mine", password=None)
                except (RedisError, OSError):
                    return False
                assert isinstance(told, list)
                known = dict(zip(told[::2], told[1::2], strict=True))
                if (known[b"num-slaves"], known[b"num-other-sentinels"]) != (b"1", b"2"):
                    return False
            role = await redises.do(replica, "ROLE")
            return isinstance(role, list) and role[3] == b"connected"

        await until(watched, "the Sentinels")
        hosts = ",".join(f"127.0.0.1:{port}" for port in sentinels)
        redises.url = f"redis+sentinel://:{URL_PASSWORD}@{hosts}/mine"
        yield redises
    finally:
        redises.close()


@asynccontextmanager
async def cluster() -> AsyncIterator[Redises]:
    """A Cluster of three; ``ports``: the master of the default tenant's slot, its replica, the other two."""
    redises = Redises()
    try:
        ports = [free_port() for _ in range(4)]
        for port in ports:
            bus = ("--cluster-port", str(port + 1))  # the usual, 10,000 above, is among clients' own
            redises.start(port, "--cluster-enabled", "yes", "--cluster-node-timeout", str(DOWN_MS), *bus)
        for port in ports:
            await until(lambda port=port: redises.answers(port), "Redis")  # type: ignore[misc]  # of a lambda with a default
        nodes = [f"127.0.0.1:{port}" for port in ports]
        await redises.cli("--cluster", "create", *nodes[:3], "--cluster-yes")
        slot = key_slot(Keys("default").call(""))
        told = await redises.do(ports[0], "CLUSTER", "SLOTS")
        assert isinstance(told, list)
        (master,) = [entry[2][1] for entry in told if entry[0] <= slot <= entry[1]]
        node = await redises.do(master, "CLUSTER", "MYID")
        assert isinstance(node, bytes)
        of = ("--cluster-slave", "--cluster-master-id", node.decode())
        await redises.cli("--cluster", "add-node", nodes[3], nodes[0], *of)
        redises.ports = [master, ports[3], *(port for port in ports[:3] if port != master)]

        async def replicates() -> bool:
            role = await redises.do(ports[3], "ROLE")
            state = await redises.do(ports[3], "CLUSTER", "INFO")
            whole = b"cluster_state:ok" in (state if isinstance(state, bytes) else str(state).encode())
            return whole and isinstance(role, list) and role[0] == b"slave" and role[3] == b"connected"

        await until(replicates, "the replica")
        redises.url = f"redis+cluster://:{URL_PASSWORD}@127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}"
        yield redises
    finally:
        redises.close()
