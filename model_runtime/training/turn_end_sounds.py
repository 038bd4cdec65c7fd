"""What callers have said when they pause, finished or not, for ``turn_ends`` to learn.

Finished are whole questions, sentences and answers. Unfinished is what ends in a word that leads on ("what is
the"), in a filler, or is how people begin before they know how to go on. Some of what breaks off is spoken as
if it were all, since a synthesiser's half sentence falls at its end as a whole one does; some is cut out of
the whole sentence, where the melody goes on.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import yaml
from tqdm import tqdm

from model_runtime.training.augment import RATE, Wave
from model_runtime.training.sound_net import Sound
from model_runtime.training.synthesise import Voice, natural_voice, phones_of, speak, training_voice
from model_runtime.training.texts import (
    DATA,
    REFUSE,
    expand,
    framed,
    labels,
    negatives,
    open_sentences,
    question,
)

UNFINISHED, FINISHED = 0, 1


@cache
def lists() -> dict[str, list[str]]:
    """``leading`` words, ``openers``, ``fillers`` and what is ``whole``: data/turn_ends.yaml, spread out."""
    read = yaml.safe_load((DATA / "turn_ends.yaml").read_text())
    return {
        "leading": [word for line in read["leading"] for word in line.split()],
        "openers": [said for pattern in read["openers"] for said in expand(pattern)],
        "fillers": read["fillers"],
        "whole": [said for pattern in read["whole"] for said in expand(pattern)],
    }


def _sentences(draw: random.Random) -> Iterator[str]:
    """What callers of the shop ask, what others ask, and sentences of WordNet's."""
    intents = [label for label in labels() if label != REFUSE]
    while True:
        roll = draw.random()
        if roll < 0.35:
            yield question(draw.choice(intents), draw).words
        elif roll < 0.65:
            words = draw.choice(draw.choice(negatives()))
            yield framed(words, draw) if draw.random() < 0.3 else words
        else:
            yield draw.choice(open_sentences())


def halves(words: str) -> list[int]:
    """After how many of its words a sentence cannot be over, though the next one has not come yet."""
    leading, said = set(lists()["leading"]), words.split()
    return [count for count in range(1, len(said)) if said[count - 1] in leading]


def lesson(count: int, seed: int, natural: float = 0.0) -> Iterator[Sound]:
    """As many finished as not. ``natural``: Kokoro's share of them, of which each takes a second or more."""
    draw = random.Random(seed)
    sentences = _sentences(draw)
    with tempfile.TemporaryDirectory() as folder:
        for _ in tqdm(range(count), desc="speak"):
            voice = natural_voice(draw) if draw.random() < natural else training_voice(draw)
            make = _finished if draw.random() < 0.5 else _unfinished
            yield make(draw, voice, sentences, Path(folder))


def _finished(draw: random.Random, voice: Voice, sentences: Iterator[str], scratch: Path) -> Sound:
    words = next(sentences) if draw.random() < 0.75 else draw.choice(lists()["whole"])
    wave, phones = spoken(words + draw.choice(["", "?", "."]), voice, scratch)
    return Sound(wave, FINISHED, phones)


def _unfinished(draw: random.Random, voice: Voice, sentences: Iterator[str], scratch: Path) -> Sound:
    known = lists()
    if draw.random() < 0.35:
        words = draw.choice(known["openers"])
    else:
        sentence = next(sentence for sentence in sentences if halves(sentence))
        many = draw.choice(halves(sentence))
        words = " ".join(sentence.split()[:many])
        if voice.engine == "flite" and draw.random() < 0.6:
            half = cut(sentence, words, voice, scratch)
            if half is not None:
                return half
        elif draw.random() < 0.15:
            words = f"{draw.choice(known['openers'])} {words}"
    if draw.random() < 0.15:
        words = f"{words if draw.random() < 0.7 else next(sentences)}, {draw.choice(known['fillers'])}"
    wave, phones = spoken(words + draw.choice(["", "", ",", " ..."]), voice, scratch)
    return Sound(wave, UNFINISHED, phones)


def spoken(text: str, voice: Voice, scratch: Path) -> tuple[Wave, str]:
    """Text in that voice, nothing around it, and its phones."""
    pcm, timed = speak(text, voice, scratch)
    return _bare(pcm.astype(np.float32) / np.float32(32768)), _joined(timed)


def _joined(timed: Sequence[tuple[str, float]]) -> str:
    return " ".join(phone for phone, _ in timed if phone != "pau")


def cut(sentence: str, words: str, voice: Voice, scratch: Path) -> Sound | None:
    """The first words of a sentence out of the whole; None if it is not known where they end."""
    pcm, timed = speak(sentence, voice, scratch)
    phones = [item for item in timed if item[0] != "pau"]
    many = sum(phone != "pau" for phone, _ in phones_of(words))
    if not 0 < many < len(phones) or phones[many - 1][1] < 0:
        return None
    wave = pcm[: int(phones[many - 1][1] * RATE)].astype(np.float32) / np.float32(32768)
    fade = min(len(wave), RATE // 100)
    wave[len(wave) - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
    return Sound(_bare(wave), UNFINISHED, _joined(phones[:many])) if np.abs(wave).max() > 0 else None


def _bare(wave: Wave) -> Wave:
    loud = np.flatnonzero(np.abs(wave) > 0.03 * np.abs(wave).max())
    return wave[loud[0] : loud[-1] + 1]
