"use strict";
// The worker behind the page: pictures in, derained ones out. Behind png.js and photographs.js in the same worker.
// It mirrors tiling.py and working_scale.py of drsformer_arch/restore, so that results are those of `drsformer derain`.

const SMALLEST_TILE = 64;
const MOST = { 8: 255, 16: 65535, 32: 1 }; // the largest sample by its bits; 32: a fraction
const ROUND = { 8: (value) => value, 16: Math.round, 32: (value) => value }; // an array of 8 bits rounds by itself
const ARRAYS = { 8: Uint8ClampedArray, 16: Uint16Array, 32: Float32Array };

// ---- sizes, as tiling.py has them ----

const upTo = (length, multiple) => Math.ceil(length / multiple) * multiple;

function evenTile(length, largest, overlap, multiple) {
  if (length <= largest) return length;
  const count = Math.ceil((length - overlap) / (largest - overlap));
  return Math.min(upTo(Math.ceil((length + (count - 1) * overlap) / count), multiple), largest);
}

function tileStarts(length, tile, overlap) {
  const starts = [];
  for (let at = 0; at < length - tile; at += tile - overlap) starts.push(at);
  return [...starts, Math.max(length - tile, 0)];
}

/** Share of a tile that starts at each of `starts`, at each of its pixels: they add up to 1 everywhere. */
function shares(length, tile, overlap, starts) {
  const ramp = Float32Array.from({ length: tile }, (_, at) => Math.min(at + 1, tile - at, overlap + 1));
  const sums = new Float32Array(length);
  for (const start of starts) ramp.forEach((weight, at) => (sums[start + at] += weight));
  return starts.map((start) => ramp.map((weight, at) => weight / sums[start + at]));
}

/** Side of the tiles for so many pixels at once, at most the network's own side; 0: the picture whole. */
function tileFor({ width, height }, pixels, own) {
  const fits = width * height <= pixels ? 0 : Math.max(Math.floor(Math.sqrt(pixels) / 8) * 8, SMALLEST_TILE);
  return Math.min(fits || own, own || fits);
}

/** Tiles of a picture, row by row, each with the shares of its rows and columns. */
function planOf({ width, height }, tile, { multiple, overlap: widest }) {
  const whole = !tile || (width <= tile && height <= tile);
  const overlap = whole ? 0 : Math.min(widest, Math.floor(tile / 4));
  const [rows, columns] = [height, width].map((side) => (whole ? side : evenTile(side, tile, overlap, multiple)));
  const [tops, lefts] = [tileStarts(height, rows, overlap), tileStarts(width, columns, overlap)];
  const [down, across] = [shares(height, rows, overlap, tops), shares(width, columns, overlap, lefts)];
  const tiles = tops.flatMap((top, i) =>
    lefts.map((left, j) => ({ top, left, rows, columns, down: down[i], across: across[j] })),
  );
  return { tiles, rows, tops };
}

// ---- from samples to what the network takes, and back ----

/** Where a padded axis takes its samples: the picture is reflected, or its border repeated where it is small. */
const places = (length, padded, reflect) =>
  Int32Array.from({ length: padded }, (_, at) => (at < length ? at : reflect ? 2 * (length - 1) - at : length - 1));

/** Planes (3, H, W) in [0, 1] of a tile, padded below and to the right; gray counts as R = G = B. */
function planesOf({ width, channels, bits, samples }, { top, left, rows, columns }, { multiple, smallest }) {
  const sides = [rows, columns];
  const first = sides.map((side) => Math.max(side, smallest));
  const last = first.map((side) => upTo(side, multiple));
  const reflects = (from, to) => from.every((side, axis) => to[axis] - side < side);
  // Twice, as tiling.py does: up to the smallest size, then to the multiple.
  const [ys, xs] = sides.map((side, axis) => {
    const inner = places(side, first[axis], reflects(sides, first));
    return places(first[axis], last[axis], reflects(first, last)).map((at) => inner[at]);
  });
  const [h, w] = last;
  const planes = new Float32Array(3 * h * w);
  const most = MOST[bits];
  for (let y = 0, to = 0; y < h; y++) {
    const row = (top + ys[y]) * width + left;
    for (let x = 0; x < w; x++, to++) {
      const at = (row + xs[x]) * channels;
      for (let c = 0; c < 3; c++) planes[c * h * w + to] = samples[at + (channels === 3 ? c : 0)] / most;
    }
  }
  return { planes, shape: [1, 3, h, w] };
}

const clampedFraction = (value) => (value < 0 ? 0 : value > 1 ? 1 : value); // NaN stays

/** Collects the results of tiles in their order; only as many rows as they overlap are kept as fractions. */
class Canvas {
  constructor({ width, height, channels, bits }, { rows, tops }) {
    Object.assign(this, { width, height, channels, bits, tops, rows });
    this.band = new Float32Array(rows * width * 3);
    this.samples = new ARRAYS[bits](width * height * channels);
  }

