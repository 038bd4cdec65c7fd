"""The headless caller on real WebRTC: a whole Parley in this process; its engine answers in a tone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection

from bot.agent_folder import AgentFolder
from bot.agents import Agent
from bot.answering import Answering
from bot.app import create_app
from bot.engine_process import Engine
from bot.headset import RATE, Microphone
from bot.settings import Settings
from bot.talk import CallFailed, Message, place_call, read_wav, words_of
from bot.tools.toolbox import Toolbox
from bot.voices.shared import SharedVoices
from bot.waveform import Pcm, dropouts, first_loud, underruns, write_wav
from pipeline.call import Call, Fader, transport_params
from pipeline.memory import Memory
from pipeline.record import CallRecord
from pipeline.webrtc import webrtc_transport
from tests.bot.served_app import GivenReception, nothing_known
from tests.bot.speaking_engine import SpeakingEngine
from tests.bot.undisturbed import undisturbed
from tests.pipeline.scripted_engine import ScriptedEngine

AGENT = Agent(name="Bluebird", greeting="Hello, this is Bluebird.")


def voice(seconds: float) -> Pcm:
    """A buzz with formants, which webrtcvad takes for a voice."""
    at = np.arange(round(seconds * RATE)) / RATE
    pulses = sum(np.sin(2 * np.pi * 120 * k * at) / (1 + abs(k - 5)) for k in range(1, 30))
    beat = 0.6 + 0.4 * np.sin(2 * np.pi * 4 * at)
    buzz: Pcm = (0.5 * beat * pulses / np.abs(pulses).max()).astype(np.float32)
    return buzz


@asynccontextmanager
async def parley(
    engine: SpeakingEngine | ScriptedEngine,
    agent: Agent = AGENT,
    max_calls: int = 4,
    toolbox: Toolbox | None = None,
) -> AsyncIterator[str]:
    settings = Settings.model_construct(max_calls=max_calls, drain_s=1.0)
    watched = Engine(engine.url)
    memory = Memory("unix:///nowhere")
    voices = SharedVoices(memory.voices, Path("/nowhere"))
    here = Answering(settings, agent, watched, memory, voices, toolbox or Toolbox({}))

    def call(_: str, connection: SmallWebRTCConnection, call_id: str, *__: object) -> Call:
        fader = Fader()
        transport = webrtc_transport(connection, transport_params(fader))
        return here.call(transport, fader, call_id, CallRecord(), page=True)

    reception = GivenReception(settings, watched, call, nothing_known, AgentFolder({"bluebird": agent}))
    async with reception:
        app = create_app(settings, reception, watched)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            server = uvicorn.Server(uvicorn.Config(app, log_config=None))
            serving = asyncio.create_task(server.serve(sockets=[listening]))
            for _ in range(500):
                if watched.status.ready:
                    break
                await asyncio.sleep(0.01)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
            server.should_exit = True
            await serving


async def test_a_call_hears_the_greeting_asks_and_measures_each_answer() -> None:
    async with SpeakingEngine() as engine, parley(engine) as url:
        question = np.concatenate([voice(1.0), np.zeros(RATE // 2, np.float32)])
        record = await undisturbed(lambda: place_call(url, [question, question], quiet_s=0.6))
        assert record.greeting == "Hello, this is Bluebird Outdoor."
        assert record.info["checkpoint"] == "tone"
        assert len(record.caller) == len(record.bot)
        for turn in record.turns:
            assert turn.answer == "Delivery takes two to three days."
            assert turn.question == "how long does delivery take"
            assert turn.voice_to_voice_ms is not None
            assert turn.voice_to_voice_ms > 0
            assert turn.asked_to_s - turn.asked_from_s == pytest.approx(1.0, abs=0.05)
            assert turn.answered_from_s is not None
            assert turn.answered_to_s is not None
            # Six groups of 160 ms came as one piece; a busy machine may have stuttered within.
            start, end = (round(at * RATE) for at in (turn.answered_from_s, turn.answered_to_s))
            stutter_s = sum(hole.ms(RATE) for hole in dropouts(record.bot, RATE, start, end)) / 1000
            assert (end - start) / RATE - stutter_s == pytest.approx(0.96, abs=0.1)
        first = first_loud(record.bot)
        assert first is not None
        assert first / RATE < record.turns[0].asked_from_s
        assert len(underruns(record.packet_s, record.packet_media_s, 1000)) == 0
        for _ in range(500):
            if engine.sessions == 0:
                break
            await asyncio.sleep(0.01)
        assert engine.sessions == 0  # hanging up freed the session


def test_an_answer_and_what_is_said_of_its_tools_result_are_two_sentences() -> None:
    """As the page shows them: they are turns of their own."""
    texts = [
        (1.0, 0, "Hello."),
        (2.0, 1, "Sure"),
        (2.2, 1, "."),
        (3.0, 2, "How do I"),
        (3.2, 2, " sound now?"),
    ]
    messages = [Message(at, {"type": "bot-text", "turn": turn, "text": text}) for at, turn, text in texts]
    assert words_of(messages, "bot-text", 1.5, 9.0) == "Sure. How do I sound now?"


async def test_an_answer_held_back_is_measured_as_that_much_later() -> None:
    async with (
        SpeakingEngine(hold_s=1.0) as slow,
        parley(slow, AGENT.model_copy(update={"greeting": ""})) as url,
    ):
        late = await undisturbed(lambda: place_call(url, [voice(0.8)], greeting=False, quiet_s=0.4))
    (turn,) = late.turns
    assert turn.voice_to_voice_ms is not None
    assert turn.voice_to_voice_ms > 1000


async def test_an_engine_that_stumbles_leaves_a_hole_that_is_found() -> None:
    async with (
        SpeakingEngine(stumble_s=0.8) as engine,
        parley(engine, AGENT.model_copy(update={"greeting": ""})) as url,
    ):
        record = await undisturbed(lambda: place_call(url, [voice(0.8)], greeting=False))
    (turn,) = record.turns
    assert turn.answered_from_s is not None
    assert turn.answered_to_s is not None
    start, end = (round(at * RATE) for at in (turn.answered_from_s, turn.answered_to_s))
    (hole,) = dropouts(record.bot, RATE, start, end)
    assert hole.ms(RATE) > 100  # 320 ms of sound were there when 800 ms of waiting began, 200 ms ahead


async def test_a_full_parley_refuses_in_words() -> None:
    async with SpeakingEngine() as engine, parley(engine, max_calls=1) as url:
        placed = asyncio.Event()
        first = asyncio.create_task(
            place_call(url, [voice(1.0)], quiet_s=0.5, on_turn=lambda what: _went(placed, what))
        )
        await placed.wait()
        with pytest.raises(CallFailed, match="busy"):
            await place_call(url, [voice(0.5)])
        assert (await first).turns[0].answer


def _went(placed: asyncio.Event, what: str) -> None:
    if what.startswith("hearing"):
        placed.set()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "127.0.0.1:9"])
async def test_where_nobody_answers_that_is_said(url: str) -> None:
    with pytest.raises(CallFailed, match="Is Parley running"):
        await place_call(url, [voice(0.1)])


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 48_000])
def test_any_wav_is_read_at_48_khz(tmp_path: Path, rate: int) -> None:
    at = np.arange(rate) / rate
    tone = (0.5 * np.sin(2 * np.pi * 440 * at)).astype(np.float32)
    write_wav(tmp_path / "a.wav", [tone], rate)
    pcm = read_wav(tmp_path / "a.wav")
    assert pcm.dtype == np.float32
    assert len(pcm) == pytest.approx(RATE, abs=100)
    assert np.abs(pcm[RATE // 4 : RATE // 2]).max() == pytest.approx(0.5, abs=0.02)
    assert np.argmax(np.abs(np.fft.rfft(pcm[:RATE]))) == pytest.approx(440, abs=1)


def test_what_is_no_audio_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("not audio")
    for name in ("text.wav", "missing.wav"):
        with pytest.raises(CallFailed, match=name):
            read_wav(tmp_path / name)


async def test_the_microphone_keeps_what_it_sent_where_it_said_it_would_lie() -> None:
    microphone = Microphone()
    await microphone.recv()
    span = microphone.say(np.full(1000, 0.5, np.float32))
    for _ in range(3):
        await microphone.recv()
    sent = np.concatenate(microphone.sent)
    assert span == (960, 1960)
    assert np.flatnonzero(sent)[[0, -1]].tolist() == [960, 1959]
