"""What the engine's bench makes, reads and says: random checkpoints, figures, goals."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from model_runtime.engine.figures import Figures, MemoryUse, Work
from model_runtime.engine.kit import Kit
from model_runtime.engine.ops import Op, Vocode
from model_runtime.engine.settings import Settings
from model_runtime.model import SpeechModel
from model_runtime.protocol import GROUP_SAMPLES, Done, EngineMessage, Open, Respond, Speech
from model_runtime.speaking.flow import Flow
from model_runtime.speaking.vocoder import HiFT
from tests.bench import device, energy, published
from tests.bench.engine import parse, plan
from tests.bench.engine_alone import Alone
from tests.bench.engine_report import goals, plot, table
from tests.bench.level import Level, figures, load
from tests.bench.report import ROOT
from tests.model_runtime import tiny
from tests.model_runtime.engine.live import running


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    """Networks so small gain nothing from a second thread, which spins while the first waits for a core."""
    torch.set_num_threads(1)


# --- a checkpoint of random weights ---


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published layout and vocabulary with tiny dimensions."""
    return published.write(tmp_path_factory.mktemp("random") / "small", published.SMALL)


def numbers(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_dimensions_are_the_published_ones() -> None:
    with torch.device("meta"):
        thinking = tiny.modules(published.MINI)
        assert sum(map(numbers, thinking.values())) == 8_315_179_264
        assert sum(len(list(module.parameters())) for module in thinking.values()) == 832
        assert numbers(Flow(published.MINI.flow)) == 155_802_352
        vocoder = HiFT(published.MINI.hift)
    # As published each convolution of the vocoder has a number beside its direction, one an output channel.
    beside = sum(
        part.weight.shape[0]
        for part in vocoder.modules()
        if isinstance(part, nn.Conv1d | nn.ConvTranspose1d)
        and not any(part is plain for plain in vocoder.source_downs)
    )
    assert numbers(vocoder) + beside == 20_821_295


def test_the_vocabulary_is_the_published_one(small: Path) -> None:
    model = SpeechModel.load(small)
    tokens = model.tokens
    assert (tokens.eot, tokens.bot, tokens.tool_call, tokens.end_of_text) == (151665, 151666, 151657, 151643)
    assert (tokens.audio_start, tokens.audio_patch, tokens.tts_start) == (151688, 151690, 151693)
    assert (tokens.tts_end, tokens.tts_pad, tokens.audio0) == (151694, 151695, 151696)
    assert tokens.audio_tokens == 6656
    assert model.vocabulary == 158_720
    assert model.tokenizer.decode(model.tokenizer.encode("Grüß Gott, <|EOT|>")) == "Grüß Gott, <|EOT|>"
    assert len({info.file for info in model.checkpoint.tensors.values()}) > 1  # read from shards


class Heard:
    """A client that keeps what it is sent."""

    stalled = False

    def __init__(self) -> None:
        self.said: list[EngineMessage] = []

    def deliver(self, message: EngineMessage) -> None:
        self.said.append(message)

    def finish(self) -> None:
        pass


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_random_weights_speak_a_reply_of_the_longest_length_in_finite_sound(small: Path, dtype: str) -> None:
    kit = Kit(SpeechModel.load(small, dtype=dtype), Settings(str(small), max_reply_s=3.2))
    made: list[np.ndarray] = []
    execute = kit.execute

    def heard(op: Op) -> Any:
        result = execute(op)
        if isinstance(op, Vocode):
            made.append(result)
        return result

    kit.execute = heard  # type: ignore[method-assign]  # PCM would hide what is no number
    caller = Heard()
    with torch.inference_mode():
        alone = Alone(kit)
        alone.worker.open(caller, Open("call"))
        alone.worker.message(caller, Respond(0, text="Say something."))
        alone.run(math.inf)
        alone.worker._beside.stop()
    (done,) = (message for message in caller.said if isinstance(message, Done))
    assert (done.reason, done.groups) == ("length", 20)
    sound = np.concatenate(made)
    assert len(sound) == 20 * GROUP_SAMPLES
    assert np.isfinite(sound).all()
    assert 0.01 < np.std(sound) < 0.5  # neither silence nor all of it clipped
    assert sum(len(one.pcm) for one in caller.said if isinstance(one, Speech)) == 2 * len(sound)
    logits = kit.model.prefill(kit.model.new_cache(64), [1, 2, 3])
    assert logits.isfinite().all()
    assert logits.std() > 0.1  # and it is no foregone conclusion what comes next


def test_a_seed_makes_the_same_weights_again_and_another_makes_others() -> None:
    def drawn(seed: int) -> torch.Tensor:
        random = published.Random(torch.device("cpu"), seed)
        return torch.cat([value.flatten() for _, value in random.weights(nn.Linear(8, 8))])

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))


