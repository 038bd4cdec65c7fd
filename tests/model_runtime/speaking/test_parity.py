"""Our numbers against the reference's (golden set).

The vocoder's source sums the pitch into phases of up to 26,000 radians, where float32's steps are 0.002
wide. The golden source itself is 4e-4 from the same sum in float64, and a pitch that another processor's
convolution rounds by one place moves it as far. So each half is held to the golden tolerance from the golden
input of that half, and the whole way, where the source does not come out to the last bit, to an error 60 dB
below the signal: with every pitch one place off it is 66 to 76 dB below, with every pitch a millionth off 46,
with the source a thousandth too loud 54.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from model_runtime.listening.features import log_mel
from model_runtime.speaking.flow_stream import FlowRules, FlowStream
from model_runtime.speaking.mel import fbank, mel24k
from model_runtime.speaking.schedule import Schedule
from model_runtime.speaking.token2wav import GivenDraws, Token2Wav
from model_runtime.speaking.vocoder import HOP, SINE_AMPLITUDE
from model_runtime.speaking.vocoder_stream import VocoderStream
from model_runtime.speaking.voice import VoicePreparer
from tests.model_runtime.speaking.golden import (
    FOLDER,
    TOKEN2WAV,
    golden_hift,
    golden_voice,
    needs_golden,
    values,
)

pytestmark = needs_golden


@pytest.fixture(scope="module")
def token2wav() -> Token2Wav:
    return Token2Wav.load(TOKEN2WAV)


def test_flow_offline(token2wav: Token2Wav) -> None:
    g = values()
    mel = token2wav.flow.offline(
        g["flow.prompt_tokens"].unsqueeze(0),
        g["flow.prompt_mel"].unsqueeze(0),
        g["flow.speaker"].unsqueeze(0),
        g["flow.tokens"].unsqueeze(0),
        g["flow.noise"].T.unsqueeze(0),
    )
    torch.testing.assert_close(mel[0].T, g["flow.mel"], atol=1e-4, rtol=0)


def rounds_as_the_reference() -> bool:
    """Whether this processor makes the golden source of the golden mel, to the last bit."""
    g, hift = values(), golden_hift()
    with torch.no_grad():
        return torch.equal(hift.source(hift.f0(g["flow.mel"].unsqueeze(0)))[0], g["hift.source"])


def assert_parity(audio: Tensor, expected: Tensor, tolerance: float) -> None:
    """Within the tolerance where rounding is the reference's; everywhere the error is 60 dB below the signal.

    And no sample is off by more than a fiftieth of full scale.
    """
    error = audio - expected
    if rounds_as_the_reference():
        assert error.abs().max() <= tolerance
    assert 20 * torch.log10(expected.norm() / error.norm().clamp(min=1e-12)) > 60
    assert error.abs().max() < 0.02


def test_vocoder() -> None:
    g, hift = values(), golden_hift()
    mel, f0, source = (g[key].unsqueeze(0) for key in ("flow.mel", "hift.f0", "hift.source"))
    with torch.no_grad():
        torch.testing.assert_close(hift.f0(mel), f0, atol=1e-4, rtol=0)
        torch.testing.assert_close(hift.decode(mel, source)[0], g["hift.wav"], atol=1e-3, rtol=0)

        # What one step of float32 in each harmonic's phase is worth at the output, growing along the reply.
        angle = hift.phase(f0)[0] * 2 * torch.pi * HOP
        step = torch.nextafter(angle, torch.tensor(torch.inf)) - angle
        worth = SINE_AMPLITUDE * step @ hift.m_source.l_linear.weight[0].abs()
        error = (hift.source(f0) - source)[0].abs().unflatten(0, (-1, HOP)).amax(1)
        assert (error <= 1e-4 + worth).all()

        assert_parity(hift.decode(mel, hift.source(hift.f0(mel)))[0], g["hift.wav"], 1e-3)


def test_flow_in_the_reference_schedule(token2wav: Token2Wav) -> None:
    """A prompt and four chunks: far enough for the cache to be cut, and the last one without look-ahead."""
    g = values()
    draws = GivenDraws(g["flow.noise"].T.unsqueeze(0))
    voice, tokens = golden_voice(), g["flow.tokens"].tolist()
    rules = FlowRules.reference(g["flow.prompt_mel"].shape[0], 100)
    stream = FlowStream(
        token2wav.plan, token2wav.speaker(voice), rules, draws, token2wav.take_in(voice, draws)
    )
    chunks, at = [], 0
    for frames in g["stream.mel_chunk_frames"].tolist():
        last = at + frames // 2 == len(tokens)
        chunks.append(stream.push(tokens[at : at + frames // 2 + (0 if last else 3)], last=last))
        at += frames // 2
    assert [chunk.shape[1] for chunk in chunks] == g["stream.mel_chunk_frames"].tolist()
    torch.testing.assert_close(torch.cat(chunks, 1)[0].T, g["stream.mel"], atol=1e-4, rtol=0)


def test_vocoder_in_the_reference_schedule() -> None:
    g = values()
    stream = VocoderStream(golden_hift(), Schedule.reference(), GivenDraws(torch.zeros(1, 0, 80)))
    frames = g["stream.mel_chunk_frames"].tolist()
    mels = torch.split(g["stream.mel"].T.unsqueeze(0), frames, 1)
    audio = [stream.push(mel, last=i == len(mels) - 1) for i, mel in enumerate(mels)]
    assert [len(part) for part in audio] == g["stream.wav_chunk_samples"].tolist()
    assert_parity(torch.cat(audio), g["stream.wav"], 1e-3)


def test_codes_to_audio_in_the_reference_schedule(token2wav: Token2Wav) -> None:
    """The whole way, code by code, as the reference's example script calls it."""
    g = values()
    draws = GivenDraws(g["flow.noise"].T.unsqueeze(0))
    stream = token2wav.stream(golden_voice(), schedule=Schedule.reference(), draws=draws)
    audio = [stream.push([code]) for code in g["flow.tokens"].tolist()]
    audio.append(stream.push([], last=True))
    assert [len(part) for part in audio if len(part)] == g["stream.wav_chunk_samples"].tolist()
    assert_parity(torch.from_numpy(np.concatenate(audio)), g["stream.wav"], 5e-3)


def test_prompt_mel() -> None:
    g = values()
    mel, expected = mel24k(g["prompt.wav24k"]), g["prompt.mel24k"]
    torch.testing.assert_close(mel, expected, atol=1e-4, rtol=0)


def test_voice_features() -> None:
    g = values()
    expected = g["voice.fbank80"]
    error = (fbank(g["voice.wav16k"]) - expected).abs()
    # Within a factor of ten of the floor (float32's epsilon) a bin's power is what is left of far larger
    # numbers: there the golden value itself is 1.2e-4 from the same features in float64.
    at_the_floor = expected < np.log(1e-6)
    assert error[~at_the_floor].max() <= 1e-4
    assert error[at_the_floor].max() <= 5e-4
    assert at_the_floor.float().mean() < 0.01
    mel = log_mel(g["voice.wav16k"], right_pad=0)
    torch.testing.assert_close(mel, g["voice.log_mel128"], atol=1e-4, rtol=0)


def test_voice_through_the_two_models() -> None:
    g = values()
    voice = VoicePreparer(FOLDER / "checkpoint/token2wav").prepare(g["voice.wav16k"].numpy(), 16000)
    assert voice.tokens.tolist() == g["voice.tokens"].tolist()
    torch.testing.assert_close(voice.speaker, g["voice.speaker"], atol=1e-4, rtol=0)
    assert voice.mel.shape == (2 * len(voice.tokens), 80)
