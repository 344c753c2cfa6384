// The page of results, behind viewer.js. No dependencies. The pictures lie behind it in the file as inert text, `data-INDEX-KIND`.

const parsed = new Promise((resolve) => {
  if (document.readyState !== "loading") resolve();
  else document.addEventListener("DOMContentLoaded", () => resolve());
});

// ---- pictures: what the rows of the table say of them ----

const number = (text) => (text ? Number(text.replace("inf", "Infinity")) : NaN); // NaN: missing

const pictures = all("tbody tr").map((row, index) => ({
  index,
  row,
  name: row.dataset.name,
  kinds: row.dataset.kinds.split(" "),
  width: Number(row.dataset.width),
  height: Number(row.dataset.height),
  notes: row.dataset.notes,
  values: all("td[data-value]", row).map((cell) => number(cell.dataset.value)),
  load: (kind) => decoded(index, kind),
}));

/** A blob URL of one of a picture's files; waits for the part of the page in which it lies. */
async function decoded(index, kind) {
  const id = `data-${index}-${kind}`;
  if (!document.getElementById(id)) await parsed;
  const text = atob(document.getElementById(id).textContent);
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) bytes[at] = text.charCodeAt(at);
  return URL.createObjectURL(new Blob([bytes], { type: "image/webp" }));
}

// ---- what can stand beside what ----

const PAIRS = [
  ["rainy", "result"],
  ["target", "result"],
  ["result", "residual"],
  ["residual", "residual"],
  ["result", "result"],
];
const pairsOf = (picture) => PAIRS.filter((pair) => pair.every((kind) => picture.kinds.includes(kind)));

// ---- the gallery ----

const gallery = one(".gallery");

const cards = pictures.map((picture) => {
  const root = copy("card-template");
  const viewer = new Viewer(picture, pairsOf(picture)[0]);
  root.id = `picture-${picture.index}`;
  one("h3", root).textContent = picture.name;
  one(".notes", root).textContent = picture.notes;
  root.append(viewer.root);
  const zoom = one(".zoom", root);
  zoom.setAttribute("aria-label", `1:1, ${picture.name}`);
  zoom.addEventListener("click", () => {
    viewer.magnify(viewer.zoom ? 0 : 1);
    zoom.setAttribute("aria-pressed", viewer.zoom > 0);
  });
  const enlarge = one(".enlarge", root);
  enlarge.setAttribute("aria-label", `Enlarge ${picture.name}`);
  enlarge.addEventListener("click", () => lightbox.open(picture, viewer.sides));
  return { picture, root, viewer, enlarge };
});

const near = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      const { viewer } = cards[Number(target.id.slice("picture-".length))];
      if (isIntersecting) viewer.show();
      else viewer.release();
    }
  },
  { rootMargin: "75% 0px" },
);

// ---- order and filter ----

const collator = new Intl.Collator("en", { numeric: true });

/** Compares pictures by a score, or by name where `column` is -1; missing scores come last either way. */
function by(column, direction) {
  return (a, b) => {
    if (column < 0) return direction * collator.compare(a.name, b.name);
    const [x, y] = [a.values[column], b.values[column]];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
    return x === y ? 0 : direction * (x < y ? -1 : 1);
  };
}

const tools = one(".tools");
const { filter, order, by: score, show, shown } = tools.elements;
const headers = all("thead th[aria-sort]"); // the name's, then one per score
let ordered = cards; // filtered ones included

/** Put the table and the gallery into the chosen order. */
function arrange() {
  const named = order.value === "name" || order.value === "eman";
  const lowerIsBetter = score.selectedOptions[0]?.dataset.better === "lower";
  const column = named ? -1 : Number(score.value);
  const ascending = named ? order.value === "name" : (order.value === "worst") !== lowerIsBetter;
  const compare = by(column, ascending ? 1 : -1);
  ordered = [...cards].sort((a, b) => compare(a.picture, b.picture));
  one("tbody").append(...ordered.map(({ picture }) => picture.row));
  gallery.append(...ordered.map(({ root }) => root));
  score.closest("label").hidden = named;
  headers.forEach((header, index) => {
    header.setAttribute("aria-sort", index - 1 !== column ? "none" : ascending ? "ascending" : "descending");
  });
}

