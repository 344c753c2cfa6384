// The page that derains, behind viewer.js. What computes lies in the page as inert text and becomes a worker.

const settings = JSON.parse(one("#settings").textContent);
const text = (id) => document.getElementById(id).textContent;

// ---- what this browser can ----

// The smallest program with a 128-bit value.
const SIMD = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11];

/** Why this browser cannot run the network; "" where it can. */
function lacking() {
  if (typeof WebAssembly === "undefined") return "WebAssembly";
  if (!WebAssembly.validate(new Uint8Array(SIMD))) return "WebAssembly with SIMD";
  const needed = { DecompressionStream: "DecompressionStream", OffscreenCanvas: "OffscreenCanvas", Worker: "workers" };
  return Object.keys(needed).find((name) => typeof globalThis[name] === "undefined") ?? "";
}

/** How much is computed at once: memory is what browsers run out of, on phones above all. */
function limits() {
  const cores = navigator.hardwareConcurrency ?? 2;
  const small = (navigator.deviceMemory ?? (matchMedia("(pointer: coarse)").matches ? 4 : 8)) <= 4;
  const pixels = small ? settings.pixels / 4 : settings.pixels;
  // Where threads are allowed one network uses them all; elsewhere several networks share the tiles.
  if (crossOriginIsolated) return { pixels, count: 1, threads: Math.max(1, Math.min(8, cores)) };
  return { pixels, count: small ? 1 : clamped(Math.floor(cores / 2), 1, 4), threads: 1 };
}

// ---- the worker ----

const packed = settings.parts.map((id) => {
  const content = text(id);
  document.getElementById(id).remove();
  return content;
});

const engine = {
  worker: null,
  current: null, // the picture that it derains
  queue: [],
  saves: new Map(), // of pictures by their number: they take a second, so none waits for a picture that takes minutes
  broken: "", // why it runs nothing

  start() {
    const url = URL.createObjectURL(new Blob([text("engine")], { type: "text/javascript" }));
    this.worker = new Worker(url);
    this.worker.onmessage = ({ data }) => this.hear(data);
    this.worker.onerror = (event) => {
      event.preventDefault();
      this.broken = `this browser cannot run the network${event.message ? `: ${event.message}` : ""}`;
      for (const id of this.saves.keys()) this.hear({ id, state: "unsaved", line: this.broken });
      this.hear({ state: "failed", line: this.broken });
    };
    this.worker.postMessage({ settings: { ...settings, ...limits(), code: text("network") }, packed });
    for (const task of this.saves.values()) this.post(task);
  },

  post({ hear, ...task }) {
    this.worker.postMessage(task); // a function does not travel
  },

  ask(task) {
    this.queue.push(task);
    this.next();
  },

  save(task) {
    this.saves.set(task.id, task);
    if (this.broken) this.hear({ id: task.id, state: "unsaved", line: this.broken });
    else if (this.worker) this.post(task);
    else this.start();
  },

  next() {
    if (this.current || !this.queue.length) return;
    if (!this.worker) this.start();
    this.current = this.queue.shift();
    if (this.broken) {
      this.hear({ state: "failed", line: this.broken });
      return;
    }
    this.post(this.current);
  },

  hear(data) {
    if (["saved", "unsaved"].includes(data.state)) {
      const save = this.saves.get(data.id);
      this.saves.delete(data.id);
      save?.hear(data);
      return;
    }
    const { current } = this;
    const ends = ["done", "failed"].includes(data.state);
    if (ends) this.current = null;
    current?.hear(data);
    if (ends) this.next();
  },

  /** Forget a task; one that is running ends with its worker, and the next begins with a new one. */
  cancel(id) {
    this.queue = this.queue.filter((task) => task.id !== id);
    this.saves.delete(id);
    if (this.current?.id !== id) return;
    this.worker.terminate();
    this.worker = this.current = null;
    if (this.saves.size) this.start();
    this.next();
  },
};

// ---- one picture ----

const status = one("[role=status]");
const NAMES = { "image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WebP" };
let last = 0; // the number of the last picture
let pace = settings.seconds; // per pixel that the network sees
let learned = false; // from a picture: before, it is a guess that nobody should read

