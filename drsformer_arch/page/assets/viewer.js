"use strict";
// Two pictures with a divider between them: what the scripts of all pages begin with.

const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = (selector, root = document) => root.querySelector(selector);
const copy = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);
const made = (name, properties) => Object.assign(document.createElement(name), properties);
const clamped = (value, low, high) => Math.min(high, Math.max(low, value));

// ---- one picture, two sides, a divider ----

let groups = 0; // a name for every group of radio buttons

/** Radio buttons in a row; returns the element and what checks one of them. */
function segments(legend, options, pick) {
  const root = made("fieldset", { className: "segments" });
  root.append(made("legend", { textContent: legend }));
  const name = `group-${groups++}`;
  const inputs = options.map(([value, text]) => {
    const input = made("input", { type: "radio", name, value });
    const label = made("label");
    input.addEventListener("change", () => pick(value));
    label.append(input, text);
    root.append(label);
    return input;
  });
  const check = (value) => inputs.forEach((input) => (input.checked = input.value === String(value)));
  return { root, check };
}

/** What shows a picture: {name, width, height, kinds, load(kind), which gives a blob URL}. */
class Viewer {
  constructor(picture, sides, { chooses = true } = {}) {
    this.picture = picture;
    this.root = copy("viewer-template");
    this.stage = one(".stage", this.root);
    this.window = one(".window", this.root);
    this.layers = one(".layers", this.root);
    this.divider = one(".divider", this.root);
    this.input = one("input", this.root);
    this.urls = new Map(); // kind → promise of a blob URL, only while shown
    this.visible = false;
    this.at = 0.5; // the divider, of the window's width
    this.zoom = 0; // pixels of the page per pixel of the picture; 0: it fits
    this.stage.style.setProperty("--width", picture.width);
    this.stage.style.setProperty("--height", picture.height);
    this.input.setAttribute("aria-label", `${picture.name}: divider`);
    this.input.addEventListener("input", () => this.divide(this.input.value / 100));
    this.window.addEventListener("scroll", () => this.cut(), { passive: true });
    this.resized = new ResizeObserver(() => this.cut());
    this.resized.observe(this.window);
    this.listen();
    const options = picture.kinds.map((kind) => [kind, kind]);
    this.choices = ["left", "right"].map((side, index) =>
      segments(side, options, (kind) => this.choose(this.sides.with(index, kind))),
    );
    if (chooses && options.length > 1) one(".sides", this.root).append(...this.choices.map(({ root }) => root));
    this.choose(sides);
  }

  images() {
    return [one("img.left", this.root), one("img.right", this.root)];
  }

  /** Say what is on the left and on the right; twice the same is one whole picture. */
  choose(sides) {
    this.sides = sides;
    const single = sides[0] === sides[1];
    this.stage.classList.toggle("single", single);
    this.images().forEach((image, index) => {
      image.alt = `${this.picture.name}, ${sides[index]}`;
      const badge = one(`.badge.${index ? "right" : "left"}`, this.root);
      badge.textContent = sides[index];
      badge.hidden = this.picture.kinds.length === 1;
      this.choices[index].check(sides[index]);
    });
    const legend = one(".legend", this.root);
    if (legend) legend.hidden = !sides.includes("residual");
    this.divide(this.at);
    if (this.visible) this.show();
  }

  /** Decode what is on the two sides, and nothing else. */
  async show() {
    this.visible = true;
    for (const kind of this.sides) {
      if (!this.urls.has(kind)) this.urls.set(kind, this.picture.load(kind));
      const url = await this.urls.get(kind);
      if (!this.urls.has(kind)) return; // released meanwhile
      this.images().forEach((image, index) => {
        if (this.sides[index] === kind && image.getAttribute("src") !== url) image.src = url;
      });
    }
    this.forget((kind) => !this.sides.includes(kind));
  }

  release() {
    this.visible = false;
    this.images().forEach((image) => image.removeAttribute("src"));
    this.forget(() => true);
  }

