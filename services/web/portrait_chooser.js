// The cast as thumbnails, and a place for a picture of one's own.

import { Problem, address } from './api.js';

/** Fires `chosen` (detail: {title, url}) and `refused` (detail: Problem). */
export class PortraitChooser extends EventTarget {
  #own = null;
  #limits = { max_bytes: Infinity, types: [] };

  /** @param {HTMLElement} root @param {import('./api.js').Api} api */
  constructor(root, api) {
    super();
    this.root = root;
    this.api = api;
    this.list = root.querySelector('.cast');
    this.input = root.querySelector('input[type=file]');
    this.input.addEventListener('change', () => this.#take(this.input.files[0]));
    this.list.addEventListener('change', () => this.#announce());
    acceptDrops(root, (file) => this.#take(file));
  }

  /** Fill the list; the first of the cast is chosen. */
  fill({ portraits, ...limits }) {
    this.#limits = { ...this.#limits, ...limits };
    this.list.replaceChildren(...portraits.map((portrait) => card(
      portrait.name, portrait.title, address(portrait.thumbnail),
    )));
    const first = this.list.querySelector('input');
    if (first) first.checked = true;
    this.#announce();
  }

  /** Name for the server; a picture of one's own is uploaded first, once. */
  async portrait() {
    const chosen = this.#chosen();
    if (!chosen || chosen.value !== 'own') return chosen?.value;
    this.#own.name ??= (await this.api.upload(this.#own.file)).portrait;
    return this.#own.name;
  }

  /** Uploads are forgotten after a while: upload it again next time. */
  forget() {
    if (this.#own) this.#own.name = null;
  }

  #take(file) {
    if (!file) return;
    const { max_bytes: maxBytes, types } = this.#limits;
    if (types.length && !types.includes(file.type)) return this.#refuse('wrong_type', 'That is no picture the server can use');
    if (file.size > maxBytes) return this.#refuse('too_large', `Pictures may have ${Math.floor(maxBytes / 2 ** 20)} MB`);
    if (this.#own) URL.revokeObjectURL(this.#own.url);
    this.#own = { file, name: null, url: URL.createObjectURL(file) };
    this.list.querySelector('[value=own]')?.closest('label').remove();
    this.list.prepend(card('own', 'Your picture', this.#own.url));
    const radio = this.list.querySelector('[value=own]');
    radio.checked = true;
    radio.focus();
    return this.#announce();
  }

  #refuse(code, title) {
    const problem = new Problem({ status: 0, code, title });
    this.dispatchEvent(new CustomEvent('refused', { detail: problem }));
  }

  #chosen() {
    return this.list.querySelector('input:checked');
  }

  #announce() {
    const chosen = this.#chosen();
    if (!chosen) return;
    const label = chosen.closest('label');
    const detail = { title: chosen.dataset.title, url: label.querySelector('img').src };
    this.dispatchEvent(new CustomEvent('chosen', { detail }));
  }
}

/** One portrait: a radio button in the shape of its picture. */
function card(value, title, url) {
  const label = document.createElement('label');
  const radio = Object.assign(document.createElement('input'), { type: 'radio', name: 'portrait', value });
  radio.dataset.title = title;
  const image = Object.assign(document.createElement('img'), { src: url, alt: '', width: 96, height: 96, loading: 'lazy' });
  const name = document.createElement('span');
  name.textContent = title.split(',')[0];
  label.title = title;
  radio.setAttribute('aria-label', title);
  label.append(radio, image, name);
  return label;
}

/** Call `take` with a file dropped anywhere on `element`. */
export function acceptDrops(element, take) {
  const mark = (isOver) => { element.classList.toggle('is-over', isOver); };
  element.addEventListener('dragover', (event) => { event.preventDefault(); mark(true); });
  element.addEventListener('dragleave', () => mark(false));
  element.addEventListener('drop', (event) => {
    event.preventDefault();
    mark(false);
    take(event.dataTransfer.files[0]);
  });
}