/** A viewer whose right side lets the rain shine through as the strength says. */
class Derained extends Viewer {
  async show() {
    await super.show();
    const rainy = await this.urls.get("rainy");
    if (rainy) this.layers.style.backgroundImage = `url("${rainy}")`;
  }

  strengthen(share) {
    one("img.right", this.root).style.opacity = share;
  }
}

class Picture {
  constructor(file) {
    this.id = ++last;
    this.file = file;
    this.name = file.name || `pasted picture ${this.id}`;
    this.kinds = ["rainy", "derained"];
    this.root = copy("picture-template");
    this.form = one("form", this.root);
    this.bar = one("progress", this.root);
    this.source = URL.createObjectURL(file);
    one("h3", this.root).textContent = this.name;
    this.bar.setAttribute("aria-label", `${this.name}: progress`);
    this.bar.value = 0;
    this.listen();
    this.say("waiting");
    engine.ask({ task: "derain", id: this.id, file, hear: (data) => this.hear(data) });
  }

  /** Blob URLs for the viewer, which revokes them. */
  async load(kind) {
    return URL.createObjectURL(kind === "rainy" ? this.file : this.shown);
  }

  say(words) {
    one(".notes", this.root).textContent = words;
  }

  hear(data) {
    const { state } = data;
    if (state === "opened") this.opened(data);
    else if (state === "working") this.advanceTo(data);
    else if (state === "done") this.finish(data);
    else this.fail(data);
  }

  opened({ width, height, pixels }) {
    Object.assign(this, { width, height, pixels });
    const image = one(".waiting", this.root);
    Object.assign(image, { src: this.source, alt: `${this.name}, rainy`, width, height, hidden: false });
    image.style.setProperty("--width", width);
    image.style.setProperty("--height", height);
    this.say("getting ready");
  }

  advanceTo({ done, of }) {
    this.since = performance.now();
    Object.assign(this, { done, of });
    this.begun ??= this.since;
    this.timer ??= setInterval(() => this.advance(), 200);
    this.advance();
  }

  /** Move the bar, also within a part, by the time that it should take. */
  advance() {
    const expected = (1000 * pace * this.pixels) / this.of;
    const within = this.done < this.of ? 0.95 * (1 - Math.exp((this.since - performance.now()) / expected)) : 0;
    this.bar.value = (this.done + within) / this.of;
    const left = Math.ceil((expected * (this.of - this.done) - (performance.now() - this.since)) / 1000);
    const parts = this.of > 1 ? ["deraining", `${this.done} of ${this.of} parts`] : ["deraining"];
    if (learned && left > 0) parts.push(left < 90 ? `about ${left} s left` : `about ${Math.round(left / 60)} min left`);
    this.say(parts.join(" · "));
  }

  end() {
    clearInterval(this.timer);
    this.timer = undefined;
    const [cancel, remove] = [".cancel", ".remove"].map((name) => one(name, this.root));
    const focused = document.activeElement === cancel;
    cancel.hidden = true;
    remove.hidden = false;
    if (focused) remove.focus(); // else the keyboard would begin at the top again
    this.bar.hidden = true;
    one(".place", this.root).replaceChildren();
    URL.revokeObjectURL(this.source);
  }

  finish({ blob, suffix, notes, result, width, height, tile, type }) {
    const seconds = (performance.now() - this.begun) / 1000;
    pace = seconds / this.pixels;
    learned = this.pixels > 10_000; // what small ones take says little
    this.end();
    Object.assign(this, { shown: blob, result, suffix, seconds, tile, type });
    this.say([`${width}×${height}`, `${seconds.toFixed(1)} s`, ...notes].join(" · "));
    status.textContent = `${this.name} is derained`;
    this.viewer = new Derained(this, this.kinds, { chooses: false });
    one(".place", this.root).append(this.viewer.root);
    this.viewer.show();
    const types = [...new Set([this.type, "image/png"])];
    this.form.elements.format.append(...types.map((type) => new Option(NAMES[type], type)));
    one(".format", this.root).hidden = types.length < 2;
    this.form.hidden = one(".zoom", this.root).hidden = false;
    this.root.classList.add("finished");
  }