headers.forEach((header, index) => {
  one("button", header).addEventListener("click", () => {
    const ascending = header.getAttribute("aria-sort") !== "ascending";
    if (index === 0) order.value = ascending ? "name" : "eman";
    else {
      score.value = index - 1;
      const lowerIsBetter = score.selectedOptions[0].dataset.better === "lower";
      order.value = ascending !== lowerIsBetter ? "worst" : "best";
    }
    arrange();
  });
});

function sift() {
  const text = filter.value.trim().toLowerCase();
  for (const { picture, root } of cards) {
    root.hidden = picture.row.hidden = !picture.name.toLowerCase().includes(text);
  }
  const count = cards.filter(({ root }) => !root.hidden).length;
  shown.value = text ? `${count} of ${cards.length}` : "";
  one(".nothing").hidden = count > 0;
  one(".table").hidden = count === 0;
}

// ---- one picture over everything ----

const lightbox = {
  dialog: document.getElementById("lightbox"),
  viewer: null,

  open(picture, sides) {
    this.dialog.showModal();
    this.place(picture, sides);
    one(".next", this.dialog).focus();
  },

  /** The cards that are shown, and where in them this picture is. */
  around() {
    const list = ordered.filter(({ root }) => !root.hidden);
    return [list, list.findIndex(({ picture }) => picture === this.viewer?.picture)];
  },

  place(picture, sides) {
    const zoom = this.viewer?.zoom ?? 0;
    this.viewer?.close();
    const has = sides.every((kind) => picture.kinds.includes(kind));
    this.viewer = new Viewer(picture, has ? sides : pairsOf(picture)[0]);
    const magnify = (value) => {
      this.viewer.magnify(value);
      zooms.check(value);
    };
    const zooms = segments(
      "zoom",
      [
        [0, "fit"],
        [1, "1:1"],
        [2, "2:1"],
        [4, "4:1"],
      ],
      magnify,
    );
    one(".sides", this.viewer.root).append(zooms.root);
    document.getElementById("lightbox-title").textContent = picture.name;
    const [list, at] = this.around();
    one(".place", this.dialog).textContent = `${at + 1} of ${list.length}`;
    one(".previous", this.dialog).disabled = at === 0;
    one(".next", this.dialog).disabled = at === list.length - 1;
    const notes = made("p", { className: "notes", textContent: picture.notes });
    one(".body", this.dialog).replaceChildren(notes, this.viewer.root);
    magnify(zoom);
    this.viewer.show();
  },

  step(by) {
    const [list, at] = this.around();
    if (!list[at + by]) return;
    this.place(list[at + by].picture, this.viewer.sides);
    if (!this.dialog.contains(document.activeElement)) one(".close", this.dialog).focus(); // the other one is disabled
  },

  listen() {
    one(".previous", this.dialog).addEventListener("click", () => this.step(-1));
    one(".next", this.dialog).addEventListener("click", () => this.step(1));
    one(".close", this.dialog).addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -1, PageDown: 1 }[event.key];
      // In the slider, the choices and a zoomed picture, arrow keys have a meaning of their own.
      if (!step || (event.key.startsWith("Arrow") && event.target.closest("input, .window"))) return;
      event.preventDefault();
      this.step(step);
    });
    this.dialog.addEventListener("close", () => {
      const { picture } = this.viewer;
      this.viewer.close();
      this.viewer = null;
      one(".body", this.dialog).replaceChildren();
      cards[picture.index].enlarge.focus(); // where one is now, not where one was
    });
  },
};

// ---- training curves ----

const svg = (name, attributes = {}) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
};

const COLOURS = 6;
const SMOOTH_FROM = 200; // points, above which a line of means is drawn over them
const DOTS_TO = 40; // points, up to which each gets a dot

const shortened = (value) => {
  const size = Math.abs(value);
  if (size && (size < 1e-3 || size >= 1e6)) return Number(value.toPrecision(3)).toExponential().replace("e+", "e");
  return String(Number(value.toPrecision(4)));
};

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

/** Means of neighbouring points, about 100 of them. */
function smoothed(points) {
  const size = Math.ceil(points.length / 100);
  const groups = Array.from({ length: Math.ceil(points.length / size) }, (_, at) =>
    points.slice(at * size, (at + 1) * size),
  );
  return groups.map((group) => [0, 1].map((axis) => mean(group.map((point) => point[axis]))));
}

