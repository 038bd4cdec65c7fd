"""A real browser that calls Parley: Debian's Chromium without a window, and a caller who speaks when told to.

What went into the microphone and what came out of the loudspeaker are recorded inside the page on one audio
clock, so that a delay read from the recording is the delay a person has.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from playwright.sync_api import Page, sync_playwright

from bot.waveform import LOUD, Pcm

CHROMIUM = "/usr/bin/chromium"
RATE = 48_000
LONG_S = 60.0  # only a test that fails waits so long
FLAGS = [
    "--no-sandbox",
    "--use-fake-device-for-media-stream",
    "--disable-background-networking",
    "--autoplay-policy=no-user-gesture-required",
]
ALLOW = "--use-fake-ui-for-media-stream"  # the microphone, without asking

# Installed before the page's own script runs. The browser is asked for its microphone, and may refuse it;
# from then on, what is heard is what ``speak`` has been given, and silence between.
MICROPHONE = """
(() => {
  const media = navigator.mediaDevices;
  if (!media) return;
  const context = new AudioContext({sampleRate: 48000});
  const microphone = context.createMediaStreamDestination();
  const mouth = context.createGain();
  mouth.connect(microphone);
  const silence = context.createConstantSource();
  silence.offset.value = 0;
  silence.connect(mouth);
  silence.start();
  const getUserMedia = media.getUserMedia.bind(media);
  media.getUserMedia = async (constraints) => {
    for (const track of (await getUserMedia(constraints)).getTracks()) track.stop();
    await context.resume();
    return microphone.stream.clone();
  };
  const speak = (text) => new Promise((said) => {
    const samples = new Int16Array(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);
    const buffer = context.createBuffer(1, samples.length, 48000);
    buffer.getChannelData(0).set(Float32Array.from(samples, (sample) => sample / 32767));
    const source = context.createBufferSource();
    source.buffer = buffer;
    source.connect(mouth);
    source.onended = () => said(window.heard ? window.heard.samples : 0);
    source.start();
  });
  window.caller = {context, mouth, speak};
})();
"""

# Two channels on one clock: 0 the microphone, 1 the bot. ``heard``: how much there is, and where the bot was
# last heard. Needs ``MICROPHONE``.
_RECORDER = """
(() => {
  if (!window.caller) return;
  const {context, mouth} = window.caller;
  const merger = context.createChannelMerger(2);
  const recorder = context.createScriptProcessor(4096, 2, 1);
  const blocks = [];
  window.heard = {samples: 0, last: -1};
  recorder.onaudioprocess = (event) => {
    const block = new Int16Array(8192);
    for (const channel of [0, 1]) {
      const samples = event.inputBuffer.getChannelData(channel);
      for (let i = 0; i < 4096; i++) {
        block[2 * i + channel] = Math.max(-1, Math.min(1, samples[i])) * 32767;
        if (channel && Math.abs(samples[i]) > LOUD) window.heard.last = window.heard.samples + i;
      }
    }
    window.heard.samples += 4096;
    blocks.push(block);
  };
  merger.connect(recorder);
  recorder.connect(context.destination);
  mouth.connect(merger, 0, 0);
  const Peer = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Peer {
    constructor(...args) {
      super(...args);
      this.addEventListener('track', (event) => {
        if (event.track.kind !== 'audio') return;
        context.createMediaStreamSource(new MediaStream([event.track])).connect(merger, 0, 1);
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
""".replace("LOUD", str(LOUD))


@dataclass(frozen=True)
class Recording:
    """Both sides of a call at 48 kHz on one clock, float32 in [-1, 1]."""

    caller: Pcm
    bot: Pcm


@contextmanager
def browser_page(url: str, *, allow: bool = True) -> Iterator[Page]:
    """Open Parley's page in Chromium; ``allow`` it the microphone."""
    with sync_playwright() as playwright:
        flags = [*FLAGS, ALLOW] if allow else FLAGS
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=flags)
        try:
            page = browser.new_page()
            page.add_init_script(MICROPHONE)
            page.add_init_script(_RECORDER)
            page.goto(url)
            yield page
        finally:
            browser.close()


def speak(page: Page, pcm: Pcm) -> int:
    """Have the caller say that, and wait until it is said; where in the recording that is."""
    samples = (np.clip(pcm, -1, 1) * 32767).astype("<i2").tobytes()
    end: int = page.evaluate("text => caller.speak(text)", base64.b64encode(samples).decode())
    return end


def hear(page: Page, since: int = 0, quiet_s: float = 0.0) -> None:
    """Wait until the bot has been heard, from that place in the recording on, and then been quiet so long."""
    deadline = time.monotonic() + LONG_S
    while time.monotonic() < deadline:
        samples, last = page.evaluate("[heard.samples, heard.last]")
        if last >= since and samples - last >= quiet_s * RATE:
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"the bot was not heard in {LONG_S:g} s")


def take_recording(page: Page) -> Recording:
    """What was said so far on both sides."""
    pairs = np.frombuffer(base64.b64decode(page.evaluate("takeRecording()")), "<i2")
    caller, bot = ((pairs[channel::2] / 32767).astype(np.float32) for channel in (0, 1))
    return Recording(caller, bot)
