"""The speech that the speaking half of nano learns from: texts, voices, synthesis, features; a file a voice.

Output voices are flite's slt, rms, awb and kal16. Around them stand pseudo-voices: the same recordings with
other pitch (flite's own) and other formants (resampling), some flite kal and some espeak-ng, so that codes
and speaker space do not mean these four alone. Festival and mbrola are never heard here: they are kept for
tests.
"""

import json
import random
import re
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import torch
import yaml
from tqdm import tqdm

from model_runtime.listening.features import log_mel
from model_runtime.speaking.mel import mel24k
from model_runtime.training.speech_features import Wave, pitch, to_rate, trimmed

WORDNET = Path("/usr/share/wordnet")  # Debian's wordnet-base: example sentences
SHOP = Path(__file__).with_name("shop.yaml")


@dataclass(frozen=True)
class Speaker:
    """One voice of the corpus: an engine's voice, its formants moved by `formant` and its pitch by `pitch`.

    Resampling moves formants, pitch and pace together; flite's own pitch shift and duration stretch put the
    last two back to where they are wanted. `minutes` is how much of it is synthesised.
    """

    name: str
    engine: str
    voice: str
    minutes: float
    formant: float = 1.0
    pitch: float = 1.0

    def command(self, text: str, path: Path) -> list[str]:
        """The command that speaks `text` into `path`, before resampling."""
        if self.engine == "espeak-ng":
            return ["espeak-ng", "-v", self.voice, "-s", "150", "-w", str(path), text]
        stretch = ["--setf", f"duration_stretch={self.formant:.3f}"]
        shift = ["--setf", f"f0_shift={self.pitch / self.formant:.3f}"]
        return ["flite", "-voice", self.voice, *stretch, *shift, "-t", text, "-o", str(path)]


OUTPUT = tuple(Speaker(name, "flite", name, 18.0) for name in ("slt", "rms", "awb", "kal16"))
AROUND = (
    Speaker("slt-deep", "flite", "slt", 2.5, 0.86, 0.72),
    Speaker("slt-low", "flite", "slt", 2.5, 0.94, 0.85),
    Speaker("slt-high", "flite", "slt", 2.5, 1.1, 1.25),
    Speaker("rms-deep", "flite", "rms", 2.5, 0.9, 0.85),
    Speaker("rms-mid", "flite", "rms", 2.5, 1.09, 1.35),
    Speaker("rms-high", "flite", "rms", 2.5, 1.17, 1.95),
    Speaker("awb-deep", "flite", "awb", 2.5, 0.9, 0.8),
    Speaker("awb-high", "flite", "awb", 2.5, 1.12, 1.5),
    Speaker("kal16-deep", "flite", "kal16", 2.0, 0.9, 0.9),
    Speaker("kal16-high", "flite", "kal16", 2.0, 1.15, 1.15),
    Speaker("kal", "flite", "kal", 1.0),
    Speaker("espeak-us", "espeak-ng", "en-us", 1.0),
    Speaker("espeak-gb", "espeak-ng", "en-gb-x-rp+f2", 1.0),
    Speaker("espeak-scot", "espeak-ng", "en-gb-scotland+m3", 1.0),
    Speaker("espeak-us-f", "espeak-ng", "en-us+f4", 1.0),
)
SPEAKERS = OUTPUT + AROUND


def answers(shop: dict[str, Any]) -> list[str]:
    """Every fixed text that nano says: greeting, refusal, intents, and what is said around tools."""
    fixed = [shop["greeting"], shop["refuse"], *shop["intents"].values()]
    fixed += [text for tool in shop["tools"].values() for text in (tool["before"], tool.get("after", ""))]
    return [text for text in dict.fromkeys(fixed) if text and "{" not in text]


def slot_sentences(rng: random.Random, count: int) -> list[str]:
    """Sentences with what the fixed answers do not say: digits, times, dates, cities, weather."""
    digits = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    tens = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
    numbers = [
        *digits,
        *[
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
        ],
    ]
    numbers += [f"{ten} {digit}" for ten in tens for digit in digits[1:]]
    states = ["is being packed", "is on its way", "was delivered", "is waiting for payment"]
    cities = [
        "Boston",
        "London",
        "Paris",
        "Berlin",
        "Toronto",
        "Chicago",
        "Madrid",
        "Dublin",
        "Denver",
        "Seattle",
        "Rome",
        "Oslo",
        "Austin",
        "Lisbon",
    ]
    skies = ["sunny", "cloudy", "rainy", "windy", "snowy", "foggy", "clear", "stormy", "dry", "warm", "cold"]
    days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
    months = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ]
    made = []
    for _ in range(count):
        kind = rng.randrange(5)
        if kind < 2:
            made.append(f"Order {' '.join(rng.choices(digits, k=4))} {rng.choice(states)}.")
        elif kind == 2:
            made.append(f"It is {rng.choice(numbers[1:20])} {rng.choice(numbers[10:])}.")
        elif kind == 3:
            made.append(f"It is {rng.choice(days)}, {rng.choice(months)} {rng.choice(numbers[1:31])}.")
        else:
            made.append(
                f"In {rng.choice(cities)} it is {rng.choice(skies)} and {rng.choice(numbers)} degrees."
            )
    return made


