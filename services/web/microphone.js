// The microphone: asked for when it is needed, let go when it is not.

import { Problem } from './api.js';

const WANTED = { audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true } };
const CODES = { NotAllowedError: 'microphone_refused', NotFoundError: 'microphone_absent' };

export class Microphone {
  #stream = null;

  get isOn() {
    return this.#stream !== null;
  }

  /** Open it and give its stream; raises a Problem that says why there is none. */
  async open() {
    if (!navigator.mediaDevices?.getUserMedia) throw refused('microphone_insecure');
    try {
      const stream = await navigator.mediaDevices.getUserMedia(WANTED);
      this.close();
      this.#stream = stream;
    } catch (error) {
      throw refused(CODES[error.name] ?? 'microphone_absent');
    }
    return this.#stream;
  }

  close() {
    this.#stream?.getTracks().forEach((track) => track.stop());
    this.#stream = null;
  }
}

const refused = (code) => new Problem({ status: 0, code, title: 'The microphone cannot be used' });
