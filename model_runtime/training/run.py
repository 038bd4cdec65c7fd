"""`python -m model_runtime.training.run STAGE --work DIR`: the speaking half of nano, one stage a command.

corpus, codec, speaker, codes, flow, pitch, vocoder, then export and measure; each reads what the ones
before left in the folder, resumes where it was stopped and keeps a short record of its run (of those that
ship, in `runs/` beside this file).
"""

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from model_runtime.speaking.flow import Flow
from model_runtime.speaking.loading import load_flow
from model_runtime.speaking.mel import fbank, mel24k
from model_runtime.speaking.token2wav import Token2Wav
from model_runtime.speaking.vocoder import HiFT, HiFTConfig
from model_runtime.speaking.voice import Voice, VoicePreparer
from model_runtime.training import codec, flow, speaker, speech_corpus, vocoder
from model_runtime.training.judge import recognise
from model_runtime.training.speech_corpus import OUTPUT, SPEAKERS, Utterance
from model_runtime.training.speech_features import to_rate, trimmed
from model_runtime.training.speech_loop import Loop, write_run
from model_runtime.training.speech_measure import measure

NANO = Path(__file__).parents[1] / "checkpoints" / "nano"
RUNS = Path(__file__).with_name("runs")
DEFAULT_STEPS = {
    "codec": 7400,
    "speaker": 1200,
    "flow": 3400,
    "pitch": 2500,
    "vocoder": 6000,
    "measure": flow.STEPS,
}


@dataclass(frozen=True)
class Folders:
    """Where a stage reads and writes: speech and training states in ``work``, what is to be shipped in
    ``checkpoint``, and the records of runs in ``runs``; ``from_nano``: what is not trained anew is that
    checkpoint's.
    """

    work: Path
    checkpoint: Path = NANO
    runs: Path = RUNS
    from_nano: bool = False


def both_sets(work: Path, names: list[str] | None = None) -> tuple[list[Utterance], list[Utterance]]:
    """(train, held out) of the synthesised corpus."""
    return speech_corpus.split(speech_corpus.load(work / "corpus", names))


def trained(work: Path, name: str, module: str, average: bool = False) -> dict[str, torch.Tensor]:
    """The weights that stage `name` has left for its `module` (the running mean where asked for)."""
    state = torch.load(work / f"{name}.ckpt", weights_only=True, mmap=True)
    weights: dict[str, torch.Tensor] = state["average" if average else "modules"][module]
    return weights


def trained_codec(work: Path) -> codec.Codec:
    """The codec as stage codec left it."""
    net = codec.Codec()
    net.load_state_dict(trained(work, "codec", "codec"))
    return net.eval()


def trained_speaker(work: Path) -> speaker.SpeakerNet:
    """The speaker encoder as stage speaker left it."""
    net = speaker.SpeakerNet()
    net.load_state_dict(trained(work, "speaker", "net"))
    return net.eval()


def trained_hift(work: Path) -> HiFT:
    """The vocoder as far as its stages have come."""
    hift = HiFT(HiFTConfig(base_channels=128, f0_channels=128))
    vocoder.initialise(hift)
    if (work / "vocoder.ckpt").exists():
        hift.load_state_dict(trained(work, "vocoder", "hift", average=True))
    if (work / "pitch.ckpt").exists():
        hift.f0_predictor.load_state_dict(trained(work, "pitch", "f0"))
    return hift


def record(at: Folders, stage: str, loop: Loop, **facts: Any) -> None:
    """Keeps the run's record."""
    figures = {
        "steps": loop.step,
        "minutes": round(loop.seconds / 60, 1),
        "parameters": sum(p.numel() for p in loop.parameters),
    }
    write_run(at.runs / f"{stage}.json", stage, {**facts, **figures}, loop.history)


def run_corpus(at: Folders, steps: int) -> None:
    """Synthesises every voice."""
    whole = sum(speaker.minutes for speaker in speech_corpus.SPEAKERS)
    speech_corpus.make(at.work / "corpus", share=steps / whole if steps else 1.0)
    made = speech_corpus.load(at.work / "corpus")
    minutes = {
        s.name: round(sum(u.seconds for u in made if u.speaker == s.name) / 60, 1)
        for s in speech_corpus.SPEAKERS
    }
    write_run(at.runs / "corpus.json", "corpus", {"utterances": len(made), "minutes": minutes})