  fail({ line }) {
    this.end();
    this.root.classList.add("failed");
    this.say(line);
    status.textContent = `${this.name}: ${line}`;
  }

  listen() {
    const { strength, format } = this.form.elements;
    const named = (name, words) => one(name, this.root).setAttribute("aria-label", `${words} ${this.name}`);
    named(".cancel", "Cancel");
    named(".remove", "Remove");
    named(".save", "Save");
    named(".zoom", "1:1,");
    const zoom = one(".zoom", this.root);
    zoom.addEventListener("click", () => {
      this.viewer.magnify(this.viewer.zoom ? 0 : 1);
      zoom.setAttribute("aria-pressed", this.viewer.zoom > 0);
    });
    strength.setAttribute("aria-label", `Strength, ${this.name}`);
    format.setAttribute("aria-label", `Format of ${this.name}`);
    strength.addEventListener("input", () => {
      one("output", this.form).value = `${strength.value} %`;
      this.viewer.strengthen(strength.value / 100);
    });
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.save();
    });
    one(".cancel", this.root).addEventListener("click", () => this.remove());
    one(".remove", this.root).addEventListener("click", () => this.remove());
  }

  save() {
    const { strength, format } = this.form.elements;
    if (Number(strength.value) === 100 && format.value === this.type) {
      this.download(this.shown, this.suffix);
      return;
    }
    const button = one(".save", this.root);
    button.disabled = true;
    const { id, file, result } = this;
    const hear = (data) => {
      button.disabled = false;
      if (data.state === "saved") this.download(data.blob, data.suffix);
      else this.say(data.line);
    };
    engine.save({ task: "save", id, file, result, type: format.value, strength: strength.value / 100, hear });
  }

  download(blob, suffix) {
    const stem = this.name.replace(/\.[^.]*$/, "");
    const link = made("a", { href: URL.createObjectURL(blob), download: `${stem}-derained.${suffix}` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // browsers read it by and by
    status.textContent = `${link.download} is saved`;
  }

  remove() {
    engine.cancel(this.id);
    this.viewer?.close(); // before it leaves the page: Chromium keeps all of a viewer that is closed afterwards
    this.end();
    const next = this.root.nextElementSibling ?? this.root.previousElementSibling;
    this.root.remove();
    (one("button:not([hidden])", next ?? undefined) ?? one("input[name=pictures]")).focus();
    status.textContent = `${this.name} is removed`;
  }
}

// ---- how pictures come in ----

function take(files) {
  const pictures = [...files].filter((file) => file.type.startsWith("image/") || !file.type);
  const others = [...files].filter((file) => !pictures.includes(file));
  one(".problems").replaceChildren(
    ...others.map(({ name }) => made("li", { className: "problem", textContent: `${name} is no picture` })),
  );
  one(".pictures").prepend(...pictures.map((file) => new Picture(file).root));
}

function listen() {
  for (const input of all("input[type=file]")) {
    input.addEventListener("change", () => {
      take(input.files);
      input.value = ""; // the same file may be chosen again
    });
  }
  one(".camera").hidden = !matchMedia("(pointer: coarse)").matches;
  let depth = 0; // of elements below what is dragged
  const dragged = (change) => (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    depth = change(depth);
    document.body.classList.toggle("dragged", depth > 0);
  };
  addEventListener("dragenter", dragged((at) => at + 1));
  addEventListener("dragleave", dragged((at) => at - 1));
  addEventListener("dragover", dragged((at) => at));
  addEventListener("drop", (event) => {
    dragged(() => 0)(event);
    take(event.dataTransfer?.files ?? []);
  });
  addEventListener("paste", (event) => take(event.clipboardData?.files ?? []));
}

const lack = lacking();
if (lack) {
  const line = `This browser has no ${lack}, which the network needs. A current Chrome, Edge, Firefox or Safari has it.`;
  one(".problems").append(made("li", { className: "problem", textContent: line }));
  one(".drop").hidden = true;
} else {
  listen();
  engine.start();
}
