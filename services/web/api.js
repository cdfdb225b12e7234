// The server over HTTP: one method a request of docs/protocol.md; all it refuses is a Problem.

/** What the server refused, or why it could not be reached (status 0, code `offline`). */
export class Problem extends Error {
  /** @param {{status: number, code: string, title?: string, detail?: string, retry_after_s?: number, reason?: string}} fields */
  constructor(fields) {
    super(fields.detail || fields.title || fields.code);
    this.status = fields.status;
    this.code = fields.code;
    this.title = fields.title ?? '';
    this.detail = fields.detail ?? '';
    this.retryAfterS = fields.retry_after_s ?? null;
    this.reason = fields.reason ?? null;
  }
}

/** Absolute address of a path of this server, wherever the page itself lies. */
export const address = (path) => new URL(path, document.baseURI).href;

export class Api {
  /** @param {string} key API key; empty where the server needs none */
  constructor(key = '') {
    this.key = key;
  }

  model() {
    return this.#json('GET', 'v1/model');
  }

  portraits() {
    return this.#json('GET', 'v1/portraits');
  }

  /** @param {Blob} picture PNG, JPEG or WebP */
  upload(picture) {
    return this.#json('POST', 'v1/portraits', {
      body: picture, type: picture.type || 'application/octet-stream', bearer: this.key,
    });
  }

  createSession(options) {
    return this.#json('POST', 'v1/sessions', { json: options, bearer: this.key });
  }

  session(id, token) {
    return this.#json('GET', `v1/sessions/${id}`, { bearer: token });
  }

  start(id, token) {
    return this.#json('POST', `v1/sessions/${id}/start`, { json: { wait: true }, bearer: token });
  }

  offer(id, token, description) {
    const { sdp, type } = description;
    return this.#json('POST', `v1/sessions/${id}/offer`, { json: { sdp, type }, bearer: token });
  }

  renew(id, token) {
    return this.#json('POST', `v1/sessions/${id}/token`, { bearer: token });
  }

  /** Also while the page goes away: the request outlives it. */
  stop(id, token) {
    return this.#json('POST', `v1/sessions/${id}/stop`, { bearer: token, keepalive: true });
  }

  async #json(method, path, { json, body, type, bearer, keepalive } = {}) {
    const headers = {};
    if (bearer) headers.Authorization = `Bearer ${bearer}`;
    if (json !== undefined) headers['Content-Type'] = 'application/json';
    else if (type) headers['Content-Type'] = type;
    let response;
    try {
      response = await fetch(address(path), {
        method, headers, keepalive, body: json === undefined ? body : JSON.stringify(json),
      });
    } catch {
      throw new Problem({ status: 0, code: 'offline', title: 'The server cannot be reached' });
    }
    if (!response.ok) throw await refusal(response);
    return response.status === 204 ? {} : response.json();
  }
}

async function refusal(response) {
  const fields = await response.json().catch(() => ({}));
  return new Problem({ code: 'failed', title: response.statusText, ...fields, status: response.status });
}
