"""Changing the voice in a call by describing another one."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path

import pytest

from bot.agents import Agent
from bot.settings import Settings
from bot.tools.voices import voices_for
from bot.voices import finder as finder_module
from bot.voices.finder import VoiceFinder, is_relative, voice_finder
from bot.voices.library import LibraryError
from model_runtime.library.entry import Entry
from tests.bot.tools.kit import toolbox, use
from tests.bot.tools.test_shipped import Caller


def voice(name: str, pitch_hz: float, description: str = "", fault: str = "") -> Entry:
    turn = pitch_hz / 1000  # the nearer two are in pitch, the more alike they are
    return Entry(
        name=name,
        origin="library",
        description=description,
        pitch_hz=pitch_hz,
        speaker=[math.cos(turn), math.sin(turn)],
        fault=fault,
    )


VOICES = [
    voice("slt", 200, "a clear young woman"),
    voice("rms", 110, "a calm man"),
    voice("bear", 80, "a gruff old man"),
    voice("broken", 60, "a very deep old man", fault="its file is cut short"),
]


@pytest.fixture
def found() -> VoiceFinder:
    finder = VoiceFinder()
    finder.know(VOICES)
    return finder


async def test_the_call_goes_on_in_the_voice_that_was_described(found: VoiceFinder) -> None:
    line = Caller()
    async with toolbox(voices=found, tools=["search_voice"]) as box:
        outcome = await use(box.tools(), "search_voice", line, description="a gruff old man")
    assert outcome.ok
    assert line.voice == "bear"
    assert outcome.content == "You speak in the voice bear now: a gruff old man."


@pytest.mark.parametrize(
    ("present", "wish", "expected"),
    [
        ("slt", "deeper please", "bear"),
        ("rms", "something deeper", "bear"),
        ("rms", "like this, but higher", "slt"),
        ("slt", "a woman", None),  # she speaks already, and nobody else is one
        ("rms", "a man", "bear"),
        ("rms", "zzz qqq", None),
        ("bear", "another voice", "slt"),  # the one least like it
        ("slt", "a different voice than this", "bear"),
        ("nobody", "change your voice", "bear"),
        ("bear", "another man", "rms"),
    ],
)
async def test_what_is_found(found: VoiceFinder, present: str, wish: str, expected: str | None) -> None:
    hit = await found.find(wish, present)
    assert (hit.name if hit else None) == expected


async def test_nothing_that_fits_is_said_and_changes_nothing(found: VoiceFinder) -> None:
    line = Caller()
    async with toolbox(voices=found, tools=["search_voice"]) as box:
        outcome = await use(box.tools(), "search_voice", line, description="zzz")
    assert outcome.content == "Error: no other voice fits that description."
    assert line.voice == "slt"


def test_comparisons_are_with_the_voice_that_is_heard() -> None:
    assert is_relative("deeper")
    assert is_relative("like this but slow")
    assert not is_relative("a deep, slow man")
    assert not is_relative("an older speaker")


async def test_voices_that_come_and_go_are_noticed_and_a_fault_is_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finder_module, "LOOK_EVERY_S", 0.01)
    listed: list[LibraryError | list[Entry]] = [LibraryError("busy"), VOICES[:1], VOICES]

    def read() -> list[Entry]:
        now = listed.pop(0)
        if isinstance(now, LibraryError):
            raise now
        return now

    async with asyncio.timeout(20), voice_finder(read, tmp_path) as finder:
        assert await finder.find("a gruff old man") is None
        (tmp_path / "bear.safetensors").touch()
        for _ in range(1000):
            if await finder.find("a gruff old man"):
                return
            await asyncio.sleep(0.01)
    pytest.fail("the new voice was never found")


async def test_no_library_is_read_for_agents_that_cannot_search_it(tmp_path: Path) -> None:
    async with voices_for(Settings(checkpoint=str(tmp_path)), Agent(name="A")) as voices:
        assert voices is None
