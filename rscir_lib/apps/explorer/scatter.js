// The archive between picture (across) and words (up), in standard deviations, with the line on which scores equal the last hit's.

import { number, put, say } from "./dom.js";
import { RULES } from "./scoring.js";

/** @import { Moments } from "./types" */
/** @import { View } from "./view.js" */

const PAD = 34; // pixels left and below, for the numbers
const STEPS = 120; // points of the line
const HALVINGS = 14; // of the range in which a point of it lies: to a part of a pixel

/** Where everything lies on the canvas, for one query. @param {View} view */
function axesOf(view) {
  const { query, ui } = view;
  const { width, height } = ui.scatter;
  const range = query.answer.moments.map((moments) => {
    const [mean, std, least, greatest] = /** @type {Moments} */ (moments);
    return [(least - mean) / (std || 1) - 0.2, (greatest - mean) / (std || 1) + 0.2];
  });
  const z = query.sides.map((s, side) => {
    const scale = query.onScale("zscore", side);
    return (/** @type {number} */ row) => (s ? scale(s[row]) : 0);
  });
  const share = (/** @type {number} */ v, /** @type {number} */ axis) =>
    (v - range[axis][0]) / (range[axis][1] - range[axis][0]);
  const x = (/** @type {number} */ v) => PAD + share(v, 0) * (width - PAD - 8);
  const y = (/** @type {number} */ v) => height - PAD - share(v, 1) * (height - PAD - 8);
  return { query, range, x, y, at: (/** @type {number} */ row) => [x(z[0](row)), y(z[1](row))], look: "" };
}

export class Scatter {
  /** @type {ReturnType<typeof axesOf> | null} */
  axes = null;
  cloud = new OffscreenCanvas(1, 1); // the whole archive: drawn once a query

  /** @param {View} view */
  constructor(view) {
    this.view = view;
    const canvas = view.ui.scatter;
    canvas.onmousemove = (event) => this.point(event);
    canvas.onclick = (event) => this.point(event, true);
    canvas.onmouseleave = () => view.highlight(null);
  }

  /** @param {number | null} [over] a row to point out */
  draw(over = null) {
    const { query, shown, state, ui } = this.view;
    const canvas = ui.scatter;
    const context = canvas.getContext("2d");
    if (!context) return;
    const style = getComputedStyle(ui.root);
    const color = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!query.isComposed) {
      context.fillStyle = color("--soft");
      context.font = "18px sans-serif";
      context.fillText("A picture and words together draw the archive here.", 40, canvas.height / 2);
      return;
    }
    if (this.axes?.query !== query) this.axes = axesOf(this.view);
    const { axes } = this;
    const look = color("--dot") + color("--ink"); // light or dark
    if (axes.look !== look) this.drawCloud(axes, color);
    axes.look = look;
    context.drawImage(this.cloud, 0, 0);
    context.strokeStyle = color("--accent");
    context.lineWidth = 2.5;
    context.beginPath();
    for (const [h, v] of this.line(axes.range)) context.lineTo(axes.x(h), axes.y(v));
    context.stroke();
    context.lineWidth = 2;
    for (const row of shown.rows) {
      const [h, v] = axes.at(row);
      context.beginPath();
      context.arc(h, v, row === over ? 11 : 6, 0, 7);
      context.fillStyle = row === over ? color("--accent") : "transparent";
      context.fill();
      context.stroke();
    }
    const images = `scatter of ${number(query.sides[0]?.length ?? 0)} images`;
    put(canvas, "aria-label", `${images}, ${shown.rows.length} hits marked, lambda ${state.lambda.toFixed(2)}`);
  }

  /** @param {ReturnType<typeof axesOf>} axes @param {(name: string) => string} color */
  drawCloud({ query, range, x, y, at }, color) {
    const { width, height } = this.view.ui.scatter;
    this.cloud = new OffscreenCanvas(width, height);
    const context = this.cloud.getContext("2d");
    if (!context) return;
    const rows = query.sides[0]?.length ?? 0;
    const dot = (/** @type {number} */ row, /** @type {number} */ size) => {
      const [h, v] = at(row);
      context.fillRect(h - size / 2, v - size / 2, size, size);
    };
    context.fillStyle = color("--dot");
    for (let row = 0; row < rows; row++) dot(row, rows > 5000 ? 2 : 4);
    context.fillStyle = color("--right");
    if (!query.positions) for (const row of query.relevant) dot(row, 6);
    context.fillStyle = color("--soft");
    context.font = "15px sans-serif";
    context.textAlign = "center";
    for (let v = Math.ceil(range[0][0]); v <= range[0][1]; v++) context.fillText(String(v), x(v), height - 14);
    for (let v = Math.ceil(range[1][0]); v <= range[1][1]; v++) context.fillText(String(v), 14, y(v) + 5);
  }

  // points (z of the picture, z of the words) that score as the last hit does: solved along the axis on which scores rise most
  /** @param {number[][]} range */
  line(range) {
    const { method, query, shown, state } = this.view;
    const last = shown.rows.at(-1);
    if (!method.rule || !method.scale || last === undefined) return [];
    const wanted = query.methodScore(method, state.lambda, last, shown.scores);
    const rule = RULES[method.rule];
    const [image, text] = query.answer.moments.map((moments, side) => {
      const [mean, std] = /** @type {Moments} */ (moments);
      const scale = query.onScale(/** @type {string} */ (method.scale), side);
      return (/** @type {number} */ z) => scale(mean + z * std);
    });
    const across = method.rule === "mix" && state.lambda < 0.5;
    const [along, solved] = across ? [range[1], range[0]] : range;
    const points = [];
    for (let k = 0; k <= STEPS; k++) {
      const fixed = along[0] + (k / STEPS) * (along[1] - along[0]);
      const score = (/** @type {number} */ v) =>
        across ? rule(image(v), text(fixed), state.lambda) : rule(image(fixed), text(v), state.lambda);
      let [low, high] = solved;
      if (score(low) > wanted || score(high) < wanted) continue;
      for (let halving = 0; halving < HALVINGS; halving++) {
        const middle = (low + high) / 2;
        if (score(middle) < wanted) low = middle;
        else high = middle;
      }
      points.push(across ? [high, fixed] : [fixed, high]);
    }
    return points;
  }

  // the image under the mouse, named; a click searches from it
  /** @param {MouseEvent} event @param {boolean} [clicked] */
  async point(event, clicked = false) {
    const { pictures, query, ui } = this.view;
    if (!query.isComposed || this.axes?.query !== query) return;
    const box = ui.scatter.getBoundingClientRect();
    const h = ((event.clientX - box.left) / box.width) * ui.scatter.width;
    const v = ((event.clientY - box.top) / box.height) * ui.scatter.height;
    let nearest = null;
    let least = 144; // twelve pixels away nothing is meant
    for (let row = 0; row < (query.sides[0]?.length ?? 0); row++) {
      const [left, top] = this.axes.at(row);
      const distance = (left - h) ** 2 + (top - v) ** 2;
      if (distance < least) [nearest, least] = [row, distance];
    }
    this.view.highlight(nearest);
    if (nearest === null) return say(ui.pointed, "");
    const position = query.position(nearest);
    await pictures.fetch([position]);
    say(ui.pointed, `${pictures.nameOf(position)}; a click searches from it`);
    if (clicked) await this.view.go({ images: [position] }, event.timeStamp);
  }
}
