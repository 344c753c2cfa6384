"use strict";
// PNG in and out, as a part of the worker engine.js: a canvas would make 8 bits of 16 and change colours below alpha.

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];
const CHANNELS = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 }; // of the colour types
const ascii = (bytes) => String.fromCharCode(...bytes);

/** Pack or unpack bytes by the zlib format; `length`, where it is known, is all that is taken. */
async function zlib(bytes, Stream, length = Infinity) {
  const stream = new Blob([bytes]).stream().pipeThrough(new Stream("deflate"));
  const parts = [];
  let total = 0;
  for (const reader = stream.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    total += value.length;
    if (total > length) throw new Problem("it is damaged: it holds more than it says");
  }
  if (length < Infinity && total < length) throw new Problem("it is damaged: a part is missing");
  const whole = new Uint8Array(total);
  parts.reduce((at, part) => (whole.set(part, at), at + part.length), 0);
  return whole;
}

/** The chunks of a PNG by their names; those of pixels follow one another. */
function chunksOf(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const chunks = new Map();
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at);
    const name = ascii(bytes.subarray(at + 4, at + 8));
    if (at + 12 + length > bytes.length) throw new Problem("it is damaged: it is cut off");
    chunks.set(name, [...(chunks.get(name) ?? []), bytes.subarray(at + 8, at + 8 + length)]);
    at += 12 + length;
    if (name === "IEND") return chunks;
  }
  throw new Problem("it is damaged: it is cut off");
}

/** Width, height, bits and kind of a PNG. */
function headerOf(chunks) {
  const [header] = chunks.get("IHDR") ?? [];
  if (header?.length !== 13) throw new Problem("it is damaged: it has no header");
  const view = new DataView(header.buffer, header.byteOffset, 13);
  const [bits, type, , , interlaced] = header.subarray(8);
  return { width: view.getUint32(0), height: view.getUint32(4), bits, type, interlaced };
}

/** Undo the filters of the rows in place; returns the rows one after the other. */
function unfiltered(data, height, stride, step) {
  const rows = new Uint8Array(height * stride);
  let above = new Uint8Array(stride);
  for (let y = 0; y < height; y++) {
    const filter = data[y * (stride + 1)];
    const from = data.subarray(y * (stride + 1) + 1, (y + 1) * (stride + 1));
    const to = rows.subarray(y * stride, (y + 1) * stride);
    if (filter > 4) throw new Problem("it is damaged");
    for (let x = 0; x < stride; x++) {
      const left = x < step ? 0 : to[x - step];
      if (filter === 0) to[x] = from[x];
      else if (filter === 1) to[x] = from[x] + left;
      else if (filter === 2) to[x] = from[x] + above[x];
      else if (filter === 3) to[x] = from[x] + ((left + above[x]) >> 1);
      else to[x] = from[x] + paeth(left, above[x], x < step ? 0 : above[x - step]);
    }
    above = to;
  }
  return rows;
}

function paeth(left, above, corner) {
  const a = Math.abs(above - corner);
  const b = Math.abs(left - corner);
  const c = Math.abs(left + above - 2 * corner);
  return a <= b && a <= c ? left : b <= c ? above : corner;
}

/** Samples of fewer than 8 bits, one per byte. */
function spread(rows, width, height, stride, bits) {
  const samples = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const shift = 8 - bits - ((x * bits) & 7);
      samples[y * width + x] = (rows[y * stride + ((x * bits) >> 3)] >> shift) & ((1 << bits) - 1);
    }
  }
  return samples;
}

/** A picture of PNG's chunks: samples (height, width, channels), 1 or 3 of them, and alpha beside them, or null. */
async function decodePng(chunks) {
  const { width, height, bits, type } = headerOf(chunks);
  const channels = CHANNELS[type];
  if (!channels || ![1, 2, 4, 8, 16].includes(bits)) throw new Problem("it is damaged");
  const stride = Math.ceil((width * channels * bits) / 8);
  const packed = await new Blob(chunks.get("IDAT") ?? []).arrayBuffer();
  const data = await zlib(packed, DecompressionStream, height * (stride + 1)).catch(namedDamage);
  let samples = unfiltered(data, height, stride, Math.max(1, (channels * bits) >> 3));
  if (bits < 8) samples = spread(samples, width, height, stride, bits);
  if (bits === 16) {
    const view = new DataView(samples.buffer);
    samples = Uint16Array.from({ length: samples.length / 2 }, (_, index) => view.getUint16(2 * index));
  }
  const picture = { width, height, channels: 1, bits: Math.max(8, bits), samples, alpha: null };
  const [transparent] = chunks.get("tRNS") ?? [];
  if (type === 3) return withColours(picture, chunks.get("PLTE")?.[0] ?? [], transparent);
  if (transparent?.length >= 2 * channels && channels % 2) picture.alpha = alphaOf(picture, channels, transparent);
  if (bits < 8) samples.forEach((value, at) => (samples[at] = (value * 255) / ((1 << bits) - 1)));
  if (channels === 3) picture.channels = 3;
  return channels % 2 ? picture : withoutAlpha(picture, channels);
}

