"""``parley calls`` as an operator uses it, on real calls and on data of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from bot.waveform import write_wav
from pipeline.conversation import Conversation, Exchange
from pipeline.memory import Memory, OwnRedis
from tests.bot.speaking_engine import SpeakingEngine
from tests.bot.test_cli import environment, run
from tests.bot.test_talk import voice
from tests.pipeline.memory.redis_server import entry, running_redis, writing, written

ADA = "sip:ada@example.org"
NOW = datetime.now(UTC)  # one for all: two may be on either side of a second
SAID = Conversation(
    [
        Exchange(0, None, "Hello there.", 3, spoken=False),
        Exchange(1, "When are you open?", "From Monday", 2, interrupted=True),
        Exchange(2, None, "Yes.", sources=["hours.md, line 4"]),
        Exchange(3, "\x1b[2Jclear [bold]", "", interrupted=True),
    ]
)


async def calls(tmp_path: Path, *arguments: str, **settings: str) -> CompletedProcess[str]:
    return await asyncio.to_thread(run, tmp_path, "calls", *arguments, **settings)


def ago(**age: float) -> str:
    return (NOW - timedelta(**age)).isoformat(timespec="seconds")


async def keep(url: str) -> None:
    """Three calls that are over: one of today, one of last month, one of an earlier Parley."""
    async with writing(Memory(url)) as memory:
        today = memory.call("today")
        today.note(agent="Bluebird", checkpoint="nano", ingress="sip", caller=ADA, began=ago(minutes=2))
        today.converse(SAID)
        today.entry(entry(0))
        today.close(ended=ago(minutes=1), end="hung-up")
        last = memory.call("last-month")
        last.note(agent="Bluebird", caller="browser", began=ago(days=31))
        last.close()
        memory.call("undated").close(agent="Bluebird")
        await memory.callers.keep_voice(ADA, "Bluebird", "slt")


async def test_calls_are_listed_shown_and_forgotten_without_a_parley_that_runs(tmp_path: Path) -> None:
    own = OwnRedis(tmp_path / "redis")
    await keep(await own.start())
    await own.stop()
    listed = (await calls(tmp_path, "list")).stdout
    rows = {line.split()[-1]: line for line in listed.splitlines()[1:]}
    assert list(rows) == ["today", "last-month", "undated"]
    for words in (ADA, "Bluebird", "0:01:00", " 4 ", "hung-up"):
        assert words in rows["today"]
    assert "broke off" in rows["last-month"]
    shown = (await calls(tmp_path, "show", "today")).stdout
    for words in (
        f"{ADA} by sip",
        "caller: When are you open?\n   bot: From Monday\n        (interrupted after 0.3 s;",
        "bot: Yes.\n        (from hours.md, line 4)",
        "caller: (speech, not transcribed)\n   bot: Yes.\n",
        "clear [bold]\n        (nothing was heard;",
    ):
        assert words in shown
    assert "\x1b" not in shown
    as_json = json.loads((await calls(tmp_path, "show", "today", "--json")).stdout)
    assert as_json["facts"]["checkpoint"] == "nano"
    assert as_json["conversation"][1]["heard_s"] == 0.32
    assert (as_json["length_s"], as_json["history_entries"], as_json["on_the_line"]) == (60.0, 1, False)
    old = await calls(tmp_path, "forget", "--before", "30d")
    assert old.stdout.startswith("Erased last-month (")
    assert "does not say whose or how old it is: undated" in old.stdout
    ada = json.loads((await calls(tmp_path, "forget", "--caller", "ada", "--json")).stdout)
    assert [call["id"] for call in ada["erased"]] == ["today"]
    assert (ada["callers"], ada["disk_tidied"]) == (1, True)
    assert [call["id"] for call in json.loads((await calls(tmp_path, "list", "--json")).stdout)] == [
        "undated"
    ]
    gone = await calls(tmp_path, "show", "today")
    assert (gone.returncode, gone.stderr.startswith("Nothing is kept of a call 'today'")) == (1, True)
    assert "nothing to erase" in (await calls(tmp_path, "forget", "--caller", ADA)).stdout


async def test_a_call_on_the_line_is_refused_or_waited_for(tmp_path: Path) -> None:
    own = OwnRedis(tmp_path / "redis")
    url = await own.start()
    try:
        await keep(url)
        async with writing(Memory(url)) as memory:
            now = memory.call("now")
            now.note(caller=ADA)
            await written(memory)
            refused = await calls(tmp_path, "forget", "now")
            assert refused.returncode == 1
            assert "On the line now, and so not erased: now. --when-over waits" in refused.stderr
            some = await calls(tmp_path, "forget", "--caller", ADA)
            assert (some.returncode, some.stdout.startswith("Erased today")) == (1, True)
            assert "Erased the voice that they had chosen." in some.stdout
            waiting = asyncio.create_task(calls(tmp_path, "forget", "--caller", ADA, "--when-over"))
            await asyncio.sleep(3)
            assert not waiting.done()
            now.close(end="hung-up")
            assert "Erased now" in (await waiting).stdout
    finally:
        await own.stop()


async def test_a_real_call_says_what_is_asked_of_it_later(tmp_path: Path) -> None:
    write_wav(tmp_path / "question.wav", [voice(1.0)], 48_000)
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
        talk = ("talk", "--wav", "question.wav", "--url", url)
        assert (await asyncio.to_thread(run, tmp_path, *talk)).returncode == 0
        for _ in range(20):  # until the call is over on that side, too
            (call,) = json.loads((await calls(tmp_path, "list", "--json")).stdout)
            if call["end"]:
                break
        assert (call["caller"], call["ingress"], call["end"]) == ("browser", "webrtc", "hung-up")
        assert call["agent"] == "Bluebird Outdoor"
        assert call["turns"] >= 2  # the greeting; a busy machine may take the question for two
        assert 1 < call["length_s"] < 60
        assert "Erased" in (await calls(tmp_path, "forget", call["id"])).stdout
        assert (await calls(tmp_path, "list")).stdout == "Nothing is kept of any call.\n"
        server.send_signal(signal.SIGTERM)
        assert await server.wait() == 0


async def test_an_operators_own_redis_is_asked_and_its_refusals_are_said(tmp_path: Path) -> None:
    async with running_redis() as server:
        await keep(server.url)
        listed = await calls(tmp_path, "list", "--limit", "1", PARLEY_REDIS__URL=server.url)
        assert "2 earlier ones are not shown" in listed.stdout
        other = await calls(tmp_path, "list", PARLEY_REDIS__URL=server.url, PARLEY_REDIS__TENANT="another")
        assert other.stdout == "Nothing is kept of any call.\n"
        erased = await calls(tmp_path, "forget", "today", PARLEY_REDIS__URL=server.url)
        assert "your Redis or its backups" in erased.stdout
        await server.do("CONFIG", "SET", "requirepass", "secret")
        refused = await calls(tmp_path, "list", PARLEY_REDIS__URL=server.url)
        assert refused.stderr == "Redis refuses the user or the password, or wants one.\n"
        assert refused.returncode == 1
    assert not (tmp_path / "redis").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("forget",), "Say what to forget"),
        (("forget", "a", "--before", "1d"), "one of them only"),
        (("forget", "--before", "soon"), "'soon' is no age"),
        (("forget", "--caller", "Browser"), "that would be everybody"),
        (("forget", "a"), "Nothing is kept of a call 'a'"),
        (("show", "a"), "Nothing is kept of a call 'a'"),
    ],
)
async def test_what_cannot_be_done_is_said_in_a_sentence(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = await calls(tmp_path, *arguments)
    assert (done.returncode, said in done.stderr) == (1, True), done.stderr
    assert not (tmp_path / "redis").exists()
