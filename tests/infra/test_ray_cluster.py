"""The engine on a real Ray cluster of two nodes: real engines with nano, and the clients that calls have."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from model_runtime.protocol import Commit, Done, HistoryEntry, Open, Respond, Speech
from pipeline import page_messages as page
from pipeline.agent import CallSettings
from pipeline.call import Call, CallAgent
from pipeline.engine_client import EngineClient, EngineRefused
from tests.infra.ray_cluster import PATIENCE_S, Cluster, cluster
from tests.pipeline.virtual_transport import VirtualTransport

pytest.importorskip("ray.serve", reason="Ray is not installed: pip install -e '.[ray]'")
pytestmark = [pytest.mark.e2e, pytest.mark.slow]

PLACES = 3
OPTIONS = f"--max-sessions {PLACES}"
OPEN_S = 60.0  # to open a session on a busy machine; "at once" is seen by what else goes on meanwhile


@pytest.fixture(scope="module")
def ray() -> Iterator[Cluster]:
    with cluster() as running:
        running.deploy(OPTIONS, min_replicas=2, max_replicas=2)
        running.until_running(2)
        yield running


class Talk:
    """A call's session with an engine, and what the engine says."""

    def __init__(self, client: EngineClient, call_id: str) -> None:
        self.call_id = call_id
        self._client = client
        self._said = client.events()
        self._turn = -1

    async def ask(self) -> str:
        """Have the model greet. Returns what it said, once all of it was made. Raises ``EngineGone``."""
        self._turn += 1
        self._client.send(Respond(self._turn, text="what is your address"))
        sound = 0
        async with asyncio.timeout(PATIENCE_S):
            async for message in self._said:
                if isinstance(message, Speech):
                    sound += len(message.pcm)
                if isinstance(message, Done):
                    assert sound > 0
                    self._client.send(Commit(self._turn))
                    return message.text
        raise AssertionError("the engine fell silent")


@asynccontextmanager
async def talking(ray: Cluster, call_id: str) -> AsyncIterator[Talk]:
    async with await EngineClient.open(ray.url, Open(call_id), OPEN_S) as client:
        yield Talk(client, call_id)


