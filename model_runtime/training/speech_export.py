"""Writes `token2wav/` in the published layout, and the output voices, from what the speaking stages left."""

import random
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model_runtime.speaking.flow import FlowConfig
from model_runtime.speaking.loading import flow_yaml
from model_runtime.speaking.token2wav import Token2Wav
from model_runtime.training.speech_corpus import SPEAKERS, Speaker, open_sentences, speak
from model_runtime.training.speech_features import Wave, trimmed

PROMPT_CODES = 100  # 4 s: enough to know a voice by, cheap to keep beside every stream
LICENCE = (
    "Made with the flite voice {name} (Carnegie Mellon University, BSD-like: use, copying, change and sale "
    "are permitted with its notice kept; see the Debian package libflite1)."
)
DESCRIPTIONS = {
    "slt": "A woman, American English, clear and calm.",
    "rms": "A man, American English, even and low.",
    "awb": "A man, Scottish English, lively.",
    "kal16": "A man, American English, flat and robot-like.",
    "rms-deep": "A man, American English, deep and slow.",
    "slt-low": "A woman, American English, low and gentle.",
}
"""Of all that ship: the output voices, and some made of them by moving pitch and formants, which were around
them in the corpus."""


def halved(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors in float16. Raises ValueError where one does not fit."""
    small = {name: tensor.to(torch.float16).contiguous() for name, tensor in weights.items()}
    for name, tensor in small.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"{name} does not fit half precision")
    return small


def write_flow(weights: dict[str, Tensor], config: FlowConfig, folder: Path) -> None:
    """flow.pt and flow.yaml."""
    torch.save(halved(weights), folder / "flow.pt")
    (folder / "flow.yaml").write_text(flow_yaml(config))


def write_hift(weights: dict[str, Tensor], folder: Path) -> None:
    """hift.pt, with plain weights (there is no weight norm to fold)."""
    torch.save(halved(weights), folder / "hift.pt")


def prompt(speaker: Speaker, seed: int = 7) -> Wave:
    """About 4 s of the voice at 24 kHz, ending in a short pause: whole sentences of the open corpus."""
    rng = random.Random(f"{seed}/{speaker.name}")
    sentences = [text for text in open_sentences() if 6 <= len(text.split()) <= 9]
    said: list[Wave] = []
    while sum(map(len, said)) < 24000 * PROMPT_CODES / 25:
        said.append(trimmed(speak(speaker, rng.choice(sentences)), 24000, 0.06, 0.16))
    # Cut at the front: a prompt that broke off in a word would make the reply begin with its rest.
    wav = np.concatenate(said)[-24000 * PROMPT_CODES // 25 :]
    loud = wav[np.abs(wav) > 0.02 * np.abs(wav).max()]
    return np.asarray(wav * (0.1 / float(np.sqrt((loud**2).mean()))), dtype=np.float32)


def write_voices(token2wav: Token2Wav, folder: Path) -> None:
    """voices/NAME.safetensors for every voice that ships, as the product prepares any voice."""
    folder.mkdir(parents=True, exist_ok=True)
    for speaker in SPEAKERS:
        if speaker.name not in DESCRIPTIONS:
            continue
        licence = LICENCE.format(name=speaker.voice)
        voice = token2wav.prepare_voice(
            prompt(speaker),
            24000,
            description=DESCRIPTIONS[speaker.name],
            licence=licence,
            source="flite 2.2",
        )
        voice.save(folder / f"{speaker.name}.safetensors")