# --- what is asked and what is measured ---


def test_levels_may_have_seconds_of_their_own() -> None:
    assert plan("1,4:60,16", 30.0) == [(1, 30.0), (4, 60.0), (16, 30.0)]
    chosen = parse(["--checkpoint", "published", "--decode-batch", "64"])
    assert [sessions for sessions, _ in chosen.levels] == [1, 4, 16, 64, 128]
    assert chosen.engine[-2:] == ["--decode-batch", "64"]  # the last word is the caller's
    assert sum(seconds for _, seconds in [*chosen.levels, *chosen.baseline]) < 360  # of ten minutes
    assert [sessions for sessions, _ in parse([]).levels] == [1, 4, 8, 16]


@pytest.mark.parametrize("wrong", [["--levels", "many"], ["--modes", "parley,warp"]])
def test_nonsense_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(wrong)
    assert "error" in capsys.readouterr().err


def worked(*steps: tuple[float, int, int]) -> Work:
    work = Work()
    for seconds, items, read in steps:
        work.add(seconds, items, read)
    return work


def level(sessions: int = 1, mode: str = "parley", **changes: Any) -> Level:
    """Two replies of 2 s, made in 1 s, at 100 steps of 5 ms that read 12 GB."""
    kinds = {"hear": Work(), "prefill": worked((0.1, 1, 0)), "other": Work()}
    kinds |= {"decode": worked(*[(0.005, 2, 12 * 10**9)] * 100), "vocode": worked((0.04, 2, 0), (0.06, 3, 0))}
    memory = MemoryUse(16 * 10**9, 10**9, 2 * 10**9, 5 * 10**8)
    engine = Figures("cuda:0", "bfloat16", 1.0, kinds, memory)  # type: ignore[arg-type]  # kinds of work
    values = {"first_audio_ms": [80.0, 90.0], "real_time_factor": [0.5, 0.5], "spoken_s": 4.0, "replies": 2}
    return Level(mode, sessions, **{**values, "seconds": 5.0, "engine": engine, "joules": 2000.0, **changes})


def test_a_decode_step_is_held_against_the_time_that_its_bytes_take() -> None:
    told = figures(level(), bandwidth=4e12)
    assert told["decode"]["floor_ms"] == 3.0
    assert told["decode"]["ms"]["p50"] == pytest.approx(5.0, rel=0.02)
    assert told["decode"]["percent_of_floor"] == pytest.approx(167, abs=4)
    assert told["decode"]["calls_a_step"] == 2
    assert told["token2wav"] == {
        "chunks": 5,
        "ms_a_chunk": 20.0,
        "chunks_a_pass": 2.5,
        "pass_ms": {"p50": pytest.approx(40, rel=0.02), "p95": pytest.approx(60, rel=0.02), "mean": 50.0},
    }
    assert told["seconds_for_1_s"]["decode"] == 0.125
    assert told["real_time_factor"]["p50"] == 0.5
    assert told["joules_for_1_s"] == 500
    assert told["waited"] == 0.2
    assert told["memory_mb"] == {"weights": 16000, "kv_cache": 1000, "flow": 2000, "rest": 500}


def test_what_was_not_measured_is_null_in_json_and_na_in_the_table() -> None:
    nothing = {kind: Work() for kind in ("hear", "prefill", "decode", "vocode", "other")}
    idle = level(
        spoken_s=0.0,
        real_time_factor=[],
        joules=None,
        engine=Figures("cpu", "float32", 0.0, nothing),  # type: ignore[arg-type]  # kinds of work
    )
    told = figures(idle, bandwidth=4e12)
    json.dumps(told, allow_nan=False)
    cells = [list(column.cells) for column in table([told, figures(level(), 4e12)]).columns]
    row = cells[0].index("decode step p50, ms")
    assert cells[1][row] == "n/a"
    assert str(cells[2][row]).startswith(("4.9", "5.0"))
    assert cells[1][cells[0].index("energy, J for 1 s of speech")] == "n/a"


def met(levels: list[Level], checkpoint: str, kind: str) -> dict[str, bool]:
    return {goal.name: goal.met for goal in goals([figures(one, 4e12) for one in levels], checkpoint, kind)}