def run_codec(at: Folders, steps: int) -> None:
    """Trains the codec."""
    known, unseen = both_sets(at.work)
    record(at, "codec", codec.train(known, unseen, at.work, steps)[1], utterances=len(known))


def run_speaker(at: Folders, steps: int) -> None:
    """Trains the speaker encoder."""
    known, unseen = both_sets(at.work)
    record(at, "speaker", speaker.train(known, unseen, at.work, steps)[1], utterances=len(known))


@torch.no_grad()
def run_codes(at: Folders, steps: int) -> None:
    """Writes what the frozen codec says: the answers' codes in the default voice, for the language model."""
    net = trained_codec(at.work)
    found = {}
    for text in speech_corpus.answers(speech_corpus.read_shop()):
        said = speech_corpus.features("slt", text, trimmed(speech_corpus.speak(OUTPUT[0], text), 24000))
        found[text] = codec.encode(net, said)
    scratch = at.work / "answers.part"
    scratch.write_text(json.dumps(found))
    scratch.replace(at.work / "answers.json")
    seconds = sum(map(len, found.values())) / 25
    different = len({code for codes in found.values() for code in codes})
    print(f"{len(found)} answers, {seconds:.0f} s, {different} different codes")


def hearers(at: Folders) -> tuple[Callable[[Utterance], Tensor], Callable[[Utterance], Tensor]]:
    """What tells an utterance's codes [N], and whose it is [192]: this folder's, or the checkpoint's."""
    if at.from_nano:
        shipped = VoicePreparer(at.checkpoint / "token2wav")
        return (
            lambda u: shipped.tokens(to_rate(u.wave, 24000, 16000)).long(),
            lambda u: shipped.speaker(to_rate(u.wave, 24000, 16000)),
        )
    net, who = trained_codec(at.work), trained_speaker(at.work)

    def told(u: Utterance) -> Tensor:
        bank = fbank(to_rate(u.wave, 24000, 16000))
        embedding: Tensor = who((bank - bank.mean(0))[None])[0]
        return embedding

    return lambda u: torch.tensor(codec.encode(net, u)), told


@torch.no_grad()
def spoken(at: Folders) -> tuple[list[flow.Spoken], list[flow.Spoken]]:
    """The corpus as the flow sees it: codes, mel and speaker; made once, then kept."""
    kept = at.work / "spoken.pt"
    if not kept.exists():
        codes_of, speaker_of = hearers(at)
        sets = []
        for utterances in both_sets(at.work):
            rows = []
            for u in tqdm(utterances, desc="hear"):
                codes = codes_of(u)
                rows.append((u.speaker, codes, u.mel[: 2 * len(codes)], speaker_of(u)))
            sets.append(rows)
        torch.save(sets, kept)
    known, unseen = ([flow.Spoken(*row) for row in rows] for rows in torch.load(kept, weights_only=True))
    return known, unseen


def run_flow(at: Folders, steps: int) -> None:
    """Trains the flow."""
    known, unseen = spoken(at)
    net = load_flow(at.checkpoint / "token2wav") if at.from_nano else Flow(flow.NANO)
    net = net.train().requires_grad_(True)
    loop = flow.train(known, unseen, net, at.work, steps, goes_on=at.from_nano)
    record(at, "flow", loop, utterances=len(known))


def run_pitch(at: Folders, steps: int) -> None:
    """Trains the vocoder's pitch predictor."""
    known, unseen = map(vocoder.Crops, both_sets(at.work))
    record(at, "pitch", vocoder.train_pitch(known, unseen, trained_hift(at.work), at.work, steps))


def run_vocoder(at: Folders, steps: int) -> None:
    """Trains the vocoder's waveform net."""
    known, unseen = map(vocoder.Crops, both_sets(at.work))
    record(at, "vocoder", vocoder.train(known, unseen, trained_hift(at.work), at.work, steps))