/** Alpha of a picture of which one colour is transparent. */
function alphaOf({ samples, bits }, channels, key) {
  const view = new DataView(key.buffer, key.byteOffset, key.length);
  const colour = Array.from({ length: channels }, (_, c) => view.getUint16(2 * c));
  const is = (at) => colour.every((value, c) => samples[at * channels + c] === value);
  const opaque = 2 ** bits - 1;
  return samples.constructor.from({ length: samples.length / channels }, (_, at) => (is(at) ? 0 : opaque));
}

function withColours(picture, palette, transparent) {
  const count = picture.samples.length;
  const colours = new Uint8Array(3 * count);
  const alpha = transparent ? new Uint8Array(count) : null;
  picture.samples.forEach((index, at) => {
    for (let c = 0; c < 3; c++) colours[3 * at + c] = palette[3 * index + c];
    if (alpha) alpha[at] = transparent[index] ?? 255;
  });
  return { ...picture, channels: 3, samples: colours, alpha };
}

/** Move the last of `channels` out of the samples. */
function withoutAlpha(picture, channels) {
  const { samples } = picture;
  const count = samples.length / channels;
  const colours = new samples.constructor(count * (channels - 1));
  const alpha = new samples.constructor(count);
  for (let at = 0; at < count; at++) {
    for (let c = 0; c < channels - 1; c++) colours[at * (channels - 1) + c] = samples[at * channels + c];
    alpha[at] = samples[at * channels + channels - 1];
  }
  return { ...picture, channels: channels - 1, samples: colours, alpha };
}

const CRC = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

function chunk(name, ...parts) {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  const bytes = new Uint8Array(12 + length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, length);
  bytes.set([...name].map((letter) => letter.charCodeAt(0)), 4);
  parts.reduce((at, part) => (bytes.set(part, at), at + part.length), 8);
  let crc = ~0;
  for (let at = 4; at < 8 + length; at++) crc = (crc >>> 8) ^ CRC[(crc ^ bytes[at]) & 255];
  view.setUint32(8 + length, ~crc);
  return bytes;
}

/** PNG of a picture as decodePng makes them, with its colour profile and notes. */
async function encodePng({ width, height, channels, bits, samples, alpha, profile, exif }) {
  const all = channels + (alpha ? 1 : 0);
  const wide = bits >> 3; // bytes of a sample
  const stride = width * all * wide;
  const data = new Uint8Array(height * (stride + 1));
  let above = new Uint8Array(stride);
  let row = new Uint8Array(stride);
  for (let y = 0; y < height; y++) {
    for (let x = 0, at = 0; x < width; x++) {
      for (let c = 0; c < all; c++) {
        const place = y * width + x;
        const value = c < channels ? samples[place * channels + c] : alpha[place];
        if (wide === 2) row[at++] = value >> 8;
        row[at++] = value;
      }
    }
    const start = y * (stride + 1);
    const step = all * wide;
    data[start] = 4; // the filter that suits photographs
    for (let x = 0; x < stride; x++) {
      const guess = x < step ? paeth(0, above[x], 0) : paeth(row[x - step], above[x], above[x - step]);
      data[start + 1 + x] = row[x] - guess;
    }
    [above, row] = [row, above];
  }
  const header = new Uint8Array(13);
  new DataView(header.buffer).setUint32(0, width);
  new DataView(header.buffer).setUint32(4, height);
  header.set([bits, (channels === 3 ? 2 : 0) + (alpha ? 4 : 0), 0, 0, 0], 8);
  const parts = [new Uint8Array(SIGNATURE), chunk("IHDR", header)];
  if (profile) {
    const name = new TextEncoder().encode("ICC profile\0\0");
    parts.push(chunk("iCCP", name, await zlib(profile, CompressionStream)));
  }
  if (exif) parts.push(chunk("eXIf", exif));
  parts.push(chunk("IDAT", await zlib(data, CompressionStream)), chunk("IEND"));
  return new Blob(parts, { type: "image/png" });
}
