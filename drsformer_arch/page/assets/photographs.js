"use strict";
// Picture files as people have them, as a part of the worker engine.js: read upright, written with what belongs to them.

class Problem extends Error {} // its message is for people

const namedDamage = (error) => {
  throw error instanceof Problem || isOutOfMemory(error) ? error : new Problem("it is damaged");
};
const isOutOfMemory = (error) => /memory|alloc|too large|array length|abort/i.test(String(error?.message ?? error));

/** The type of a file by its content: names are often wrong. What is not written as it came becomes a PNG. */
function typeOf(bytes) {
  if (bytes[0] === 0xff && bytes[1] === 0xd8) return "image/jpeg";
  return ascii(bytes.subarray(0, 4)) === "RIFF" && ascii(bytes.subarray(8, 12)) === "WEBP" ? "image/webp" : "image/png";
}

/** Whether a WebP, AVIF or GIF holds several pictures, of which a browser would give the first. */
function isAnimation(bytes) {
  if (typeOf(bytes) === "image/webp") return ascii(bytes.subarray(12, 16)) === "VP8X" && (bytes[20] & 2) > 0;
  if (ascii(bytes.subarray(4, 12)) === "ftypavis") return true;
  if (ascii(bytes.subarray(0, 4)) !== "GIF8") return false;
  const table = (flags) => (flags & 0x80 ? 3 << ((flags & 7) + 1) : 0); // bytes of its colours
  let pictures = 0;
  for (let at = 13 + table(bytes[10]); bytes[at] === 0x21 || bytes[at] === 0x2c; at++) {
    if (bytes[at] === 0x2c) {
      pictures++;
      at += 11 + table(bytes[at + 9]);
    } else at += 2;
    while (bytes[at]) at += 1 + bytes[at];
  }
  return pictures > 1;
}

const KINDS = { "image/jpeg": "jpg", "image/webp": "webp", "image/png": "png" };
const QUALITY = 0.95;
const STRIP = 1024; // rows that a canvas holds at once: canvases have limits of their own

/** Read a file: {type, width, height, channels, bits, samples, alpha, profile, exif, notes}, upright. */
async function readPhotograph(file, largest) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  if (!bytes.length) throw new Problem("it is empty");
  if (isAnimation(bytes)) throw new Problem("it is an animation");
  return { type: typeOf(bytes), ...(await decoded(file, bytes, largest)) };
}

async function decoded(file, bytes, largest) {
  const isPng = SIGNATURE.every((value, at) => bytes[at] === value);
  if (isPng) {
    const chunks = chunksOf(bytes);
    const header = headerOf(chunks);
    refuseLarge(header, largest);
    if (chunks.has("acTL")) throw new Problem("it is an animation");
    const [exif = null] = chunks.get("eXIf") ?? [];
    if (!header.interlaced) {
      const picture = await decodePng(chunks);
      const [profile = null] = await Promise.all((chunks.get("iCCP") ?? []).map(unpackedProfile));
      return upright({ ...picture, profile: fitting(profile, picture.channels), exif, notes: [] });
    }
    const notes = header.bits === 16 ? ["its 16 bits became 8, as it is an interlaced PNG"] : [];
    return { ...(await byBrowser(file, null)), profile: null, exif: null, notes };
  }
  const jpeg = bytes[0] === 0xff && bytes[1] === 0xd8 ? readJpeg(bytes) : null;
  if (jpeg) refuseLarge(jpeg, largest);
  const profile = fitting(jpeg?.profile, jpeg?.channels === 1 ? 1 : 3);
  const picture = await byBrowser(file, jpeg, profile);
  refuseLarge(picture, largest);
  const exif = jpeg?.exif ? withoutOrientation(jpeg.exif).exif : null;
  return { ...picture, profile, exif, notes: [] };
}

function refuseLarge({ width, height }, largest) {
  const millions = (width * height) / 1e6;
  if (!width || !height) throw new Problem("it is damaged: it has no pixels");
  if (millions > largest)
    throw new Problem(`it has ${Math.round(millions)} megapixels; this page takes up to ${largest}`);
}

