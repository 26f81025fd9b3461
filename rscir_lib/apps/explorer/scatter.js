// The scatter: each image by its similarity to the picture (across) and to the words (up), in standard deviations, and the
// line on which every point scores as much as the last hit.

import { number, put, say } from "./dom.js";
import { countFirst, RULES } from "./scoring.js";

/** @import { Moments } from "./types" */
/** @import { Query } from "./query.js" */
/** @import { View } from "./view.js" */

const WIDTH = 640;
const HEIGHT = 480;
const [DOT, RELEVANT, NUMBERS] = ["#929eab66", "#2f9e4f", "#7d8792"]; // seen on a light and on a dark ground
const PAD = 50; // pixels left and below, for the numbers
const STEPS = 120; // points of the line
const FINE = 2 ** 14; // places at which each of them may lie: to a part of a pixel

/** Where everything lies, for one query. */
function axesOf(/** @type {Query} */ query) {
  const range = query.answer.moments.map((moments) => {
    const [mean, std, least, greatest] = /** @type {Moments} */ (moments);
    return [(least - mean) / (std || 1) - 0.2, (greatest - mean) / (std || 1) + 0.2];
  });
  const z = query.sides.map((_, side) => query.onScale("zscore", side));
  const share = (/** @type {number} */ v, /** @type {number} */ axis) =>
    (v - range[axis][0]) / (range[axis][1] - range[axis][0]);
  const x = (/** @type {number} */ v) => PAD + share(v, 0) * (WIDTH - PAD - 8);
  const y = (/** @type {number} */ v) => HEIGHT - PAD - share(v, 1) * (HEIGHT - PAD - 8);
  const [image, text] = query.sides;
  const at = (/** @type {number} */ row) => [x(z[0](image[row])), y(z[1](text[row]))];
  return { query, range, x, y, at };
}

export class Scatter {
  axes = /** @type {ReturnType<typeof axesOf> | null} */ (null);

  constructor(/** @type {View} */ view) {
    this.view = view;
    const { scatter } = view.ui;
    scatter.onmousemove = (event) => this.point(event);
    scatter.onclick = (event) => this.point(event, true);
  }

  draw() {
    const { query, shown, state, ui } = this.view;
    ui.plot.hidden = !query.isComposed;
    say(ui.pointed, query.isComposed ? "" : "A picture and words together draw the archive here.");
    if (!query.isComposed) return;
    const axes = this.axes?.query === query ? this.axes : axesOf(query);
    if (axes !== this.axes) this.drawCloud(axes);
    this.axes = axes;
    const { at, range, x, y } = axes;
    const line = this.line(range).map(([h, v]) => `${x(h)},${y(v)}`);
    const circles = shown.rows.map((row) => {
      const [h, v] = at(row);
      return `<circle cx="${h}" cy="${v}" r="6" class="place" data-row="${row}"/>`;
    });
    ui.marked.innerHTML = `<polyline points="${line.join(" ")}" class="level"/>${circles.join("")}`; // numbers alone
    const images = `scatter of ${number(query.rows)} images`;
    const label = `${images}, ${shown.rows.length} hits marked, lambda ${state.lambda.toFixed(2)}`;
    put(ui.scatter, { "aria-label": label });
  }

  drawCloud(/** @type {ReturnType<typeof axesOf>} */ { query, range, x, y, at }) {
    const { scatter } = this.view.ui;
    const context = /** @type {CanvasRenderingContext2D} */ (scatter.getContext("2d"));
    const dot = (/** @type {number} */ row, /** @type {number} */ size) => {
      const [h, v] = at(row);
      context.fillRect(h - size / 2, v - size / 2, size, size);
    };
    context.clearRect(0, 0, WIDTH, HEIGHT);
    context.fillStyle = DOT;
    for (let row = 0; row < query.rows; row++) dot(row, query.rows > 5000 ? 2 : 4);
    context.fillStyle = RELEVANT;
    if (!query.positions) for (const row of query.relevant) dot(row, 6);
    context.fillStyle = NUMBERS;
    context.font = "26px sans-serif"; // the canvas is drawn at half its size
    context.textAlign = "center";
    for (let v = Math.ceil(range[0][0]); v <= range[0][1]; v++) context.fillText(String(v), x(v), HEIGHT - 12);
    for (let v = Math.ceil(range[1][0]); v <= range[1][1]; v++) context.fillText(String(v), 22, y(v) + 9);
  }

  // points (z of the picture, z of the words) that score as the last hit does
  line(/** @type {number[][]} */ range) {
    const { method, query, shown, state } = this.view;
    const { scale, rule } = method;
    const last = shown.rows.at(-1);
    if (!rule || !scale || last === undefined) return [];
    const wanted = query.methodScore(method, state.lambda, last, shown.scores);
    const [image, text] = query.answer.moments.map((moments, side) => {
      const [mean, std] = /** @type {Moments} */ (moments);
      const onScale = query.onScale(scale, side);
      return (/** @type {number} */ z) => onScale(mean + z * std);
    });
    const solved = rule === "mix" && state.lambda < 0.5 ? 0 : 1; // the axis on which scores rise most
    const [from, to] = range[1 - solved];
    const [low, high] = range[solved];
    const points = [];
    for (let k = 0; k <= STEPS; k++) {
      const fixed = from + (k / STEPS) * (to - from);
      const point = (/** @type {number} */ n) => {
        const v = low + (n / FINE) * (high - low);
        return solved ? [fixed, v] : [v, fixed];
      };
      const n = countFirst(FINE, (n) => {
        const [h, v] = point(n);
        return RULES[rule](image(h), text(v), state.lambda) < wanted;
      });
      if (n > 0 && n < FINE) points.push(point(n));
    }
    return points;
  }

  // the image under the mouse, named; a click searches from it
  async point(/** @type {MouseEvent} */ event, clicked = false) {
    const { pictures, query, ui } = this.view;
    if (this.axes?.query !== query || !query.isComposed) return;
    const { left, top, width } = ui.scatter.getBoundingClientRect();
    const [h, v] = [event.clientX - left, event.clientY - top].map((pixels) => (pixels * WIDTH) / width);
    let nearest = null;
    let least = 144; // twelve pixels away nothing is meant
    for (let row = 0; row < query.rows; row++) {
      const [x, y] = this.axes.at(row);
      const distance = (x - h) ** 2 + (y - v) ** 2;
      if (distance < least) [nearest, least] = [row, distance];
    }
    this.view.highlight(nearest);
    if (nearest === null) return say(ui.pointed, "");
    const position = query.position(nearest);
    await pictures.fetch([position]);
    say(ui.pointed, `${pictures.nameOf(position)}; a click searches from it`);
    if (clicked) await this.view.go({ images: [position] });
  }
}