  add({ top, left, rows, columns, down, across }, planes, [, , h, w]) {
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++) {
        const share = down[y] * across[x];
        const to = (y * this.width + left + x) * 3;
        for (let c = 0; c < 3; c++) this.band[to + c] += planes[c * h * w + y * w + x] * share;
      }
    }
    if (left + columns === this.width) this.finish(top);
  }

  /** Round the rows that no later tile reaches, and move the others up. */
  finish(top) {
    const next = this.tops[this.tops.indexOf(top) + 1] ?? this.height;
    const { band, bits, channels, samples } = this;
    const count = (next - top) * this.width;
    const most = MOST[bits];
    const rounded = ROUND[bits];
    const clamped = bits === 32 ? (value) => value : clampedFraction;
    for (let at = 0, to = top * this.width * channels; at < count; at++) {
      const [r, g, b] = [clamped(band[3 * at]), clamped(band[3 * at + 1]), clamped(band[3 * at + 2])];
      if (Number.isNaN(r + g + b)) throw new Problem("the network returned no numbers for it");
      if (channels === 1) samples[to++] = rounded(((r + g + b) / 3) * most);
      else {
        samples[to++] = rounded(r * most);
        samples[to++] = rounded(g * most);
        samples[to++] = rounded(b * most);
      }
    }
    band.copyWithin(0, 3 * count);
    band.fill(0, band.length - 3 * count);
  }
}

// ---- large pictures, whose rain is looked for at a smaller size ----

function scaleFor({ width, height }, largest) {
  let scale = 1;
  while (largest && width * height * scale ** 2 > largest) scale /= 2;
  return scale;
}

/** The picture at a smaller size, as fractions in three channels: each sample the mean of those that it covers. */
function shrunk({ width, height, channels, bits, samples }, scale) {
  const [w, h] = [width, height].map((side) => Math.max(Math.floor(side * scale + 0.5), 1));
  const covered = (length, count) =>
    Array.from({ length: count }, (_, at) => [Math.floor((at * length) / count), Math.ceil(((at + 1) * length) / count)]);
  const [rows, columns] = [covered(height, h), covered(width, w)];
  const small = new Float32Array(3 * w * h);
  const sums = new Float64Array(3 * w);
  rows.forEach(([top, bottom], row) => {
    sums.fill(0);
    for (let y = top; y < bottom; y++) {
      columns.forEach(([left, right], column) => {
        for (let x = left; x < right; x++) {
          const at = (y * width + x) * channels;
          for (let c = 0; c < 3; c++) sums[3 * column + c] += samples[at + (channels === 3 ? c : 0)];
        }
      });
    }
    columns.forEach(([left, right], column) => {
      const share = 1 / ((bottom - top) * (right - left) * MOST[bits]);
      for (let c = 0; c < 3; c++) small[3 * (row * w + column) + c] = sums[3 * column + c] * share;
    });
  });
  return { width: w, height: h, channels: 3, bits: 32, samples: small };
}

/** A picture less the rain, enlarged, that its smaller one lost. */
function withoutRain({ width, height, channels, bits, samples }, small, derained) {
  const rain = small.samples.map((value, at) => value - derained[at]);
  const between = (length, count) =>
    Array.from({ length }, (_, at) => {
      const place = Math.max(((at + 0.5) * count) / length - 0.5, 0);
      const first = Math.floor(place);
      return [3 * first, 3 * Math.min(first + 1, count - 1), place - first];
    });
  const columns = between(width, small.width);
  const result = new ARRAYS[bits](samples.length);
  const most = MOST[bits];
  const rounded = ROUND[bits];
  const line = new Float32Array(3 * small.width);
  let to = 0;
  for (const [top, bottom, down] of between(height, small.height)) {
    const [above, below] = [top * small.width, bottom * small.width];
    for (let at = 0; at < line.length; at++) line[at] = rain[above + at] + down * (rain[below + at] - rain[above + at]);
    for (const [left, right, across] of columns) {
      let sum = 0;
      for (let c = 0; c < 3; c++) {
        const drops = line[left + c] + across * (line[right + c] - line[left + c]);
        const value = clampedFraction(samples[channels === 3 ? to + c : to] / most - drops);
        if (channels === 3) result[to + c] = rounded(value * most);
        else sum += value;
      }
      if (channels === 1) result[to] = rounded((sum / 3) * most);
      to += channels;
    }
  }
  return result;
}

// ---- the network, in workers of its own ----

let parts = null; // {code, runtime, wasm, model, count, threads, ...} of the page
let crew = []; // workers with the network, each {worker, free, run}

function hired() {
  const url = URL.createObjectURL(new Blob([parts.code], { type: "text/javascript" }));
  const worker = new Worker(url);
  const { runtime, wasm, model, threads } = parts;
  const answers = [];
  const ask = (message, moved = []) =>
    new Promise((resolve, reject) => {
      answers.push([resolve, reject]);
      worker.postMessage(message, moved);
    });
  worker.onmessage = ({ data }) => {
    const [resolve, reject] = answers.shift();
    if (data.error === undefined) resolve(data);
    else reject(new Error(data.error));
  };
  worker.onerror = (event) => {
    event.preventDefault();
    for (const [, reject] of answers.splice(0)) reject(new Error(event.message || "the worker failed"));
  };
  const ready = ask({ runtime, wasm, model, threads }).finally(() => URL.revokeObjectURL(url));
  return { worker, ready, run: (tile) => ask(tile, [tile.planes.buffer]) };
}

