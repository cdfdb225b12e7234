// Tells the person what is wrong (an alert) and what goes on (a polite status line).

import { remedyFor } from './remedies.js';

export class Notice {
  /** @param {HTMLElement} alert box of an error @param {HTMLElement} status live region */
  constructor(alert, status) {
    this.alert = alert;
    this.status = status;
    alert.querySelector('button').addEventListener('click', () => this.clear());
  }

  /** Show what was refused, in the server's words, and the remedy in ours. */
  show(problem) {
    const code = problem.code ?? 'failed';
    const title = sentence(problem.detail || problem.title || problem.message || 'Something went wrong');
    const retry = problem.retryAfterS ? ` Try again in ${Math.ceil(problem.retryAfterS)} s.` : '';
    this.alert.querySelector('.alert-title').textContent = title;
    this.alert.querySelector('.alert-remedy').textContent = remedyFor(code) + retry;
    this.alert.dataset.code = code;
    this.alert.hidden = false;
  }

  clear() {
    this.alert.hidden = true;
  }

  /** Say in passing what happens now; the same words twice are said once. */
  say(text) {
    if (this.status.textContent !== text) this.status.textContent = text;
  }
}

function sentence(text) {
  const trimmed = text.trim();
  const first = trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}