def open_sentences() -> list[str]:
    """WordNet's example sentences that read well aloud: 4 to 16 plain words. In the dictionary's order."""
    found: dict[str, None] = {}
    for part in ("noun", "verb", "adj", "adv"):
        for gloss in re.findall(r"\| (.*)", (WORDNET / f"data.{part}").read_text(encoding="utf-8")):
            for example in re.findall(r'"([^"]+)"', gloss):
                plain = re.fullmatch(r"[A-Za-z][A-Za-z ',]+[.?!]?", example)
                if plain and 4 <= len(example.split()) <= 16:
                    found[example] = None
    return list(found)


def read_shop() -> dict[str, Any]:
    """The invented shop that nano answers for."""
    loaded: dict[str, Any] = yaml.safe_load(SHOP.read_text())
    return loaded


def texts_for(speaker: Speaker, sentences: list[str], seed: int) -> Iterator[str]:
    """What this voice says: an output voice every answer first, the others some of them between open text."""
    rng = random.Random(f"{seed}/{speaker.name}")
    fixed = answers(read_shop())
    shuffled = rng.sample(sentences, len(sentences))
    if speaker in OUTPUT:
        yield from fixed
        yield from slot_sentences(rng, 70)
        yield from shuffled
        return
    for text in shuffled:
        yield text
        yield rng.choice(fixed)


def speak(speaker: Speaker, text: str) -> Wave:
    """`text` in this voice: [n] float32 at 24 kHz, peak as the engine made it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        subprocess.run(speaker.command(text, path), check=True, capture_output=True)
        wav, rate = soundfile.read(path, dtype="float32")
    return to_rate(np.asarray(wav, dtype=np.float32), round(rate * speaker.formant), 24000)


@dataclass(frozen=True)
class Utterance:
    """One sentence of one voice, with its features.

    wav int16 [n] at 24 kHz; log_mel float16 [128, n/240], 100 Hz; mel float16 [n/480, 80], 50 Hz; f0 float32
    [n/480], in Hz, 0 where unvoiced.
    """

    speaker: str
    text: str
    wav: npt.NDArray[np.int16]
    log_mel: torch.Tensor
    mel: torch.Tensor
    f0: npt.NDArray[np.float32]

    @property
    def wave(self) -> Wave:
        """The waveform as float32 in -1..1."""
        return np.asarray(self.wav / 32768, dtype=np.float32)

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.wav) / 24000


def features(speaker: str, text: str, wav: Wave) -> Utterance:
    """A 24 kHz waveform with all its features; its length becomes a whole number of codes (960 samples)."""
    wav = np.pad(wav, (0, -len(wav) % 960))
    mel = mel24k(wav)
    heard = log_mel(to_rate(wav, 24000, 16000), right_pad=0)
    track = pitch(wav, len(mel))
    samples = np.clip(wav * 32767, -32768, 32767).astype(np.int16)
    return Utterance(speaker, text, samples, heard.half(), mel.half(), track)


def synthesise(
    speaker: Speaker, folder: Path, sentences: list[str], seed: int = 1, share: float = 1.0
) -> Path:
    """Speaks a `share` of this voice's minutes and writes `folder/NAME.pt`; nothing where that is there."""
    path = folder / f"{speaker.name}.pt"
    if path.exists():
        return path
    rng = random.Random(f"{seed}/{speaker.name}/pauses")
    made: list[Utterance] = []
    seconds, wanted = 0.0, share * speaker.minutes * 60
    texts = texts_for(speaker, sentences, seed)
    with tqdm(total=round(wanted), desc=speaker.name, unit="s") as bar:
        while seconds < wanted:
            text = next(texts)
            # Most pauses are as short as in the answers; some are long, so that silence has codes of its own.
            pauses = [rng.choice((0.06, 0.06, 0.12, 0.3)) for _ in range(2)]
            wav = trimmed(speak(speaker, text), 24000, *pauses)
            gain = 10 ** (rng.uniform(-6, 3) / 20)
            wav = wav * min(gain, 0.98 / float(np.abs(wav).max()))
            if not 0.4 < len(wav) / 24000 < 9:
                continue
            made.append(features(speaker.name, text, wav))
            seconds += made[-1].seconds
            bar.update(round(made[-1].seconds))
    scratch = path.with_suffix(".part")
    torch.save([vars(utterance) for utterance in made], scratch)
    scratch.rename(path)
    return path


def load(folder: Path, names: list[str] | None = None) -> list[Utterance]:
    """Every utterance that was synthesised into `folder`, voice by voice."""
    found: list[Utterance] = []
    for speaker in SPEAKERS:
        if names is None or speaker.name in names:
            # Our own scratch file, written a moment ago by `synthesise`: numpy arrays inside.
            rows = torch.load(folder / f"{speaker.name}.pt", weights_only=False)
            found.extend(Utterance(**row) for row in rows)
    return found


def split(utterances: list[Utterance], every: int = 25) -> tuple[list[Utterance], list[Utterance]]:
    """(train, held out): every 25th open sentence is held out, no fixed answer is."""
    fixed = set(answers(read_shop()))
    held = [u for i, u in enumerate(utterances) if i % every == 0 and u.text not in fixed]
    chosen = {id(u) for u in held}
    return [u for u in utterances if id(u) not in chosen], held


def make(folder: Path, seed: int = 1, workers: int = 1, share: float = 1.0) -> None:
    """Synthesises every voice into `folder`, or a `share` of each."""
    folder.mkdir(parents=True, exist_ok=True)
    sentences = open_sentences()
    with ThreadPoolExecutor(workers) as pool:
        for path in pool.map(lambda speaker: synthesise(speaker, folder, sentences, seed, share), SPEAKERS):
            print(path)
    (folder / "corpus.json").write_text(json.dumps({"seed": seed, "sentences": len(sentences)}))
