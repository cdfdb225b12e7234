// Sound as the server hears it: 16-bit mono samples, little-endian, in base64.

import { Problem } from './api.js';

export const SAMPLE_RATE = 24_000;

/** Decode a sound file of any kind the browser knows to 16-bit mono. Raises a Problem. */
export async function decode(file) {
  const context = new OfflineAudioContext(1, 1, SAMPLE_RATE);
  let buffer;
  try {
    buffer = await context.decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new Problem({ status: 0, code: 'bad_sound', title: `${file.name} is no sound this browser knows` });
  }
  return toPcm(mixed(buffer));
}

/** Mean of the channels. */
function mixed(buffer) {
  const sum = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel += 1) {
    const samples = buffer.getChannelData(channel);
    for (let i = 0; i < sum.length; i += 1) sum[i] += samples[i] / buffer.numberOfChannels;
  }
  return sum;
}

export function toPcm(samples) {
  return Int16Array.from(samples, (x) => Math.round(Math.max(-1, Math.min(1, x)) * 32767));
}

/** Every computer with a browser stores the low byte first, as the server wants it. */
export function base64(pcm) {
  const bytes = new Uint8Array(pcm.buffer, pcm.byteOffset, pcm.byteLength);
  let text = '';
  for (let i = 0; i < bytes.length; i += 8192) {
    text += String.fromCharCode(...bytes.subarray(i, i + 8192));
  }
  return btoa(text);
}