async function unpackedProfile(data) {
  const start = data.indexOf(0) + 2; // after its name and the method
  return zlib(data.subarray(start), DecompressionStream).catch(() => null); // the picture counts more
}

/** The profile, if its colours are those of the pixels. */
function fitting(profile, channels) {
  const space = profile && ascii(profile.subarray(16, 20));
  return space === (channels === 3 ? "RGB " : "GRAY") ? profile : null;
}

/** What the segments of a JPEG say: size, number of channels, notes of the camera, colour profile. */
function readJpeg(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const found = { width: 0, height: 0, channels: 3, exif: null, profile: null };
  const pieces = [];
  for (let at = 2; at + 4 <= bytes.length; ) {
    const mark = view.getUint16(at);
    if (mark === 0xffff) at++;
    if (mark === 0xffff) continue;
    const body = bytes.subarray(at + 4, at + 2 + view.getUint16(at + 2));
    if (mark === 0xffda || mark < 0xff01) break; // pixels
    if (mark === 0xffe1 && ascii(body.subarray(0, 6)) === "Exif\0\0") found.exif ??= body.slice(6);
    if (mark === 0xffe2 && ascii(body.subarray(0, 12)) === "ICC_PROFILE\0") pieces[body[12]] = body.slice(14);
    if (mark >= 0xffc0 && mark <= 0xffcf && ![0xffc4, 0xffc8, 0xffcc].includes(mark) && body.length > 5)
      Object.assign(found, { height: (body[1] << 8) | body[2], width: (body[3] << 8) | body[4], channels: body[5] });
    at += 2 + view.getUint16(at + 2);
  }
  const whole = pieces.filter(Boolean);
  if (whole.length) {
    found.profile = new Uint8Array(whole.reduce((sum, piece) => sum + piece.length, 0));
    whole.reduce((at, piece) => (found.profile.set(piece, at), at + piece.length), 0);
  }
  return found;
}

/** The notes of a camera with orientation "upright", and the one that they had. */
function withoutOrientation(exif) {
  const copy = exif.slice();
  const view = new DataView(copy.buffer);
  try {
    const little = view.getUint16(0) === 0x4949;
    const start = view.getUint32(4, little);
    for (let entry = 0; entry < view.getUint16(start, little); entry++) {
      const at = start + 2 + 12 * entry;
      if (view.getUint16(at, little) !== 0x0112) continue;
      const orientation = view.getUint16(at + 8, little);
      view.setUint16(at + 8, 1, little);
      return { exif: copy, orientation };
    }
  } catch {
    return { exif: null, orientation: 1 }; // damaged
  }
  return { exif: copy, orientation: 1 };
}

/** Turn and mirror a picture as its notes say. */
function upright(picture) {
  if (!picture.exif) return picture;
  const { exif, orientation } = withoutOrientation(picture.exif);
  if (!(orientation >= 2 && orientation <= 8)) return { ...picture, exif };
  const { width, height } = picture;
  const turned = orientation >= 5;
  const [w, h] = turned ? [height, width] : [width, height];
  const source = {
    2: (x, y) => [width - 1 - x, y],
    3: (x, y) => [width - 1 - x, height - 1 - y],
    4: (x, y) => [x, height - 1 - y],
    5: (x, y) => [y, x],
    6: (x, y) => [y, height - 1 - x],
    7: (x, y) => [width - 1 - y, height - 1 - x],
    8: (x, y) => [width - 1 - y, x],
  }[orientation];
  const moved = (samples, channels) => {
    const result = new samples.constructor(samples.length);
    for (let y = 0, to = 0; y < h; y++) {
      for (let x = 0; x < w; x++) {
        const [u, v] = source(x, y);
        for (let c = 0; c < channels; c++) result[to++] = samples[(v * width + u) * channels + c];
      }
    }
    return result;
  };
  const samples = moved(picture.samples, picture.channels);
  return { ...picture, width: w, height: h, samples, alpha: picture.alpha && moved(picture.alpha, 1), exif };
}

