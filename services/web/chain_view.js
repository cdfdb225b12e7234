// Draws the chain as it runs: a lane for each stage, a bar for each chunk, now at the right.

const WINDOW_MS = 4000;
const LANE_PX = 30;
const GAP_PX = 6;
const LABEL_PX = 92;
const CALM = matchMedia('(prefers-reduced-motion: reduce)');

export class ChainView {
  #isRunning = false;

  /** @param {HTMLCanvasElement} canvas @param {HTMLElement} words @param {import('./chain_track.js').ChainTrack} track */
  constructor(canvas, words, track) {
    this.canvas = canvas;
    this.words = words;
    this.track = track;
    this.latency = 0;
    new ResizeObserver(() => this.draw()).observe(canvas.parentElement);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.draw());
  }

  start() {
    if (this.#isRunning) return;
    this.#isRunning = true;
    this.#next();
  }

  stop() {
    this.#isRunning = false;
    this.draw();
  }

  /** Once a second, for those who read instead of looking. */
  describe() {
    this.words.textContent = this.track.describe();
  }

  draw(nowMs = performance.now()) {
    const pen = this.#prepared();
    if (!pen) return;
    const { width, colours } = pen;
    this.track.stages.forEach((stage, lane) => this.#lane(pen, stage, lane));
    const scale = (width - LABEL_PX) / WINDOW_MS;
    for (const span of this.track.within(WINDOW_MS, nowMs)) {
      const left = Math.max(LABEL_PX, width - span.beganAgoMs * scale);
      const right = Math.min(width, width - span.endedAgoMs * scale);
      this.#bar(pen, span, left, Math.max(3, right - left), colours);
    }
  }

  /** Moving pictures only for those who want them; the others see it once a second. */
  #next() {
    if (!this.#isRunning) return;
    this.draw();
    if (CALM.matches) setTimeout(() => this.#next(), 1000);
    else requestAnimationFrame(() => this.#next());
  }

  #prepared() {
    const width = this.canvas.parentElement.clientWidth;
    const height = Math.max(1, this.track.stages.length) * (LANE_PX + GAP_PX) - GAP_PX;
    if (!width) return null;
    const ratio = devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
      this.canvas.style.height = `${height}px`;
    }
    const context = this.canvas.getContext('2d');
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const style = getComputedStyle(this.canvas);
    const colour = (name) => style.getPropertyValue(name).trim();
    const colours = {
      ink: colour('--ink'), soft: colour('--soft'), lane: colour('--lane'),
      chunks: [colour('--chunk-a'), colour('--chunk-b'), colour('--chunk-c'), colour('--chunk-d')],
      onChunk: colour('--on-chunk'),
    };
    context.font = `500 11.5px ${style.fontFamily}`;
    context.textBaseline = 'middle';
    return { context, width, height, colours };
  }

  #lane({ context, width, colours }, stage, lane) {
    const top = lane * (LANE_PX + GAP_PX);
    context.fillStyle = colours.lane;
    rounded(context, LABEL_PX, top, width - LABEL_PX, LANE_PX, 8);
    context.fillStyle = colours.soft;
    context.textAlign = 'left';
    // Stages are told apart by a number in front; here their order says it.
    const label = shortened(context, stage.replace(/^\d+-/, ''), LABEL_PX - 10);
    context.fillText(label, 0, top + LANE_PX / 2);
  }

  #bar({ context }, span, left, width, colours) {
    const top = this.track.stages.indexOf(span.stage) * (LANE_PX + GAP_PX);
    context.fillStyle = colours.chunks[span.chunk % colours.chunks.length];
    rounded(context, left, top + 3, width, LANE_PX - 6, Math.min(6, width / 2));
    const label = String(span.chunk);
    if (context.measureText(label).width + 2 > width) return;
    context.fillStyle = colours.onChunk;
    context.textAlign = 'center';
    context.fillText(label, left + width / 2, top + LANE_PX / 2);
  }
}

function rounded(context, x, y, width, height, radius) {
  context.beginPath();
  context.roundRect(x, y, width, height, radius);
  context.fill();
}

function shortened(context, text, width) {
  let cut = text;
  while (cut.length > 1 && context.measureText(cut).width > width) cut = cut.slice(0, -1);
  return cut === text ? text : `${cut.slice(0, -1)}…`;
}
