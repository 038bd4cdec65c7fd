"""A real browser that calls Parley: Debian's Chromium without a window, a WAV file as its microphone.

What went into the microphone and what came out of the loudspeaker are recorded inside the page on one audio
clock, so that a delay read from the recording is the delay a person has.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, sync_playwright

from bot.waveform import Pcm

CHROMIUM = "/usr/bin/chromium"
RATE = 48_000

# Two channels on one clock: 0 the microphone, 1 the bot. Installed before the page's own script runs.
_RECORDER = """
(() => {
  const context = new AudioContext({sampleRate: 48000});
  const merger = context.createChannelMerger(2);
  const recorder = context.createScriptProcessor(4096, 2, 1);
  const blocks = [];
  recorder.onaudioprocess = (event) => {
    const block = new Int16Array(8192);
    for (const channel of [0, 1]) {
      const samples = event.inputBuffer.getChannelData(channel);
      for (let i = 0; i < 4096; i++) block[2 * i + channel] = Math.max(-1, Math.min(1, samples[i])) * 32767;
    }
    blocks.push(block);
  };
  merger.connect(recorder);
  recorder.connect(context.destination);
  const tap = (stream, channel) => context.createMediaStreamSource(stream).connect(merger, 0, channel);
  const media = navigator.mediaDevices;
  const getUserMedia = media.getUserMedia.bind(media);
  media.getUserMedia = async (constraints) => {
    // A file stands in for the microphone: the browser's own processing would only distort the measurement.
    const plain = {echoCancellation: false, noiseSuppression: false, autoGainControl: false};
    const stream = await getUserMedia({audio: plain});
    await context.resume();
    tap(stream, 0);
    return stream;
  };
  const Peer = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Peer {
    constructor(...args) {
      super(...args);
      this.addEventListener('track', (event) => {
        if (event.track.kind === 'audio') tap(new MediaStream([event.track]), 1);
      });
    }
  };
  window.takeRecording = () => {
    const bytes = new Uint8Array(blocks.length * 16384);
    blocks.forEach((block, i) => bytes.set(new Uint8Array(block.buffer), i * 16384));
    let text = '';
    for (let i = 0; i < bytes.length; i += 32768) {
      text += String.fromCharCode(...bytes.subarray(i, i + 32768));
    }
    return btoa(text);
  };
})();
"""


@dataclass(frozen=True)
class Recording:
    """Both sides of a call at 48 kHz on one clock, float32 in [-1, 1]."""

    caller: Pcm
    bot: Pcm


@contextmanager
def browser_page(url: str, microphone: Path | None, *, allow: bool = True) -> Iterator[Page]:
    """Open Parley's page in Chromium with ``microphone`` (48 kHz WAV, played once) as the caller's voice."""
    flags = ["--no-sandbox", "--use-fake-device-for-media-stream", "--disable-background-networking"]
    flags += ["--autoplay-policy=no-user-gesture-required"]
    if allow:
        flags.append("--use-fake-ui-for-media-stream")
    if microphone is not None:
        flags.append(f"--use-file-for-fake-audio-capture={microphone}%noloop")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=flags)
        try:
            page = browser.new_page()
            page.add_init_script(_RECORDER)
            page.goto(url)
            yield page
        finally:
            browser.close()


def take_recording(page: Page) -> Recording:
    """What was said so far on both sides."""
    pairs = np.frombuffer(base64.b64decode(page.evaluate("takeRecording()")), "<i2")
    caller, bot = ((pairs[channel::2] / 32767).astype(np.float32) for channel in (0, 1))
    return Recording(caller, bot)
