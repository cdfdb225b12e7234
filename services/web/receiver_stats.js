// What arrives, measured by the browser itself: rates, delays, freezes, concealed sound.

/** Figures of one second. Null where the browser does not say. */
export class ReceiverStats {
  #before = null;
  #reported = null;

  /** @param {() => RTCPeerConnection | undefined} connection the one of the moment */
  constructor(connection) {
    this.connection = connection;
  }

  /** Look now; figures are differences to the last look, or null at the first. */
  async sample() {
    const connection = this.connection();
    if (!connection) return null;
    const now = read(await connection.getStats());
    const before = this.#before;
    this.#before = now;
    if (!before || !now.video || before.video?.id !== now.video.id) {
      this.#reported = now;
      return null;
    }
    return figures(before, now);
  }

  /** What the server wants to know: counts since the last report. */
  report(sample) {
    const now = this.#before;
    const before = this.#reported ?? now;
    this.#reported = now;
    const concealed = difference(before.audio, now.audio, loudConcealed);
    const received = difference(before.audio, now.audio, (a) => a.totalSamplesReceived);
    return known({
      fps: sample.fps,
      av_offset_ms: sample.avOffsetMs,
      jitter_ms: sample.jitterMs,
      rtt_ms: sample.rttMs,
      freezes: difference(before.video, now.video, (v) => v.freezeCount),
      concealed_ratio: received > 0 ? Math.max(0, concealed) / received : null,
    });
  }
}

function read(report) {
  const all = [...report.values()];
  const inbound = (kind) => all.find((s) => s.type === 'inbound-rtp' && s.kind === kind);
  const pair = all.find((s) => s.type === 'candidate-pair' && s.nominated && s.state === 'succeeded');
  return { video: inbound('video'), audio: inbound('audio'), pair, atMs: performance.now() };
}

function figures(before, now) {
  const seconds = Math.max(0.001, (now.atMs - before.atMs) / 1000);
  const bits = 8 * (difference(before.video, now.video, (v) => v.bytesReceived)
    + difference(before.audio, now.audio, (a) => a.bytesReceived));
  const rttMs = now.pair?.currentRoundTripTime * 1000;
  const bufferMs = buffered(before.video, now.video);
  return {
    fps: difference(before.video, now.video, (v) => v.framesDecoded) / seconds,
    kbps: bits / seconds / 1000,
    rttMs: finite(rttMs),
    bufferMs,
    latencyMs: finite((finite(rttMs) ?? 0) / 2 + (bufferMs ?? NaN)),
    avOffsetMs: offset(now),
    jitterMs: finite(now.audio?.jitter * 1000),
    freezes: difference(before.video, now.video, (v) => v.freezeCount),
  };
}

/** Mean stay in the jitter buffer of what came out of it since. */
function buffered(before, now) {
  const count = difference(before, now, (v) => v.jitterBufferEmittedCount);
  if (!(count > 0)) return null;
  return finite((difference(before, now, (v) => v.jitterBufferDelay) / count) * 1000);
}

/** Sound minus picture, both as the sender's clock has them: positive is sound ahead. */
function offset({ audio, video }) {
  if (!audio?.estimatedPlayoutTimestamp || !video?.estimatedPlayoutTimestamp) return null;
  return finite(audio.estimatedPlayoutTimestamp - video.estimatedPlayoutTimestamp);
}

const loudConcealed = (audio) => audio.concealedSamples - (audio.silentConcealedSamples ?? 0);
const difference = (before, now, of) => (before && now ? (of(now) ?? 0) - (of(before) ?? 0) : 0);
const finite = (x) => (Number.isFinite(x) ? x : null);
const known = (fields) => Object.fromEntries(
  Object.entries(fields).filter(([, value]) => Number.isFinite(value)),
);
