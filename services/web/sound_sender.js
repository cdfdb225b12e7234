// Sends one sound piece by piece, no faster than the server plays it.

import { SAMPLE_RATE, base64 } from './pcm.js';

const PIECE_MS = 200;
// Enough for the model to look ahead and for a short gap of the network, not a whole speech.
export const AHEAD_MS = 4000;
const MAX_BUFFERED_BYTES = 256 * 1024;

/** How much sound lies at the server unplayed: its last word, what was sent since, time passed. */
export class QueueEstimate {
  #atMs = null;
  #queueMs = 0;

  /** @param {number} queueMs what the server says is unplayed at `nowMs` */
  heard(queueMs, nowMs) {
    this.#queueMs = queueMs;
    this.#atMs = nowMs;
  }

  sent(pieceMs, nowMs) {
    this.#queueMs = this.at(nowMs) + pieceMs;
    this.#atMs = nowMs;
  }

  at(nowMs) {
    return this.#atMs === null ? 0 : Math.max(0, this.#queueMs - (nowMs - this.#atMs));
  }
}

export class SoundSender {
  #isCancelled = false;

  /** @param {import('./live_session.js').LiveSession} session @param {QueueEstimate} queue */
  constructor(session, queue, utterance) {
    this.session = session;
    this.queue = queue;
    this.utterance = utterance;
  }

  cancel() {
    this.#isCancelled = true;
  }

  /** Send all of it; false if it was cancelled or the session ended. `onProgress` gets 0 to 1. */
  async send(pcm, onProgress = () => {}) {
    const size = (SAMPLE_RATE * PIECE_MS) / 1000;
    for (let from = 0; from < pcm.length; from += size) {
      if (!(await this.#roomy())) return false;
      const piece = pcm.subarray(from, from + size);
      this.session.say('agent.speak', {
        audio: base64(piece), sample_rate: SAMPLE_RATE, utterance: this.utterance,
      });
      this.queue.sent((piece.length * 1000) / SAMPLE_RATE, performance.now());
      onProgress(Math.min(1, (from + size) / pcm.length));
    }
    this.session.say('agent.speak_end', { utterance: this.utterance });
    return true;
  }

  async #roomy() {
    while (!this.#isCancelled && !this.session.isOver) {
      const { socket } = this.session;
      const isFull = this.queue.at(performance.now()) >= AHEAD_MS;
      if (socket?.isOpen && !isFull && socket.bufferedBytes < MAX_BUFFERED_BYTES) return true;
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
    return false;
  }
}
