// The microphone's level as a row of bars, the loudest in the middle.

const BARS = 23;
const FLOOR_DB = -55; // what a quiet room measures
const SPAN_DB = 45; // from there to a loud voice
const SAY_MS = 250; // assistive technology need not follow every frame

export class Meter {
  #box;
  #bars;
  #context = null;
  #frame = 0;

  constructor(box) {
    this.#box = box;
    this.#bars = Array.from({ length: BARS }, () => document.createElement('i'));
    box.replaceChildren(...this.#bars);
  }

  start(stream) {
    this.#context = new AudioContext();
    this.#context.resume();
    const analyser = this.#context.createAnalyser();
    analyser.fftSize = 1024;
    this.#context.createMediaStreamSource(stream).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    const history = new Array(Math.ceil(BARS / 2)).fill(0);
    let said = 0;
    const draw = (now) => {
      analyser.getFloatTimeDomainData(samples);
      const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
      const level = Math.min(1, Math.max(0, (10 * Math.log10(power + 1e-10) - FLOOR_DB) / SPAN_DB));
      history.unshift(level);
      history.pop();
      const middle = (BARS - 1) / 2;
      this.#bars.forEach((bar, i) => {
        const away = Math.abs(i - middle);
        bar.style.height = `${4 + 32 * history[Math.round(away)] * (1 - away / (BARS * 0.75))}px`;
      });
      if (now - said > SAY_MS) {
        this.#box.setAttribute('aria-valuenow', Math.round(level * 100));
        said = now;
      }
      this.#frame = requestAnimationFrame(draw);
    };
    this.#frame = requestAnimationFrame(draw);
  }

  stop() {
    cancelAnimationFrame(this.#frame);
    this.#context?.close();
    this.#context = null;
    this.#box.setAttribute('aria-valuenow', 0);
  }
}
