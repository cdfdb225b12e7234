// How loud a stream is, measured on the sound itself.

let context = null;

/** The page's one audio context; to be asked for first in answer to a press. */
export function audioContext() {
  context ??= new AudioContext({ latencyHint: 'interactive' });
  if (context.state === 'suspended') context.resume();
  return context;
}

export class SoundLevel {
  #source;
  #analyser;
  #samples;

  /** @param {MediaStream} stream with at least one sound track */
  constructor(stream) {
    const audio = audioContext();
    this.#source = audio.createMediaStreamSource(stream);
    this.#analyser = new AnalyserNode(audio, { fftSize: 1024 });
    this.#samples = new Float32Array(this.#analyser.fftSize);
    this.#source.connect(this.#analyser);
  }

  /** Root mean square of the last 21 ms, 0 to 1. */
  get rms() {
    this.#analyser.getFloatTimeDomainData(this.#samples);
    return Math.sqrt(this.#samples.reduce((sum, x) => sum + x * x, 0) / this.#samples.length);
  }

  /** As a meter shows it: 0 at -60 dB, 1 at full scale. */
  get meter() {
    return Math.min(1, Math.max(0, 1 + Math.log10(this.rms + 1e-6) / 3));
  }

  /** Milliseconds until it has been silent for 20 ms; null if it is not within `limitMs`. */
  async untilSilent(limitMs = 1500, threshold = 0.004) {
    const beganMs = performance.now();
    let quietMs = null;
    for (let now = beganMs; now - beganMs < limitMs; now = performance.now()) {
      if (this.rms > threshold) quietMs = null;
      else if (quietMs === null) quietMs = now;
      else if (now - quietMs >= 20) return quietMs - beganMs;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    return null;
  }

  close() {
    this.#source.disconnect();
  }
}
