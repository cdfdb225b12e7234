// The demo page: wires the portrait chooser, the session, the picture, the figures and the chain.

import { Api } from './api.js';
import { ChainTrack } from './chain_track.js';
import { ChainView } from './chain_view.js';
import { FiguresView } from './figures_view.js';
import { LiveSession } from './live_session.js';
import { Notice } from './notice.js';
import { PortraitChooser } from './portrait_chooser.js';
import { QueueEstimate } from './sound_sender.js';
import { ReceiverStats } from './receiver_stats.js';
import { SoundLevel, audioContext } from './sound_level.js';
import { SpeakPanel } from './speak_panel.js';
import { StageView } from './stage_view.js';
import { reasonText } from './remedies.js';

const KEY = 'viva.key';
const find = (selector) => document.querySelector(selector);

class Conversation {
  api = new Api(sessionStorage.getItem(KEY) ?? '');
  notice = new Notice(find('.alert'), find('.status'));
  stage = new StageView(find('.stage'));
  chooser = new PortraitChooser(find('.chooser'), this.api);
  queue = new QueueEstimate();
  speak = new SpeakPanel(find('.speak'), this.queue);
  figures = new FiguresView(find('.figures'));
  track = new ChainTrack();
  chain = new ChainView(find('.chain canvas'), find('.chain-words'), this.track);
  stats = new ReceiverStats(() => this.session?.peer?.connection);
  session = null;
  voice = null;
  server = { queueMs: NaN, aheadMs: 0, interruptMs: null };
  fps = 25;
  pending = {};

  constructor() {
    this.startButton = find('.start');
    this.stopButton = find('.stop');
    this.interruptButton = find('.interrupt');
    this.#wire();
    setInterval(() => this.#everySecond(), 1000);
  }

  /** Ask what the server has; shows the cast, or why there is none. */
  async open() {
    try {
      const [model, portraits] = await Promise.all([this.api.model(), this.api.portraits()]);
      this.fps = model.fps;
      this.track.name(model.stages ?? []);
      this.chain.draw();
      find('.key').hidden = !model.keys_needed;
      this.speak.allowText(model.speech !== false);
      find('.model').textContent = `${model.model} · ${model.width} × ${model.height} · ${model.fps} fps`;
      this.chooser.fill(portraits);
      this.startButton.disabled = false;
      this.notice.say('Choose a portrait and press Start.');
    } catch (problem) {
      this.notice.show(problem);
      setTimeout(() => this.open(), 3000);
    }
  }

  async start() {
    if (this.startButton.disabled) return;
    audioContext();
    this.notice.clear();
    this.startButton.disabled = true;
    if (!find('.key').hidden) this.#rememberKey(find('.key input').value.trim());
    try {
      const portrait = await this.chooser.portrait();
      await this.#run(new LiveSession(this.api), { portrait });
    } catch (problem) {
      if (problem.code === 'key_missing' || problem.code === 'key_unknown') find('.key').hidden = false;
      this.notice.show(problem);
    }
    this.startButton.disabled = false;
  }

  /** Silence at once: nothing of what was asked for is heard any more. */
  async interrupt() {
    if (!this.session || this.session.phase !== 'live') return;
    this.speak.interrupt();
    this.session.say('agent.interrupt');
    this.queue.heard(0, performance.now());
    this.notice.say('Interrupted.');
    const silentMs = await this.voice?.untilSilent();
    if (Number.isFinite(silentMs)) {
      this.server.interruptMs = silentMs;
      this.pending.interrupt_ms = silentMs;
    }
  }

  stop() {
    this.session?.stop();
  }

  #wire() {
    find('.chooser').addEventListener('submit', (event) => {
      event.preventDefault();
      this.start();
    });
    this.stopButton.addEventListener('click', () => this.stop());
    this.interruptButton.addEventListener('click', () => this.interrupt());
    addEventListener('keydown', (event) => {
      if (event.key === 'Escape') this.interrupt();
    });
    addEventListener('pagehide', () => this.stop());
    this.chooser.addEventListener('chosen', ({ detail }) => this.stage.portray(detail.url, detail.title));
    this.chooser.addEventListener('refused', ({ detail }) => this.notice.show(detail));
    this.speak.addEventListener('problem', ({ detail }) => this.notice.show(detail));
    this.speak.addEventListener('spoke', () => this.notice.clear());
  }