  forget(which) {
    for (const [kind, url] of [...this.urls]) {
      if (!which(kind)) continue;
      this.urls.delete(kind);
      url.then(URL.revokeObjectURL);
    }
  }

  close() {
    this.release();
    this.resized.disconnect();
  }

  /** Move the divider, 0 to 1. */
  divide(at) {
    this.at = clamped(at, 0, 1);
    const percent = Math.round(100 * this.at);
    if (Number(this.input.value) !== percent) this.input.value = percent;
    const [left, right] = this.sides;
    this.input.setAttribute("aria-valuetext", `${percent} % ${left}, ${100 - percent} % ${right}`);
    this.stage.style.setProperty("--at", `${100 * this.at}%`);
    this.cut();
  }

  /** Clip the left picture at the divider, which stays where it is when a zoomed picture moves below it. */
  cut() {
    let cut = `${100 * this.at}%`;
    if (this.zoom) {
      const [view, layers] = [this.window, this.layers].map((element) => element.getBoundingClientRect().left);
      cut = `${view + this.at * this.stage.clientWidth - layers}px`;
    }
    this.stage.style.setProperty("--cut", cut);
  }

  /** Show a pixel of the picture as `zoom` pixels of the page, around the same centre; 0: as large as fits. */
  magnify(zoom) {
    const view = this.window;
    const before = this.layers.getBoundingClientRect();
    const box = view.getBoundingClientRect();
    const x = (box.left + box.width / 2 - before.left) / before.width;
    const y = (box.top + box.height / 2 - before.top) / before.height;
    this.zoom = zoom;
    this.stage.classList.toggle("zoomed", zoom > 0);
    this.stage.classList.toggle("large", zoom > 1);
    this.stage.style.setProperty("--zoom", zoom);
    if (zoom) {
      view.tabIndex = 0; // arrow keys scroll
      view.setAttribute("role", "group");
      view.setAttribute("aria-label", `${this.picture.name}, zoomed`);
      const { width, height } = this.picture;
      const to = { left: x * width * zoom - view.clientWidth / 2, top: y * height * zoom - view.clientHeight / 2 };
      view.scrollTo({ ...to, behavior: "instant" });
    } else {
      for (const name of ["tabindex", "role", "aria-label"]) view.removeAttribute(name);
    }
    this.cut();
  }

  /** Mouse, pen and touch: drag anywhere on a picture that fits; a zoomed one moves, its divider by its handle. */
  listen() {
    let drag = null;
    this.stage.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      const single = this.stage.classList.contains("single");
      drag = null;
      if (!single && (!this.zoom || event.target === this.divider)) drag = this.dividing();
      else if (this.zoom && event.pointerType === "mouse") drag = this.panning(event); // touch scrolls by itself
      if (!drag) return;
      if (event.pointerType !== "touch") {
        event.preventDefault(); // no selection, no focus elsewhere
        drag.move(event); // a touch may still become a scroll of the page
      }
      this.stage.setPointerCapture(event.pointerId);
    });
    this.stage.addEventListener("pointermove", (event) => drag?.move(event));
    this.stage.addEventListener("pointerup", (event) => {
      drag?.move(event);
      drag = null;
    });
    this.stage.addEventListener("pointercancel", () => {
      drag?.undo();
      drag = null;
    });
  }

  dividing() {
    const before = this.at;
    const box = this.stage.getBoundingClientRect();
    this.input.focus({ preventScroll: true });
    return {
      move: (event) => this.divide((event.clientX - box.left) / box.width),
      undo: () => this.divide(before),
    };
  }

  panning({ clientX, clientY }) {
    const { scrollLeft, scrollTop } = this.window;
    const to = (left, top) => this.window.scrollTo({ left, top, behavior: "instant" });
    return {
      move: (event) => to(scrollLeft + clientX - event.clientX, scrollTop + clientY - event.clientY),
      undo: () => to(scrollLeft, scrollTop),
    };
  }
}
