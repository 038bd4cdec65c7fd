"""Questions spoken by synthesisers: ``python -m model_runtime.training.synthesise --out DIR --count 12000``.

Training voices are flite's five and espeak-ng's English ones (a fifth), and with ``--natural`` Kokoro's.
Resampling moves their formants well beyond the natural range while the engines' own pitch and duration
settings put pitch and pace elsewhere, so that a few recorded speakers stand for many. Festival is another
engine and is heard in tests only; mbrola is never used.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
from tqdm import tqdm

from model_runtime.training.kokoro import ACCENTS, Kokoro, phonemes, random_style
from model_runtime.training.kokoro import RATE as KOKORO_RATE
from model_runtime.training.texts import Question, questions

RATE = 16_000  # Hz
BLOCK = 250  # utterances a file: what training starts with while the rest is still being spoken
FLITE = {"rms": 0.2, "slt": 0.22, "awb": 0.18, "kal16": 0.2, "kal": 0.06}
ESPEAK = ("en-us", "en-gb", "en-gb-scotland", "en-029", "en-gb-x-rp", "en-gb-x-gbclan", "en-us-nyc")
VARIANTS = (
    "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5", "klatt", "klatt2",
    "klatt3", "klatt4", "Alex", "Alicia", "Andrea", "Andy", "Annie", "Denis", "Gene", "Jacky", "Lee",
    "Mario", "Michael", "Mike", "adam", "announcer", "antonio", "aunty", "belinda", "benjamin", "boris",
    "caleb", "david", "ed", "edward", "grandma", "grandpa", "iven", "john", "linda", "max", "michel",
    "norbert", "pablo", "paul", "quincy", "rob", "robert", "sandro", "shelby", "steph", "travis",
    "victor", "zac",
)  # fmt: skip
PARALLEL = ("kal16", "awb", "rms", "slt")  # one recording of each speaker: kal is kal16 at half the rate
FESTIVAL = ("ked_diphone", "cmu_us_slt_arctic_hts", "kal_diphone")  # tests only
STRAY_S = 0.06  # a timing must agree with the length of the sound this well to be believed
Pcm = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Voice:
    """Who speaks: ``formant`` and ``pitch`` multiply the engine's own, ``pace`` multiplies the duration."""

    engine: str
    name: str
    formant: float = 1.0
    pitch: float = 1.0
    pace: float = 1.0

    def __str__(self) -> str:
        """For the record: the parts, joined."""
        return f"{self.engine}:{self.name}:{self.formant:.2f}:{self.pitch:.2f}:{self.pace:.2f}"


def training_voice(draw: random.Random) -> Voice:
    """One of the training engines with its formants, pitch and pace moved."""
    warped = draw.random() < 0.7
    formant = draw.uniform(0.84, 1.2) if warped else 1.0
    pitch = draw.uniform(0.7, 1.45) if warped else draw.uniform(0.95, 1.05)
    pace = draw.uniform(0.78, 1.3)
    if draw.random() < 0.2:
        return Voice("espeak-ng", f"{draw.choice(ESPEAK)}+{draw.choice(VARIANTS)}", formant, pitch, pace)
    name = draw.choices(list(FLITE), list(FLITE.values()))[0]
    return Voice("flite", name, formant, pitch, pace)


def parallel_voices(draw: random.Random) -> list[Voice]:
    """All of flite's speakers, to say one text at one pace and each at a pitch of its own.

    Their formants stay theirs: what lies between and beyond them is made later, by `speakers`.
    """
    pace = draw.uniform(0.78, 1.3)
    return [Voice("flite", name, 1.0, draw.uniform(0.75, 1.4), pace) for name in PARALLEL]


def natural_voice(draw: random.Random) -> Voice:
    """Somebody of Kokoro's, by the seed of their style. Most are women: formants and pitch go down, too."""
    return Voice("kokoro", str(draw.getrandbits(32)), draw.uniform(0.76, 1.12), 1.0, draw.uniform(0.75, 1.1))


@lru_cache(maxsize=1)
def kokoro() -> Kokoro:
    """The model, loaded once."""
    return Kokoro()


def cast(kind: str, draw: random.Random) -> list[Voice]:
    """Who speaks one text: one voice, or for ``parallel`` all of flite's."""
    match kind:
        case "train":
            return [training_voice(draw)]
        case "natural":
            return [natural_voice(draw)]
        case "parallel":
            return parallel_voices(draw)
        case _:
            return [Voice("festival", draw.choice(FESTIVAL), 1.0, 1.0, draw.uniform(0.85, 1.2))]


def flite_settings(voice: Voice) -> list[str]:
    """The options that make flite speak so that, resampled by ``formant``, pitch and pace come out right."""
    slow, shift = voice.pace * voice.formant, voice.pitch / voice.formant
    if voice.name in ("kal", "kal16"):  # these diphone voices take a mean in Hz
        tune = f"int_f0_target_mean={105 * shift:.0f}"
    else:
        tune = f"f0_shift={shift:.3f}"
    return ["--setf", f"duration_stretch={slow:.3f}", "--setf", tune]


def phones_of(words: str) -> list[tuple[str, float]]:
    """Flite's phones of the words, by its lexicon alone: the times say nothing (-1)."""
    told = subprocess.run(
        ["flite", "-voice", "kal16", "-ps", "-t", words, "none"], check=True, capture_output=True, text=True
    )
    return [(phone, -1.0) for phone in told.stdout.split()]


