"""What ``parley check`` says of the Redis that calls are to be remembered in."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from pydantic import SecretStr

from bot import check
from bot.settings import RedisSettings
from pipeline.memory import OwnRedis, RedisImpossible
from tests.pipeline.memory.redis_server import redis_with_vectors, running_redis


def look(url: str = "", data_dir: Path = Path("/nowhere")) -> tuple[str, str]:
    finding = check._redis(RedisSettings(url=SecretStr(url), data_dir=data_dir))
    return finding.state, finding.said


async def test_somebodys_redis_is_asked() -> None:
    async with running_redis() as server:
        state, said = await asyncio.to_thread(look, server.url)
        assert (state, "redis.sock answers, version" in said) == ("ok", True)
        assert said.endswith(", without vector sets")
        await server.do("REPLICAOF", "127.0.0.1", "1")
        state, said = await asyncio.to_thread(look, server.url)
        assert (state, "is a replica" in said) == ("bad", True)
        await server.do("REPLICAOF", "NO", "ONE")
        await server.do("CONFIG", "SET", "requirepass", "right")
        state, said = await asyncio.to_thread(look, server.url.replace("unix://", "unix://:wrong@"))
        assert state == "bad"
        assert "wrong@" not in said
        server.kill()
        state, said = await asyncio.to_thread(look, server.url)
        assert (state, "cannot be reached" in said) == ("bad", True)


async def test_it_is_said_whether_knowledge_can_be_asked_of_it() -> None:
    async with running_redis(redis_with_vectors()) as server:
        assert (await asyncio.to_thread(look, server.url))[1].endswith(", with vector sets")
        await server.do("ACL", "SETUSER", "default", "-vcard")
        said = (await asyncio.to_thread(look, server.url))[1]
        assert "whose vector sets cannot be used: NoPermissionError" in said


@pytest.mark.parametrize("url", ["redis://:se#cret@host", "redis://:secret@host/?what=1"])
def test_a_url_that_is_none_is_not_repeated(url: str) -> None:
    state, said = look(url)
    assert state == "bad"
    assert "PARLEY_REDIS__URL" in said
    assert "cret" not in said


async def test_of_our_own_it_says_whether_it_could_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "parley"
    state, said = look(data_dir=folder)
    assert (state, f"keeps calls in {folder}" in said) == ("ok", True)
    assert not folder.exists()
    own = OwnRedis(folder)
    await own.start()
    assert look(data_dir=folder)[0] == "note"
    await own.stop()
    assert look(data_dir=folder)[0] == "ok"
    (tmp_path / "file").write_text("")
    state, said = look(data_dir=tmp_path / "file" / "parley")
    assert (state, "PARLEY_REDIS__DATA_DIR" in said) == ("bad", True)

    def missing() -> Path:
        raise RedisImpossible("There is no redis-server.")

    monkeypatch.setattr(check, "find_server", missing)
    assert look(data_dir=folder) == ("bad", "There is no redis-server.")
