// The three ways to make the face speak: microphone, sound file, text.

import { Meter } from './meter.js';
import { Microphone } from './microphone.js';
import { acceptDrops } from './portrait_chooser.js';
import { SoundLevel } from './sound_level.js';
import { SoundSender } from './sound_sender.js';
import { decode } from './pcm.js';

/** Fires `problem` (detail: Problem) and `spoke` when something was asked for. */
export class SpeakPanel extends EventTarget {
  #session = null;
  #sender = null;
  #numFiles = 0;

  /** @param {HTMLElement} root @param {import('./sound_sender.js').QueueEstimate} queue */
  constructor(root, queue) {
    super();
    this.root = root;
    this.queue = queue;
    this.microphone = new Microphone();
    this.meter = new Meter(root.querySelector('[role=meter]'));
    this.micButton = root.querySelector('.mic-button');
    this.file = root.querySelector('.sound-drop input');
    this.fileWords = root.querySelector('.sound-words');
    this.fileBar = root.querySelector('progress');
    this.text = root.querySelector('textarea');
    this.#wire();
  }

  /** Speak through this session; null when there is none. */
  use(session) {
    this.#session = session;
    if (!session) this.#silence();
  }

  /** Text needs a voice at the server. */
  allowText(isAllowed) {
    this.text.disabled = !isAllowed;
    this.root.querySelector('.say-button').disabled = !isAllowed;
    this.root.querySelector('.no-voice').hidden = isAllowed;
  }

  /** What was being sent is sent no further. */
  interrupt() {
    this.#sender?.cancel();
    this.#sender = null;
    this.fileBar.hidden = true;
    this.fileWords.textContent = 'Drop a sound file here, or choose one';
  }

  #wire() {
    this.root.addEventListener('change', ({ target }) => {
      if (target.name === 'way') this.#choose(target.value);
    });
    this.micButton.addEventListener('click', () => this.#guarded(() => this.#toggle()));
    this.file.addEventListener('change', () => {
      this.#guarded(() => this.#send(this.file.files[0]));
    });
    acceptDrops(this.root.querySelector('.sound-drop'), (file) => this.#guarded(() => this.#send(file)));
    this.root.querySelector('form').addEventListener('submit', (event) => {
      event.preventDefault();
      this.#say();
    });
    this.text.addEventListener('keydown', (event) => {
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.#say();
    });
  }

  async #guarded(act) {
    try {
      await act();
    } catch (problem) {
      this.dispatchEvent(new CustomEvent('problem', { detail: problem }));
    }
  }

  #choose(way) {
    this.root.dataset.way = way;
    if (way !== 'microphone' && this.microphone.isOn) this.#closeMicrophone();
  }

  async #toggle() {
    if (this.microphone.isOn) {
      await this.#closeMicrophone();
      return;
    }
    const stream = await this.microphone.open();
    if (!this.#session) {
      this.microphone.close();
      return;
    }
    this.meter.follow(new SoundLevel(stream));
    this.#showMicrophone(true);
    await this.#session.useMicrophone(stream.getAudioTracks()[0]);
    this.dispatchEvent(new Event('spoke'));
  }

  async #closeMicrophone() {
    this.meter.stop();
    this.microphone.close();
    this.#showMicrophone(false);
    await this.#session?.useMicrophone(null);
  }

  #showMicrophone(isOn) {
    this.micButton.setAttribute('aria-pressed', String(isOn));
    this.micButton.querySelector('span').textContent = isOn ? 'Listening: press to stop' : 'Speak';
  }

  async #send(file) {
    if (!file || !this.#session) return;
    this.file.value = '';
    // What is half sent would be waited for, and keep the new sound waiting.
    if (this.#sender) this.#session.say('agent.interrupt');
    this.interrupt();
    this.fileWords.textContent = `Reading ${file.name}…`;
    const pcm = await decode(file).catch((problem) => { this.interrupt(); throw problem; });
    this.#numFiles += 1;
    const sender = new SoundSender(this.#session, this.queue, `file_${this.#numFiles}_${Date.now()}`);
    this.#sender = sender;
    this.fileBar.hidden = false;
    this.fileWords.textContent = `Speaking ${file.name}`;
    this.dispatchEvent(new Event('spoke'));
    await sender.send(pcm, (share) => { this.fileBar.value = share; });
    if (this.#sender === sender) this.interrupt();
  }

  #say() {
    const text = this.text.value.trim();
    if (!text || !this.#session) return;
    this.#session.say('agent.speak_text', { text });
    this.text.value = '';
    this.dispatchEvent(new Event('spoke'));
  }

  #silence() {
    this.interrupt();
    if (this.microphone.isOn) this.#closeMicrophone();
  }
}