function dismiss() {
  for (const { worker } of crew.splice(0)) worker.terminate();
}

/** Run the tiles of a picture, some at a time, and put their results together in order. */
async function restored(picture, plan, report) {
  const { tiles } = plan;
  const count = Math.min(parts.count, tiles.length);
  while (crew.length < count) crew.push(hired());
  const used = crew.slice(0, count);
  await Promise.all(used.map(({ ready }) => ready));
  const canvas = new Canvas(picture, plan);
  report(0, tiles.length);
  const running = [];
  const begin = (index) => {
    const input = planesOf(picture, tiles[index], parts);
    const { shape } = input;
    const result = used[index % count].run(input).then(({ planes }) => ({ planes, shape }));
    result.catch(() => {}); // it is awaited in its turn
    running.push(result);
  };
  for (let index = 0; index < count; index++) begin(index);
  for (let index = 0; index < tiles.length; index++) {
    const { planes, shape } = await running[index];
    running[index] = null;
    if (index + count < tiles.length) begin(index + count);
    canvas.add(tiles[index], planes, shape);
    report(index + 1, tiles.length);
  }
  return canvas.samples;
}

// ---- what the page asks for ----

async function derain({ id, file }) {
  const picture = await readPhotograph(file, parts.largest);
  const { width, height } = picture;
  const scale = scaleFor(picture, parts.largestWhole);
  const seen = scale === 1 ? picture : shrunk(picture, scale);
  postMessage({ id, state: "opened", width, height, pixels: seen.width * seen.height });
  for (let pixels = parts.pixels; ; ) {
    const tile = tileFor(seen, pixels, parts.tile);
    const report = (done, of) => postMessage({ id, state: "working", done, of });
    try {
      const derained = await restored(seen, planOf(seen, tile, parts), report);
      const samples = seen === picture ? derained : withoutRain(picture, seen, derained);
      const written = await writePhotograph({ ...picture, samples }, picture.type);
      const result = new Blob([samples]);
      const notes = [...picture.notes, ...written.notes];
      if (scale < 1) notes.push(`rain was looked for at 1/${1 / scale} of its size`);
      const { type } = picture;
      postMessage({ id, state: "done", ...written, notes, result, tile, width, height, type });
      return;
    } catch (error) {
      if (!isOutOfMemory(error)) throw error;
      dismiss(); // memory that a worker took stays taken
      pixels = Math.floor(Math.min(pixels, seen.width * seen.height) / 4);
      Object.assign(parts, { pixels, count: 1 }); // for the next ones, too
      if (pixels < SMALLEST_TILE ** 2) throw error;
    }
  }
}

/** Write a result again, in another format, or with a share of the rain put back; also while another is derained. */
async function save({ id, file, type, result, strength }) {
  const picture = await readPhotograph(file, parts.largest);
  const buffer = await result.arrayBuffer();
  const derained = picture.bits === 16 ? new Uint16Array(buffer) : new Uint8ClampedArray(buffer);
  if (strength < 1) {
    const { samples } = picture;
    for (let at = 0; at < derained.length; at++)
      derained[at] = Math.round(samples[at] + strength * (derained[at] - samples[at]));
  }
  postMessage({ id, state: "saved", ...(await writePhotograph({ ...picture, samples: derained }, type)) });
}

/** The line for people that an error deserves. */
function lineOf(error) {
  if (error instanceof Problem) return error.message;
  if (isOutOfMemory(error)) return "there is not enough memory for it; close other tabs, or take a smaller one";
  return `it cannot be derained here: ${error?.message ?? error}`;
}

async function unpacked(text) {
  const letters = atob(text.trim());
  const bytes = new Uint8Array(letters.length);
  for (let at = 0; at < letters.length; at++) bytes[at] = letters.charCodeAt(at);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).blob();
}

async function start({ settings, packed }) {
  const [runtime, wasm, model] = await Promise.all(packed.map(unpacked));
  parts = { ...settings, runtime, wasm, model };
  crew.push(hired()); // it starts while people choose pictures
  crew[0].ready.catch(() => {}); // said when a picture needs it
}

const TASKS = { derain, save };
let started = null; // the promise of it

self.onmessage = async ({ data }) => {
  try {
    if (data.settings) await (started = start(data));
    else {
      await started;
      await TASKS[data.task](data);
    }
  } catch (error) {
    if (isOutOfMemory(error) && data.task === "derain") dismiss();
    const state = data.task === "save" ? "unsaved" : "failed";
    postMessage({ id: data.id, state, line: lineOf(error) });
  }
};
