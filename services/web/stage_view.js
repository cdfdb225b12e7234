// The large picture: the portrait while it warms up, then the face that talks.

const PHASES = {
  new: ['', ''],
  making: ['Waking up', 'Making a session…'],
  queued: ['Waiting', 'Waiting for a free place…'],
  connecting: ['Connecting', 'Warming up the face…'],
  live: ['Live', ''],
  rejoining: ['Reconnecting', 'The connection dropped. Coming back to the same face…'],
  ended: ['Ended', ''],
};
const DEGRADED = ['', 'Reduced quality', 'Fewer frames', 'Smaller picture', 'Picture held'];

export class StageView {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    this.video = root.querySelector('video');
    this.preview = root.querySelector('.stage-preview');
    this.backdrop = root.querySelector('.stage-backdrop');
    this.badge = root.querySelector('.badge-text');
    this.words = root.querySelector('.stage-words');
    this.unmute = root.querySelector('.unmute');
    this.degraded = root.querySelector('.degraded');
    this.firstFrame = null;
    this.unmute.addEventListener('click', () => this.#hear());
  }

  /** Show this portrait until the first frame is there. */
  portray(url, name) {
    for (const image of [this.preview, this.backdrop]) image.src = url;
    this.preview.alt = `Portrait: ${name}`;
    this.video.setAttribute('aria-label', `${name}, talking`);
  }

  /** What the session does, in its badge and in words over the picture. */
  enter(phase, position = null) {
    const [badge, words] = PHASES[phase];
    this.root.dataset.phase = phase;
    this.badge.textContent = badge;
    this.words.textContent = position ? `You are number ${position} in the queue.` : words;
    if (phase === 'ended' || phase === 'new') this.#clear();
  }

  /** Play a stream; gives the time of its first frame on the page's clock. */
  async play(stream) {
    if (this.video.srcObject !== stream) this.video.srcObject = stream;
    this.#play();
    const shownMs = await new Promise((resolve) => {
      this.video.requestVideoFrameCallback((now) => resolve(now));
    });
    this.root.dataset.hasPicture = 'yes';
    return shownMs;
  }

  /** Who speaks: the ring around the picture follows it. */
  speaking(isSpeaking) {
    this.root.dataset.speaking = isSpeaking ? 'yes' : 'no';
  }

  degrade(level) {
    this.degraded.textContent = DEGRADED[level] ?? '';
    this.degraded.hidden = level === 0;
  }

  /** Browsers play sound after a press only; where this one refuses, a button asks for it. */
  async #play() {
    try {
      await this.video.play();
      this.unmute.hidden = true;
    } catch (error) {
      if (error.name !== 'NotAllowedError') return;
      this.video.muted = true;
      this.unmute.hidden = false;
      await this.video.play().catch(() => {});
    }
  }

  #hear() {
    this.video.muted = false;
    this.#play();
  }

  #clear() {
    this.video.srcObject = null;
    this.unmute.hidden = true;
    this.degrade(0);
    this.speaking(false);
    delete this.root.dataset.hasPicture;
  }
}
