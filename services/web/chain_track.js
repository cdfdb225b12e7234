// Which stage held which chunk, and when: kept for a few seconds, on the page's clock.

const KEPT_MS = 8000;

export class ChainTrack {
  /** Stage names in the order in which a chunk passes them. */
  stages = [];
  spans = [];
  // The smallest delay seen is the best guess of how far the two clocks lie apart.
  #offsetMs = Infinity;

  /** Stages known beforehand stand there before the first chunk comes. */
  name(stages) {
    for (const stage of stages) if (!this.stages.includes(stage)) this.stages.push(stage);
  }

  /** @param {{stage: string, chunk: number, began_ms: number, ended_ms: number}} event */
  add(event, nowMs) {
    this.name([event.stage]);
    this.#offsetMs = Math.min(this.#offsetMs, nowMs - event.ended_ms);
    this.spans.push({ ...event });
    this.spans = this.spans.filter((s) => nowMs - this.#offsetMs - s.ended_ms < KEPT_MS);
  }

  /** Spans that end within the last `windowMs`, as ages: 0 is now. */
  within(windowMs, nowMs) {
    const serverMs = nowMs - this.#offsetMs;
    return this.spans
      .map((s) => ({ ...s, beganAgoMs: serverMs - s.began_ms, endedAgoMs: serverMs - s.ended_ms }))
      .filter((s) => s.endedAgoMs < windowMs);
  }

  /** In words: the last chunk of every stage. */
  describe() {
    const last = new Map(this.spans.map((s) => [s.stage, s]));
    const words = this.stages.filter((stage) => last.has(stage)).map((stage) => {
      const { chunk, began_ms, ended_ms } = last.get(stage);
      return `${stage}: chunk ${chunk} in ${Math.round(ended_ms - began_ms)} ms`;
    });
    return words.join(', ') || 'no chunk yet';
  }

  clear() {
    this.spans = [];
    this.#offsetMs = Infinity;
  }
}