def test_the_published_dimensions_have_goals_on_a_gpu_alone() -> None:
    levels = [level(1), level(64, first_audio_ms=[10.0] * 9 + [900.0]), level(128, late_ms=[3.0])]
    assert met(levels, "published", "cuda") == {
        "first audio, alone, p50": True,
        "first audio, 64 speaking, p95": False,
        "first audio, 128 speaking, p95": True,
        "under-runs, 128 speaking for 5 s": False,
        "decode step alone": False,  # 167 % of its floor
        "failures": True,
    }
    assert met(levels, "small", "cpu") == {"failures": True}


def test_nano_has_its_own_on_a_cpu_and_the_baseline_has_none() -> None:
    levels = [level(1), level(8, failed=["lost"]), level(1, "reference", first_audio_ms=[999.0])]
    assert met(levels, "nano", "cpu") == {
        "first audio, alone, p95": True,
        "under-runs, 8 speaking for 5 s": True,
        "failures": False,
    }


def test_a_goal_of_which_nothing_is_known_is_not_met() -> None:
    silent = level(1, first_audio_ms=[], engine=None)
    assert met([silent], "published", "cuda") == {
        "first audio, alone, p50": False,
        "decode step alone": False,
        "failures": True,
    }


def test_the_plot_takes_levels_of_which_little_is_known(tmp_path: Path) -> None:
    levels = [level(1), level(4), level(0, "reference", engine=None, first_audio_ms=[])]
    plot([figures(one, 4e12) for one in levels], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


# --- sessions ---


async def test_the_baseline_makes_one_reply_after_another(tmp_path: Path) -> None:
    options: dict[str, Any] = {"slot_masking": True, "max_reply_s": 0.8, "decode_batch": 1, "speech_batch": 1}
    async with running(socket=tmp_path / "s", **options) as engine:
        level = Level("reference", 4, heard_s=0.5)
        execute, pace = engine.kit.execute, engine.kit.pace
        made: list[int] = []

        def counted(op: Op) -> Any:
            made.append(len(pace._replies))
            return execute(op)

        engine.kit.execute = counted  # type: ignore[method-assign]  # to see how many replies are being made
        await load(tmp_path / "s", level, 3.0, one_by_one=True)
    assert max(made) == 1
    assert not level.failed
    assert level.replies == len(level.first_audio_ms) > 0
    assert level.spoken_s == pytest.approx(0.8 * level.replies)
    assert level.engine is not None
    assert level.engine.work["hear"].items == level.replies  # what was said before each
    assert level.engine.work["decode"].items > 0
    assert level.engine.memory.kv_cache > 0


async def test_an_engine_that_dies_is_told_and_ends_nothing_else(tmp_path: Path) -> None:
    level = Level("parley", 2)
    await asyncio.wait_for(load(tmp_path / "nobody", level, 0.0, one_by_one=False), 30)
    assert len(level.failed) == 3  # two sessions, and the figures
    assert figures(level)["failures"] == 3


# --- the machine ---


def test_a_copy_counts_what_is_read_and_what_is_written() -> None:
    seconds = iter([9.0, 9.0, 9.0, *[0.5] * 6, *[0.7] * 4])  # the first ones warm up
    assert device.bandwidth(lambda: next(seconds), "cpu") == 2 * device.SIZES["cpu"] / 0.5


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_power_over_time_is_energy() -> None:
    clock = Clock()
    power = energy.Power(clock)

    def lines() -> Any:
        for watts, seconds in (("700.5", 2.0), ("[N/A]", 1.0), ("100", 0.5)):
            yield watts
            clock.now += seconds

    power.read(lines())
    assert power.any
    assert power.joules() == pytest.approx(700.5 * 3 + 100 * 0.5)


def test_energy_is_read_where_somebody_counts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=lambda gpu: 1234,
    )
    monkeypatch.setitem(sys.modules, "pynvml", counted)
    with energy.meter() as (by, joules):
        assert joules is not None
        assert (by, joules()) == ("NVML's counter", 1.234)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with energy.meter() as (by, joules):
        assert (by, joules) == ("n/a", None)


@pytest.mark.slow
def test_the_whole_bench_from_random_weights_to_a_table(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bench.engine", "--checkpoint", "small", "--out", str(tmp_path)]
    command += ["--levels", "1:2,2:2", "--baseline", "1:2", "--max-reply", "1"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    told = json.loads((tmp_path / "engine.json").read_text())
    found = [(one["mode"], one["sessions"], one["failures"]) for one in told["metrics"]["levels"]]
    assert found == [("parley", 1, 0), ("parley", 2, 0), ("reference", 1, 0)]
    assert all(one["decode"]["steps"] > 0 for one in told["metrics"]["levels"])
    assert (tmp_path / "engine.png").is_file()
    assert "decode step floor, ms" in run.stdout