  async #run(session, options) {
    this.session = session;
    session.addEventListener('phase', ({ detail }) => this.#phase(detail));
    session.addEventListener('stream', ({ detail }) => this.#play(detail));
    session.addEventListener('said', ({ detail }) => this.#said(detail));
    await session.start(options);
  }

  #phase({ phase, position, reason, problem }) {
    document.body.dataset.phase = phase;
    this.stage.enter(phase, position);
    const isOpen = phase === 'live' || phase === 'rejoining';
    this.stopButton.textContent = isOpen ? 'End the session' : 'Cancel';
    if (phase === 'making') this.#lookUp();
    this.interruptButton.disabled = phase !== 'live';
    this.speak.use(isOpen ? this.session : null);
    if (phase === 'live') this.#live();
    if (phase === 'ended') this.#ended(reason, problem);
    else this.notice.say(this.stage.words.textContent || 'Live. Say something.');
  }

  /** The face is what counts now, also on a phone, and the pressed button is gone. */
  #lookUp() {
    find('#controls').focus({ preventScroll: true });
    scrollTo({ top: 0 });
  }

  #live() {
    this.chain.start();
    if (!this.stage.root.contains(document.activeElement)) find('.mic-button').focus({ preventScroll: true });
  }

  #ended(reason, problem) {
    this.chain.stop();
    this.figures.clear();
    this.track.clear();
    this.chain.draw();
    this.voice?.close();
    this.voice = null;
    this.chooser.forget();
    if (problem) this.notice.show(problem);
    this.notice.say(problem ? '' : reasonText(reason));
    if (problem?.code.startsWith('key_')) find('.key').hidden = false;
    this.startButton.focus();
  }

  async #play(stream) {
    const { session } = this;
    if (stream.getAudioTracks().length && session) {
      this.voice?.close();
      this.voice = new SoundLevel(stream);
    }
    if (!stream.getVideoTracks().length) return;
    const shownMs = await this.stage.play(stream);
    this.pending.first_frame_ms ??= shownMs - session.startedMs;
  }

  #said(event) {
    switch (event.type) {
      case 'session.stats':
        this.server.queueMs = event.queue_ms;
        this.server.aheadMs = (1000 * (event.ahead_frames ?? 0)) / this.fps;
        this.queue.heard(event.queue_ms, performance.now());
        break;
      case 'chain.stage': this.track.add(event, performance.now()); break;
      case 'agent.speak_started':
        this.stage.speaking(true);
        // What was said of the utterance before is over; every new one announced would be noise.
        this.notice.say('Live. Press Esc to interrupt.');
        break;
      case 'agent.speak_ended':
      case 'agent.speak_interrupted': this.stage.speaking(false); break;
      case 'session.degraded': this.stage.degrade(event.level); break;
      case 'session.restarted': this.notice.say('The model was restarted; the face goes on.'); break;
      case 'session.closing': this.notice.say(reasonText(event.reason)); break;
      case 'error': this.notice.show({ code: event.code, detail: event.detail }); break;
      default:
    }
  }

  async #everySecond() {
    if (this.session?.phase !== 'live') return;
    const sample = await this.stats.sample();
    if (!sample) return;
    this.figures.show(sample, this.server);
    this.chain.describe();
    this.session.say('session.stats', { ...this.stats.report(sample), ...this.pending });
    this.pending = {};
  }

  #rememberKey(key) {
    this.api.key = key;
    sessionStorage.setItem(KEY, key);
  }
}

const conversation = new Conversation();
conversation.open();