/** Round positions between low and high: about `count` even ones, or 1, 2 and 5 of every power of ten. */
function ticks(low, high, count, logarithmic) {
  if (logarithmic) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
      found.push(...[1, 2, 5].map((digit) => Number(`${digit}e${power}`)));
    }
    const inside = found.filter((value) => value >= low && value <= high);
    const decades = inside.filter((value) => /^1e/.test(value.toExponential().replace(".0", "")));
    if (inside.length >= 2) return inside.length > 2 * count && decades.length > 1 ? decades : inside;
  }
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((digit) => digit * power >= rough);
  const found = [];
  for (let at = Math.ceil(low / step); at * step <= high * (1 + 1e-12); at++)
    found.push(Number((at * step).toPrecision(12)));
  return found;
}

class Panel {
  constructor({ name, unit, runs }) {
    this.runs = runs;
    this.root = made("figure", { className: "panel" });
    const points = runs.flatMap((run) => run.points);
    this.iterations = [...new Set(points.map(([iteration]) => iteration))].sort((a, b) => a - b);
    const [first, last] = [this.iterations[0], this.iterations.at(-1)];
    this.x = [first > last / 2 && first < last ? first : 0, last];
    const [low, high] = points.reduce(
      ([a, b], [, value]) => [Math.min(a, value), Math.max(b, value)],
      [Infinity, -Infinity],
    );
    const isLoss = /loss/i.test(name);
    this.logarithmic = isLoss && low > 0 && high / low >= 4;
    this.smooth = isLoss && runs.some((run) => run.points.length > SMOOTH_FROM);
    const room = (high - low || Math.abs(high) || 1) * 0.06;
    this.y = this.logarithmic ? [low / 1.1, high * 1.1] : [low - room, high + room];

    const title = made("h3", { textContent: name });
    const notes = [unit, this.logarithmic ? "log scale" : "", this.smooth ? "bold: means" : ""]
      .filter(Boolean)
      .join(", ");
    if (notes) title.append(made("span", { className: "unit", textContent: ` (${notes})` }));
    this.plot = svg("svg", { role: "img", tabindex: 0 });
    this.readings = runs.map(() => made("output"));
    const list = made("ul");
    runs.forEach(({ run }, index) => {
      const item = made("li");
      const sample = svg("svg", { viewBox: "0 0 28 8", "aria-hidden": "true" });
      sample.append(svg("path", { class: `run-${index % COLOURS}`, d: "M1 4H27" }));
      item.append(sample, `${run} `, this.readings[index]);
      list.append(item);
    });
    this.at = made("p", { className: "at" });
    this.root.append(title, this.plot, list, this.at);
    const ends = runs.map((run) => `${run.run} ends at ${shortened(run.points.at(-1)[1])}`).join(", ");
    this.plot.setAttribute("aria-label", `${name} over iterations: ${ends}. Arrow keys read values.`);
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  draw() {
    const { width, height } = this.plot.getBoundingClientRect();
    if (!width) return;
    this.box = { left: 56, right: width - 12, top: 10, bottom: height - 24 };
    const { left, right, top, bottom } = this.box;
    const scale = this.logarithmic ? Math.log10 : (value) => value;
    const along = (value, [low, high]) => (high > low ? (value - low) / (high - low) : 0.5);
    const ends = this.y.map(scale);
    this.toX = (value) => left + along(value, this.x) * (right - left);
    this.toY = (value) => bottom - along(scale(value), ends) * (bottom - top);
    this.cursor = svg("g");
    this.plot.replaceChildren(
      ...this.axes(width),
      ...this.runs.flatMap((run, index) => this.line(run, index)),
      this.cursor,
    );
    this.read(null);
  }

  axes(width) {
    const { left, right, top, bottom } = this.box;
    const text = (content, attributes) => Object.assign(svg("text", attributes), { textContent: content });
    const across = ticks(...this.y, 5, this.logarithmic).flatMap((value) => {
      const y = this.toY(value);
      const line = svg("path", { class: "grid", d: `M${left} ${y}H${right}` });
      return [line, text(shortened(value), { x: left - 8, y: y + 4, "text-anchor": "end" })];
    });
    const up = ticks(...this.x, Math.max(2, width / 90), false).flatMap((value) => {
      const x = this.toX(value);
      const line = svg("path", { class: "grid", d: `M${x} ${top}V${bottom}` });
      const anchor = x > right - 20 ? "end" : "middle";
      return [line, text(value.toLocaleString("en"), { x, y: bottom + 18, "text-anchor": anchor })];
    });
    return [...across, ...up];
  }

  line({ points }, index) {
    const colour = `run-${index % COLOURS}`;
    const placed = (list) =>
      list.map(([iteration, value]) => [this.toX(iteration).toFixed(1), this.toY(value).toFixed(1)]);
    const path = (list, kind) =>
      svg("path", {
        class: `${colour} ${kind}`,
        d: `M${placed(list)
          .map((place) => place.join(" "))
          .join("L")}`,
      });
    if (this.smooth && points.length > SMOOTH_FROM) return [path(points, "raw"), path(smoothed(points), "")];
    const dots =
      points.length > DOTS_TO ? [] : placed(points).map(([cx, cy]) => svg("circle", { class: colour, cx, cy, r: 3 }));
    return [path(points, ""), ...dots];
  }

  /** Show the values nearest to an iteration; null: the last ones. */
  read(iteration) {
    this.reading = iteration;
    const marks = [];
    if (iteration !== null)
      marks.push(svg("path", { class: "cursor", d: `M${this.toX(iteration)} ${this.box.top}V${this.box.bottom}` }));
    this.runs.forEach(({ points }, index) => {
      const last = points.at(-1);
      if (iteration === null) {
        this.readings[index].value = `${shortened(last[1])} at ${last[0].toLocaleString("en")}`;
        return;
      }
      const [at, value] = points.reduce((a, b) => (Math.abs(b[0] - iteration) < Math.abs(a[0] - iteration) ? b : a));
      const outside = iteration < points[0][0] || iteration > last[0];
      this.readings[index].value = outside ? "–" : shortened(value);
      if (!outside)
        marks.push(svg("circle", { class: `run-${index % COLOURS}`, cx: this.toX(at), cy: this.toY(value), r: 5 }));
    });
    this.at.textContent = iteration === null ? "last values" : `iteration ${iteration.toLocaleString("en")}`;
    this.cursor.replaceChildren(...marks);
  }

  listen() {
    const readAt = (event) => {
      const { left, right } = this.box;
      const across = clamped((event.clientX - this.plot.getBoundingClientRect().left - left) / (right - left), 0, 1);
      const wanted = this.x[0] + across * (this.x[1] - this.x[0]);
      this.read(this.iterations.reduce((a, b) => (Math.abs(b - wanted) < Math.abs(a - wanted) ? b : a)));
    };
    this.plot.addEventListener("pointermove", readAt);
    this.plot.addEventListener("pointerdown", readAt);
    this.plot.addEventListener("pointerleave", () => this.read(null));
    this.plot.addEventListener("blur", () => this.read(null));
    this.plot.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
      if (!step) return;
      event.preventDefault();
      const last = this.iterations.length - 1;
      const from = this.reading === null ? (step > 0 ? -1 : last + 1) : this.iterations.indexOf(this.reading);
      this.read(this.iterations[clamped(from + step, 0, last)]);
    });
  }
}

// ---- start ----

if (cards.length) {
  const pairs = PAIRS.filter((pair) => pictures.some((picture) => pairsOf(picture).includes(pair)));
  show.append(...pairs.map((pair, index) => new Option(pair[0] === pair[1] ? pair[0] : pair.join(" | "), index)));
  show.closest("label").hidden = pairs.length < 2;
  show.addEventListener("change", () => {
    for (const { picture, viewer } of cards) {
      const available = pairsOf(picture);
      viewer.choose(available.includes(pairs[show.value]) ? pairs[show.value] : available[0]);
    }
  });
  if (!score.options.length) {
    all('[value="worst"], [value="best"]', order).forEach((option) => option.remove());
    order.value = "name";
  }
  for (const select of [order, score]) select.addEventListener("change", arrange);
  filter.addEventListener("input", sift);
  tools.addEventListener("submit", (event) => event.preventDefault());
  tools.hidden = false;
  arrange();
  sift();
  cards.forEach(({ root }) => near.observe(root));
  lightbox.listen();
}

const panels = JSON.parse(document.getElementById("curves").textContent);
one("#training").hidden = !panels.length;
one(".panels").append(...panels.map((panel) => new Panel(panel).root));
