// Measures in the page, at the ear and the eye, when a flash is seen and when its beep is heard.
//
// The picture is read from the frames that the video element shows (`expectedDisplayTime`), the
// sound in an AudioWorklet behind the same stream, sample by sample, both on the page's clock. It
// reads the bar code of tests/support/flash_picture.py, too: which frame of which epoch was shown.
// Not covered: the loudspeaker's and the screen's own delay.

const FLASH_LUMA = 176;
const BEEP_RMS = 0.03;
const SILENT_RMS = 0.004;
const CELLS = 16;
const ROWS = 3;
const SIZE = 256;

const WORKLET = `
registerProcessor('beep-listener', class extends AudioWorkletProcessor {
  process([input]) {
    const samples = input[0];
    let sum = 0;
    if (samples) for (const x of samples) sum += x * x;
    this.port.postMessage([currentTime, samples ? Math.sqrt(sum / samples.length) : 0]);
    return true;
  }
});`;

export class FlashProbe {
  /** Flashes: {atMs, index, isSure}; frames: {atMs, index, epoch, session}. */
  flashes = [];
  frames = [];
  loudMs = [];
  // Where the audio clock stands against the page's, by quarters of a second: under load the
  // audio clock loses time, so one difference for all is not enough.
  #clocksMs = new Map();
  #wasFlash = true;
  #loudUntilS = -1;
  #shown = 0;
  #isOver = false;
  #beepTimesS = [];

  /** @param {HTMLVideoElement} video that plays a stream with picture and sound */
  constructor(video, context = new AudioContext()) {
    this.video = video;
    this.context = context;
    this.pen = new OffscreenCanvas(SIZE, SIZE).getContext('2d', { willReadFrequently: true });
  }

  async start() {
    const url = URL.createObjectURL(new Blob([WORKLET], { type: 'text/javascript' }));
    await this.context.resume();
    await this.context.audioWorklet.addModule(url);
    this.source = this.context.createMediaStreamSource(this.video.srcObject);
    this.listener = new AudioWorkletNode(this.context, 'beep-listener');
    this.listener.port.onmessage = ({ data }) => this.#hear(...data);
    this.source.connect(this.listener).connect(this.context.destination);
    this.#watch();
    return this;
  }

  stop() {
    this.#isOver = true;
    this.listener.disconnect();
    this.source.disconnect();
  }

  forget() {
    this.flashes.length = 0;
    this.#beepTimesS.length = 0;
    this.#clocksMs.clear();
    this.frames.length = 0;
    this.loudMs.length = 0;
  }

  /** Beep minus flash of every pair within `withinMs`: negative is sound before picture. */
  offsets(withinMs = 390) {
    const beeps = this.beepsMs();
    return this.flashes.filter((flash) => flash.isSure).flatMap((flash) => {
      const near = beeps.map((ms) => ms - flash.atMs).filter((ms) => Math.abs(ms) < withinMs);
      return near.length ? [near.reduce((a, b) => (Math.abs(a) < Math.abs(b) ? a : b))] : [];
    });
  }

  /** When beeps began, on the page's clock. */
  beepsMs() {
    return this.#beepTimesS.map((s) => this.#pageMs(s));
  }

  /** Counts beside the offsets: a measurement that saw nothing says so. */
  summary() {
    return {
      offsetsMs: this.offsets(),
      flashes: this.flashes.length,
      sureFlashes: this.flashes.filter((flash) => flash.isSure).length,
      beeps: this.#beepTimesS.length,
      frames: this.frames.length,
      readable: this.frames.filter((frame) => frame.index !== null).length,
      outputLatencyMs: 1000 * (this.context.outputLatency || 0),
    };
  }

  /** When sound above -48 dB was last heard at or after `sinceMs`; null if it never was. */
  lastLoudMs(sinceMs) {
    const last = this.loudMs.at(-1);
    return last === undefined || this.#pageMs(last) < sinceMs ? null : this.#pageMs(last);
  }