/** Whatever else the browser shows, upright, in 8 bits; colours as they are stored where their profile is kept. */
async function byBrowser(file, jpeg, profile = null) {
  const options = { premultiplyAlpha: "none", colorSpaceConversion: profile ? "none" : "default" };
  const bitmap = await createImageBitmap(file, options).catch((error) => {
    if (isOutOfMemory(error)) throw error;
    throw new Problem("this browser cannot read it: it is damaged or of an unknown kind");
  });
  const { width, height } = bitmap;
  const channels = jpeg?.channels === 1 ? 1 : 3;
  const samples = new Uint8ClampedArray(width * height * channels);
  let alpha = jpeg ? null : new Uint8ClampedArray(width * height);
  for (let top = 0; top < height; top += STRIP) {
    const rows = Math.min(STRIP, height - top);
    const context = new OffscreenCanvas(width, rows).getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, -top);
    const { data } = context.getImageData(0, 0, width, rows);
    for (let at = 0, to = top * width; at < data.length; at += 4, to++) {
      for (let c = 0; c < channels; c++) samples[to * channels + c] = data[at + c];
      if (alpha) alpha[to] = data[at + 3];
    }
  }
  bitmap.close();
  if (alpha?.every((value) => value === 255)) alpha = null;
  return { width, height, channels, bits: 8, samples, alpha };
}

/** Write a picture in the format in which it came, where the browser can, or as PNG: {blob, suffix, notes}. */
async function writePhotograph(picture, type) {
  if (type !== "image/png" && KINDS[type]) {
    const blob = await byCanvas(picture, type).catch(() => null);
    if (blob) return { blob: type === "image/jpeg" ? await withNotes(blob, picture) : blob, suffix: KINDS[type], notes: [] };
  }
  const notes = type === "image/png" ? [] : ["saved as PNG, as this browser does not write what it came as"];
  return { blob: await encodePng(picture), suffix: "png", notes };
}

/** The file that a canvas makes; null where it cannot, or cannot hold so many pixels. */
async function byCanvas({ width, height, channels, samples, alpha }, type) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (let top = 0; top < height; top += STRIP) {
    const part = new ImageData(width, Math.min(STRIP, height - top));
    for (let at = 0, from = top * width; at < part.data.length; at += 4, from++) {
      for (let c = 0; c < 3; c++) part.data[at + c] = samples[from * channels + (channels === 3 ? c : 0)];
      part.data[at + 3] = alpha ? alpha[from] : 255;
    }
    context.putImageData(part, 0, top);
  }
  if (!alpha && context.getImageData(width - 1, height - 1, 1, 1).data[3] !== 255) return null;
  const blob = await canvas.convertToBlob({ type, quality: QUALITY });
  return blob.type === type ? blob : null;
}

/** A JPEG with the notes and the colour profile of its source. */
async function withNotes(blob, { exif, profile }) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const afterHead = bytes[2] === 0xff && bytes[3] === 0xe0 ? 4 + ((bytes[4] << 8) | bytes[5]) : 2;
  const segment = (mark, ...parts) => {
    const length = 2 + parts.reduce((sum, part) => sum + part.length, 0);
    return [new Uint8Array([0xff, mark, length >> 8, length & 255]), ...parts];
  };
  const text = (letters) => new TextEncoder().encode(letters);
  const added = [];
  if (exif && exif.length < 65000) added.push(...segment(0xe1, text("Exif\0\0"), exif));
  const size = 65000;
  const count = Math.ceil((profile?.length ?? 0) / size);
  for (let at = 0; at < count && count < 256; at++) {
    const number = new Uint8Array([at + 1, count]);
    added.push(...segment(0xe2, text("ICC_PROFILE\0"), number, profile.subarray(at * size, (at + 1) * size)));
  }
  let rest = afterHead;
  // Browsers write a profile of their own.
  while (count && bytes[rest] === 0xff && bytes[rest + 1] === 0xe2) rest += 2 + ((bytes[rest + 2] << 8) | bytes[rest + 3]);
  return new Blob([bytes.subarray(0, afterHead), ...added, bytes.subarray(rest)], { type: blob.type });
}
