// Shows a level as a bar that falls slowly, in steps a screen reader can ask for.

export class Meter {
  #level = null;
  #shown = 0;
  #timer = 0;

  /** @param {HTMLElement} element with role meter */
  constructor(element) {
    this.element = element;
  }

  /** Follow a SoundLevel until `stop`. */
  follow(level) {
    this.stop();
    this.#level = level;
    this.#timer = setInterval(() => this.#tick(), 50);
  }

  stop() {
    clearInterval(this.#timer);
    this.#level?.close();
    this.#level = null;
    this.#show(0);
  }

  #tick() {
    this.#show(Math.max(this.#level.meter, this.#shown - 0.06));
  }

  #show(value) {
    this.#shown = value;
    this.element.style.setProperty('--level', value.toFixed(3));
    this.element.setAttribute('aria-valuenow', String(Math.round(value * 10) * 10));
  }
}