def run_export(at: Folders, steps: int) -> None:
    """Writes token2wav/ and voices/ of the nano checkpoint."""
    from model_runtime.training import speech_export, speech_onnx  # onnx is needed here alone

    folder = at.checkpoint / "token2wav"
    folder.mkdir(parents=True, exist_ok=True)
    parts = [trained(at.work, "flow", module, average=True) for module in ("flow", "book")]
    speech_export.write_flow(flow.shipped(*parts), flow.NANO, folder)
    if at.from_nano:
        return
    speech_onnx.write_codec(trained_codec(at.work), folder / "speech_tokenizer_v2_25hz.onnx")
    speech_onnx.write_speaker(trained_speaker(at.work), folder / "campplus.onnx")
    speech_export.write_hift(trained_hift(at.work).state_dict(), folder)
    speech_export.write_voices(Token2Wav.load(folder), at.checkpoint / "voices")
    size = sum(
        path.stat().st_size for part in ("token2wav", "voices") for path in (at.checkpoint / part).iterdir()
    )
    print(f"{size / 1e6:.1f} MB in {at.checkpoint}")


def run_measure(at: Folders, steps: int) -> None:
    """How well the exported half speaks: every path in every output voice."""
    answers = (RUNS if at.from_nano else at.work) / "answers.json"
    said: dict[str, list[int]] = json.loads(answers.read_text())
    texts = list(said)[::2]
    token2wav = Token2Wav.load(at.checkpoint / "token2wav", steps=steps)
    told: dict[str, Any] = {}
    for voice_path in sorted((at.checkpoint / "voices").iterdir()):
        name, voice = voice_path.stem, Voice.load(voice_path)
        engine = next(speaker for speaker in SPEAKERS if speaker.name == name)
        original = {text: trimmed(speech_corpus.speak(engine, text), 24000) for text in texts}

        def vocoded(text: str, original: dict[str, Any] = original) -> Any:
            with torch.no_grad():
                return token2wav.hift(mel24k(original[text]).T[None])[0][0].numpy()

        def streamed(text: str, voice: Voice = voice) -> Any:
            stream, codes = token2wav.stream(voice), said[text]
            # A group of four at a time, as the language model gives them.
            made = [stream.push(codes[i : i + 4], last=i + 4 >= len(codes)) for i in range(0, len(codes), 4)]
            return np.concatenate(made)

        def whole(text: str, voice: Voice = voice) -> Any:
            return token2wav.offline(said[text], voice)

        paths: dict[str, Callable[[str], Any]] = {
            "original": original.__getitem__,
            "true mel, vocoder": vocoded,
            "codes, flow, vocoder": whole,
            "the same as a stream": streamed,
        }
        for path, make in paths.items():
            figures, misheard = measure(make, texts, list(said), lambda wave: recognise(wave, 24000))
            told[f"{name}: {path}"] = figures
            print(name, path, figures, *misheard, sep="  ", flush=True)
    write_run(at.runs / "speaking.json", "measure", {"flow_steps": token2wav.plan.steps, "figures": told})


STAGES: dict[str, Callable[[Folders, int], None]] = {
    "corpus": run_corpus,
    "codec": run_codec,
    "speaker": run_speaker,
    "codes": run_codes,
    "flow": run_flow,
    "pitch": run_pitch,
    "vocoder": run_vocoder,
    "export": run_export,
    "measure": run_measure,
}


def main() -> None:
    """Runs one stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument(
        "--steps",
        type=int,
        default=0,
        help="optimiser steps in all; minutes of speech for corpus, solver steps for measure (default: the "
        "stage's own)",
    )
    parser.add_argument(
        "--work", type=Path, default=Path("build/nano/speaking"), help="where speech and checkpoints lie"
    )
    parser.add_argument("--out", type=Path, default=NANO, help="the checkpoint folder that export writes to")
    parser.add_argument("--runs", type=Path, default=RUNS, help="where the records of the runs lie")
    parser.add_argument(
        "--from-nano",
        action="store_true",
        help="flow goes on from the checkpoint's, with its codec and speaker encoder; export writes it alone",
    )
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    at = Folders(args.work, args.out, args.runs, args.from_nano)
    STAGES[args.stage](at, args.steps or DEFAULT_STEPS.get(args.stage, 0))


if __name__ == "__main__":
    main()
