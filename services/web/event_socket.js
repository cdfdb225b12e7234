// The session's events over a WebSocket, opened again whenever it drops.

import { address } from './api.js';

const FIRST_WAIT_MS = 300;
const LONGEST_WAIT_MS = 5000;
// Codes after which another try is of no use: closed, token, message too large.
const FINAL = new Set([1000, 1009, 4401]);

/** Fires `message` (detail: the event), `open` and `gone` (detail: the close code). */
export class EventSocket extends EventTarget {
  #socket = null;
  #timer = 0;
  #waitMs = FIRST_WAIT_MS;
  #isClosed = false;
  #nextId = 1;

  /** @param {string} id session @param {() => string} token the token of the moment */
  constructor(id, token) {
    super();
    this.id = id;
    this.token = token;
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  get bufferedBytes() {
    return this.#socket?.bufferedAmount ?? 0;
  }

  open() {
    const url = address(`v1/sessions/${this.id}/events`).replace(/^http/, 'ws');
    const socket = new WebSocket(url, ['viva.v1', `bearer.${this.token()}`]);
    this.#socket = socket;
    socket.addEventListener('open', () => {
      this.#waitMs = FIRST_WAIT_MS;
      this.dispatchEvent(new Event('open'));
    });
    socket.addEventListener('message', ({ data }) => this.#take(data));
    socket.addEventListener('close', ({ code }) => this.#lost(code));
  }

  /** Try at once instead of waiting, when the network is back. */
  hurry() {
    if (this.#isClosed || this.isOpen || this.#socket?.readyState === WebSocket.CONNECTING) return;
    clearTimeout(this.#timer);
    this.open();
  }

  /** Send one event and give its `event_id`; null while there is no connection. */
  send(type, fields = {}) {
    if (!this.isOpen) return null;
    const event_id = `page_${this.#nextId++}`;
    this.#socket.send(JSON.stringify({ type, event_id, ...fields }));
    return event_id;
  }

  close() {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#socket?.close(1000);
  }

  #take(data) {
    let detail;
    try {
      detail = JSON.parse(data);
    } catch {
      return;
    }
    this.dispatchEvent(new CustomEvent('message', { detail }));
  }

  #lost(code) {
    this.dispatchEvent(new CustomEvent('gone', { detail: code }));
    if (this.#isClosed || FINAL.has(code)) return;
    this.#timer = setTimeout(() => this.open(), this.#waitMs);
    this.#waitMs = Math.min(LONGEST_WAIT_MS, this.#waitMs * 2);
  }
}