  /** When sound above -48 dB was first heard at or after `sinceMs`; null if it never was. */
  firstLoudMs(sinceMs) {
    const first = this.loudMs.map((s) => this.#pageMs(s)).find((ms) => ms >= sinceMs);
    return first ?? null;
  }

  /** Call `act`, then give the milliseconds until silence that lasts `quietMs`. */
  async untilSilent(act, quietMs = 400, limitMs = 4000) {
    const beganMs = performance.now();
    await act();
    for (;;) {
      const now = performance.now();
      const last = this.lastLoudMs(beganMs) ?? beganMs;
      if (now - last >= quietMs) return last - beganMs;
      if (now - beganMs > limitMs) return null;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** A message may come late, never early: the smallest difference around it is the clocks'. */
  #pageMs(contextS) {
    const quarter = Math.floor(contextS * 4);
    const near = [quarter - 1, quarter, quarter + 1].map((q) => this.#clocksMs.get(q) ?? Infinity);
    return contextS * 1000 + Math.min(...near);
  }

  #hear(timeS, rms) {
    const quarter = Math.floor(timeS * 4);
    const apartMs = performance.now() - timeS * 1000;
    this.#clocksMs.set(quarter, Math.min(apartMs, this.#clocksMs.get(quarter) ?? Infinity));
    if (rms > SILENT_RMS) this.loudMs.push(timeS);
    if (this.loudMs.length > 20000) this.loudMs.splice(0, 10000);
    if (rms < BEEP_RMS) return;
    if (timeS - this.#loudUntilS > 0.1) this.#beepTimesS.push(timeS);
    this.#loudUntilS = timeS;
  }

  #watch() {
    this.video.requestVideoFrameCallback((now, frame) => {
      if (this.#isOver) return;
      this.#look(frame);
      this.#watch();
    });
  }

  #look(frame) {
    this.pen.drawImage(this.video, 0, 0, SIZE, SIZE);
    const { data } = this.pen.getImageData(0, 0, SIZE, SIZE);
    const atMs = frame.expectedDisplayTime;
    const code = readCode(data);
    const isFlash = mean(data, 0, SIZE / 2) > FLASH_LUMA;
    // Where the page missed frames just before, the flash may have begun in one of them.
    const isSure = frame.presentedFrames === this.#shown + 1;
    if (isFlash && !this.#wasFlash) this.flashes.push({ atMs, isSure, index: code?.index ?? null });
    this.frames.push({ atMs, index: null, epoch: null, session: null, ...code });
    this.#wasFlash = isFlash;
    this.#shown = frame.presentedFrames;
  }
}

/** Brightness of rows [from, to), every eighth pixel of every eighth row. */
function mean(data, from, to) {
  let sum = 0;
  let count = 0;
  for (let y = from; y < to; y += 8) {
    for (let x = 0; x < SIZE; x += 8) {
      sum += luma(data, x, y);
      count += 1;
    }
  }
  return sum / count;
}

/** Frame, epoch and session of a picture; undefined where the code is damaged. */
export function readCode(data) {
  const rows = [];
  for (let row = 0; row < ROWS; row += 1) {
    const y = Math.round((SIZE * (2 * (13 + row) + 1)) / 32);
    let word = 0;
    for (let cell = 0; cell < CELLS; cell += 1) {
      const x = Math.round((SIZE * (2 * cell + 1)) / 32);
      word = word * 2 + (luma(data, x, y) > 127 ? 1 : 0);
    }
    rows.push(word);
  }
  if (((rows[0] ^ rows[1] ^ 0xffff) & 0xffff) !== rows[2]) return undefined;
  return { index: rows[0], epoch: rows[1] >> 8, session: rows[1] & 0xff };
}

function luma(data, x, y) {
  const i = 4 * (y * SIZE + x);
  return (data[i] + data[i + 1] + data[i + 2]) / 3;
}