def fits(phones: list[tuple[str, float]], seconds: float) -> bool:
    """Whether a timing agrees with the length of the sound: the diphone voices cut the last pause short."""
    return len(phones) > 2 and phones[-2][1] - STRAY_S < seconds < phones[-1][1] + STRAY_S


def as_pcm(wave: npt.NDArray[np.floating[Any]]) -> Pcm:
    """At the level of every utterance."""
    return np.asarray(wave * (0.6 * 32767 / max(float(np.abs(wave).max()), 1e-3)), dtype=np.int16)


def speak(words: str, voice: Voice, scratch: Path) -> tuple[Pcm, list[tuple[str, float]]]:
    """The words in that voice: int16 [n] at 16 kHz, and its phones with when each ends, in seconds.

    An end of -1 is not known: only flite tells. Raises CalledProcessError when the engine fails.
    """
    phones: list[tuple[str, float]] = []
    wav = scratch / "said.wav"
    slow = voice.pace * voice.formant  # resampling by `formant` shortens by as much
    match voice.engine:
        case "flite":
            command = ["flite", "-voice", voice.name, *flite_settings(voice), "-psdur"]
            command += ["-t", words, "-o", str(wav)]
            told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            parts = [item.rpartition(":") for item in told]
            phones = [(phone, round(float(end) / voice.formant, 3)) for phone, _, end in parts]
        case "espeak-ng":
            speed, pitch = (
                round(165 / slow),
                round(np.clip(50 + 60 * (voice.pitch / voice.formant - 1), 5, 99)),
            )
            command = [
                "espeak-ng",
                "-v",
                voice.name,
                "-s",
                str(speed),
                "-p",
                str(pitch),
                "-w",
                str(wav),
                words,
            ]
            subprocess.run(command, check=True, capture_output=True)
        case "festival":
            setting = f"(voice_{voice.name})", f"(Parameter.set 'Duration_Stretch {slow:.2f})"
            command = ["text2wave", "-eval", setting[0], "-eval", setting[1], "-o", str(wav)]
            subprocess.run(command, check=True, capture_output=True, input=words.encode())
        case "kokoro":
            draw = random.Random(voice.name)
            style, accent = random_style(draw), draw.choice(ACCENTS)
            soundfile.write(wav, kokoro().say(phonemes(words, accent), style, 1 / slow), KOKORO_RATE)
        case _:
            raise ValueError(f"no such engine: {voice.engine}")
    wave, rate = soundfile.read(wav, dtype="float32")
    wave = soxr.resample(wave, rate * voice.formant, RATE)
    pcm = as_pcm(wave)
    if not fits(phones, len(pcm) / RATE):
        phones = phones_of(words)
    return pcm, phones


def save(
    path: Path, spoken: list[tuple[Pcm, list[tuple[str, float]]]], said: list[Question], voices: list[str]
) -> None:
    """One file of utterances.

    ``pcm`` joined, ``ends`` in samples, and a JSON ``said`` of words, intent, voice and phones.
    """
    waves = [pcm for pcm, _ in spoken]
    about = [
        {"words": q.words, "intent": q.intent, "voice": voice, "phones": phones}
        for q, voice, (_, phones) in zip(said, voices, spoken, strict=True)
    ]
    half = path.with_suffix(".half.npz")
    np.savez(
        half,
        pcm=np.concatenate(waves),
        ends=np.cumsum([len(w) for w in waves]),
        said=np.array(json.dumps(about)),
    )
    half.rename(path)


def main() -> None:
    """Command line."""
    parse = argparse.ArgumentParser(description=__doc__)
    parse.add_argument("--out", type=Path, required=True)
    parse.add_argument("--count", type=int, default=12_000)
    parse.add_argument("--seed", type=int, default=1)
    parse.add_argument("--part", default="0/1", help="i/n: make every n-th file, beginning with i")
    kinds = parse.add_mutually_exclusive_group()
    kinds.add_argument(
        "--dev", choices=["known", "new"], help="festival's voices asking those wordings, for watching"
    )
    kinds.add_argument("--natural", action="store_true", help="by Kokoro: a second of computing each")
    kinds.add_argument(
        "--parallel", action="store_true", help="each text by all of flite's speakers, for mixing them"
    )
    args = parse.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    part, parts = (int(number) for number in args.part.split("/"))
    kind = args.dev or ("parallel" if args.parallel else "natural" if args.natural else "train")
    # texts a file: few where each takes long
    size = BLOCK // len(PARALLEL) if args.parallel or args.natural else BLOCK
    said = list(questions(args.count, args.seed, args.dev or "known"))
    scratch_root = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=scratch_root) as scratch:
        for block in tqdm(range(part, -(-len(said) // size), parts), desc="synthesise", unit="file"):
            path = args.out / f"{kind}-{block:04d}.npz"
            if path.exists():
                continue
            draw = random.Random(f"{args.seed}/{block}")
            pieces = said[block * size : (block + 1) * size]
            voices = [cast(kind, draw) for _ in pieces]
            marks = [draw.choice(["", "?", "."]) for _ in pieces]
            lines = [
                (q, mark, voice)
                for q, mark, several in zip(pieces, marks, voices, strict=True)
                for voice in several
            ]
            spoken = [speak(q.words + mark, voice, Path(scratch)) for q, mark, voice in lines]
            save(path, spoken, [q for q, _, _ in lines], [str(voice) for _, _, voice in lines])


if __name__ == "__main__":
    main()
