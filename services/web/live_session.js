// One live session from its making to its end: queue, connection, rejoin, token, events.

import { Problem } from './api.js';
import { EventSocket } from './event_socket.js';
import { Peer } from './peer.js';

const POLL_MS = 1500;
const RENEW_MS = 180_000;
const KEEP_ALIVE_MS = 60_000;
const CONNECT_MS = 15_000;
// The server keeps the face for a grace time; after this long it has surely gone.
const REJOIN_MS = 60_000;
const LONGEST_WAIT_MS = 4000;
const GONE = new Set(['session_closed', 'no_session', 'token_invalid', 'token_foreign']);

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Fires `phase` (detail: {phase, position?, reason?, problem?}), `stream` (MediaStream), `said` (a
 * server event). Phases: making, queued, connecting, live, rejoining, ended.
 */
export class LiveSession extends EventTarget {
  phase = 'new';
  #token = '';
  #timers = [];
  #microphone = null;
  #wake = () => {};

  /** @param {import('./api.js').Api} api */
  constructor(api) {
    super();
    this.api = api;
    this.id = null;
    this.peer = null;
    this.socket = null;
    this.startedMs = 0;
    this.online = () => this.#hurry();
  }

  get isOver() {
    return this.phase === 'ended';
  }

  /** Make a session with this portrait and connect. Whatever is refused ends it. */
  async start(options) {
    this.startedMs = performance.now();
    try {
      this.#enter('making');
      const made = await this.api.createSession(options);
      this.id = made.session_id;
      this.#token = made.token;
      this.iceServers = made.ice_servers ?? [];
      if (this.isOver) return this.#stopServer();
      this.#listen();
      this.#every(RENEW_MS, () => this.#renew());
      this.#every(KEEP_ALIVE_MS, () => this.say('session.keep_alive'));
      await this.#admitted();
      if (this.isOver) return undefined;
      this.#enter('connecting');
      await this.#connect();
      await this.#renew();
    } catch (problem) {
      this.#fail(problem);
    }
    return undefined;
  }

  /** Send an event; gives its id, or null while the events' connection is down. */
  say(type, fields) {
    return this.socket?.send(type, fields) ?? null;
  }

  async useMicrophone(track) {
    this.#microphone = track;
    await this.peer?.useMicrophone(track);
    this.say(track ? 'agent.start_listening' : 'agent.stop_listening');
  }

  /** End it from this side. */
  stop() {
    if (this.isOver) return;
    this.#stopServer();
    this.#end({ reason: 'client' });
  }

  #stopServer() {
    if (this.id) this.api.stop(this.id, this.#token).catch(() => {});
  }

  #listen() {
    this.socket = new EventSocket(this.id, () => this.#token);
    this.socket.addEventListener('message', ({ detail }) => this.#heard(detail));
    this.socket.open();
    addEventListener('online', this.online);
  }

  #heard(event) {
    if (this.isOver) return;
    this.dispatchEvent(new CustomEvent('said', { detail: event }));
    if (event.type === 'session.state_updated') {
      if (event.state === 'closed') this.#end({ reason: event.reason });
      else if (this.phase === 'queued' && event.position) this.#enter('queued', event);
    }
  }

  /** Wait in the queue until there is a place. */
  async #admitted() {
    let state = await this.api.start(this.id, this.#token);
    while (!this.isOver && state.state === 'new') {
      this.#enter('queued', { position: state.position ?? null });
      await pause(POLL_MS);
      state = await this.api.session(this.id, this.#token);
    }
    if (state.state === 'closed') {
      throw new Problem({ status: 410, code: 'session_closed', reason: state.reason });
    }
  }

  async #connect() {
    const peer = new Peer(this.iceServers);
    this.peer?.close();
    this.peer = peer;
    peer.addEventListener('stream', ({ detail }) => {
      this.dispatchEvent(new CustomEvent('stream', { detail }));
    });
    const connected = opened(peer);
    connected.catch(() => {});
    await peer.connect((offer) => this.api.offer(this.id, this.#token, offer));
    if (this.#microphone) await peer.useMicrophone(this.#microphone);
    await connected;
    if (this.isOver) return;
    peer.addEventListener('lost', () => this.#rejoin());
    this.#enter('live');
  }

  /** Connect anew to the same face, again and again, until the grace time is over. */
  async #rejoin() {
    if (this.phase !== 'live') return;
    this.#enter('rejoining');
    const endMs = performance.now() + REJOIN_MS;
    for (let waitMs = 300; !this.isOver; waitMs = Math.min(LONGEST_WAIT_MS, waitMs * 2)) {
      try {
        await this.#connect();
        return;
      } catch (problem) {
        if (GONE.has(problem.code) || performance.now() > endMs) {
          this.#fail(problem);
          return;
        }
      }
      await Promise.race([pause(waitMs), new Promise((resolve) => { this.#wake = resolve; })]);
    }
  }

  #hurry() {
    this.socket?.hurry();
    this.#wake();
  }

  async #renew() {
    const fresh = await this.api.renew(this.id, this.#token).catch(() => null);
    if (fresh) this.#token = fresh.token;
  }

  #every(ms, act) {
    this.#timers.push(setInterval(act, ms));
  }

  #enter(phase, detail = {}) {
    if (this.isOver) return;
    this.phase = phase;
    this.dispatchEvent(new CustomEvent('phase', { detail: { ...detail, phase } }));
  }

  #fail(problem) {
    if (this.isOver) return;
    this.#stopServer();
    this.#end({ problem, reason: problem.reason });
  }

  #end(detail) {
    this.#enter('ended', detail);
    this.#timers.forEach(clearInterval);
    removeEventListener('online', this.online);
    this.#wake();
    this.socket?.close();
    this.peer?.close();
  }
}

function opened(peer) {
  return new Promise((resolve, reject) => {
    const problem = new Problem({
      status: 0, code: 'no_connection', title: 'Picture and sound did not get through',
    });
    const timer = setTimeout(() => reject(problem), CONNECT_MS);
    const settle = (act) => () => { clearTimeout(timer); act(); };
    peer.addEventListener('connected', settle(resolve), { once: true });
    peer.addEventListener('lost', settle(() => reject(problem)), { once: true });
  });
}
