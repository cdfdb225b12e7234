// The live figures, each in its own cell.

const whole = (x) => (Number.isFinite(x) ? String(Math.round(x)) : '–');
const signed = (x) => (Number.isFinite(x) ? `${x > 0 ? '+' : ''}${Math.round(x)}` : '–');

export class FiguresView {
  /** @param {HTMLElement} root cells with `data-figure` */
  constructor(root) {
    this.cells = Object.fromEntries(
      [...root.querySelectorAll('[data-figure]')].map((cell) => [cell.dataset.figure, cell]),
    );
  }

  /** @param {object} sample of ReceiverStats @param {{queueMs: number, aheadMs: number}} server */
  show(sample, { queueMs, aheadMs, interruptMs }) {
    this.#set('fps', Number.isFinite(sample.fps) ? sample.fps.toFixed(1) : '–');
    this.#set('latency', whole(sample.latencyMs === null ? NaN : sample.latencyMs + (aheadMs || 0)));
    this.#set('offset', signed(sample.avOffsetMs ?? NaN));
    this.#set('queue', Number.isFinite(queueMs) ? (queueMs / 1000).toFixed(1) : '–');
    this.#set('bitrate', whole(sample.kbps));
    this.#set('interrupt', whole(interruptMs ?? NaN));
  }

  clear() {
    for (const name of Object.keys(this.cells)) this.#set(name, '–');
  }

  #set(name, text) {
    this.cells[name].textContent = text;
  }
}