async def eventually(fact: Callable[[], bool], what: str) -> None:
    """Wait for something there is no event for."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not fact():  # noqa: ASYNC110  it is about what a whole call has come to
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{what} never happened") from None


async def test_calls_that_come_at_once_fill_every_engine_and_one_more_is_refused(ray: Cluster) -> None:
    async with AsyncExitStack() as calls:
        names = [f"many-{number}" for number in range(2 * PLACES)]
        every = await asyncio.gather(*(calls.enter_async_context(talking(ray, name)) for name in names))
        assert all(await asyncio.gather(*(talk.ask() for talk in every)))
        engines = [ray.engine_of(name) for name in names]
        assert sorted(engines.count(replica.pid) for replica in ray.running()) == [PLACES, PLACES]
        assert len({replica.node for replica in ray.running()}) == 2
        told = (await asyncio.to_thread(ray.run, "python", "-m", "infra.ray.status")).splitlines()
        assert [line.partition(": ")[2] for line in told] == [f"{PLACES}/{PLACES} sessions, nano"] * 2
        for _ in range(3):
            with pytest.raises(EngineRefused) as refused:  # and not put into a queue: no place becomes free
                await EngineClient.open(ray.url, Open("late"), OPEN_S)
            assert refused.value.code == "capacity"
        assert all(await asyncio.gather(*(talk.ask() for talk in every)))
    async with talking(ray, "later") as talk:
        assert await talk.ask()


async def test_an_engine_that_goes_takes_no_calls_and_finishes_those_it_has(ray: Cluster) -> None:
    ray.until_running(2)
    async with AsyncExitStack() as calls:
        names = [f"stays-{number}" for number in range(PLACES + 1)]  # so that each engine has one
        talks = [await calls.enter_async_context(talking(ray, name)) for name in names]
        assert {ray.engine_of(name) for name in names} == {one.pid for one in ray.running()}
        await asyncio.to_thread(ray.deploy, OPTIONS, min_replicas=1, max_replicas=1)
        await asyncio.to_thread(
            ray.until, lambda: any(one.state == "STOPPING" for one in ray.replicas()), "an engine that goes"
        )
        (going,) = [one.pid for one in ray.replicas() if one.state == "STOPPING"]
        async with talking(ray, "new"):
            assert ray.engine_of("new") != going
            assert all([await talk.ask() for talk in talks])  # neither was disturbed
            assert going in {one.pid for one in ray.replicas()}
    await asyncio.to_thread(ray.until_running, 1)
    assert going not in {one.pid for one in ray.replicas()}


async def test_a_second_engine_comes_with_calls(ray: Cluster) -> None:
    await asyncio.to_thread(ray.deploy, OPTIONS, min_replicas=1, max_replicas=1)
    await asyncio.to_thread(ray.until_running, 1)
    much = {"max_replicas": 2, "target_ongoing_requests": 1, "upscale_delay_s": 0}
    await asyncio.to_thread(ray.deploy, OPTIONS, min_replicas=1, **much)
    async with talking(ray, "first") as first, talking(ray, "second") as second:
        assert ray.engine_of("first") == ray.engine_of("second")
        await asyncio.to_thread(ray.until, lambda: len(ray.running()) == 2, "a second engine")
        async with talking(ray, "third") as third:
            assert ray.engine_of("third") != ray.engine_of("first")
            assert all([await talk.ask() for talk in (first, second, third)])


async def test_a_call_whose_engine_is_killed_in_mid_reply_goes_on_with_the_other(
    ray: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(ray.deploy, OPTIONS, min_replicas=2, max_replicas=2)
    await asyncio.to_thread(ray.until_running, 2)
    sessions: list[Sequence[HistoryEntry]] = []
    open_session = EngineClient.open

    async def noted(
        url: str, message: Open, within: float, history: Sequence[HistoryEntry] = ()
    ) -> EngineClient:
        sessions.append(list(history))
        return await open_session(url, message, within, history)

    monkeypatch.setattr(EngineClient, "open", noted)
    shown: list[Any] = []

    line = VirtualTransport()

    def seen(kind: type[Any]) -> list[Any]:
        return [each for each in shown if isinstance(each, kind)]

    async def ask() -> None:
        await line.voice(700)
        await line.silence(600)

    settings = CallSettings(open_timeout_s=OPEN_S, reconnect_s=PATIENCE_S)
    agent = CallAgent("Shop", instructions="Be kind.")
    call = Call(line, line.fader, ray.url, agent, settings, on_event=shown.append, call_id="broken")
    running = asyncio.create_task(call.run())
    try:
        await eventually(lambda: bool(seen(page.CallInfo)), "the session")
        await line.silence(300)
        await ask()
        line.let_play(20_000)
        await eventually(lambda: len(seen(page.BotDone)) == 1, "the first answer")
        line.allowance = asyncio.Semaphore(0)
        await ask()
        played = line.played_ms
        line.let_play(480)
        await eventually(lambda: line.played_ms >= played + 480, "the second answer's first words")
        (first,) = ray.engines_of("broken")
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: len(seen(page.CallInfo)) == 2, "another session")
        assert len(ray.engines_of("broken")) == 2
        assert [len(history) for history in sessions] == [0, 3]  # instructions, question, answer
        said = [text.turn for text in seen(page.BotText)]
        line.let_play(20_000)
        await line.silence(1000)  # what was heard in part is not said again by itself
        assert [text.turn for text in seen(page.BotText)] == said
        await ask()
        await eventually(lambda: len(seen(page.BotDone)) == 2, "the third answer")
        assert [text.turn for text in seen(page.BotText)][: len(said)] == said
        assert min(text.turn for text in seen(page.BotText)[len(said) :]) > max(said)
        await asyncio.to_thread(
            ray.until, lambda: first not in ray.pids() and len(ray.running()) == 2, "a new engine"
        )
    finally:
        await call.end("test-over")
        await running


async def test_a_checkpoint_that_is_not_there_is_named_and_leaves_an_engine(ray: Cluster) -> None:
    await asyncio.to_thread(ray.deploy, OPTIONS, min_replicas=2, max_replicas=2)
    await asyncio.to_thread(ray.until_running, 2)
    bad = f"{OPTIONS} --checkpoint /nowhere"
    await asyncio.to_thread(ray.deploy, bad, min_replicas=2, max_replicas=2)
    await asyncio.to_thread(ray.until, lambda: "/nowhere: does not exist" in ray.told(), "a word of it")
    async with talking(ray, "meanwhile") as talk:
        assert await talk.ask()
