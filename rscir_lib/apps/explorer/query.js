// One answered query: the similarities of the archive to its picture and to its words, and the scores that follow.

import { countBelow, mixed, SCALES } from "./scoring.js";

/** @import { Answer, Ask, Method, Moments, Question } from "./types" */

export class Query {
  // rows count the images that were sent, positions those of the archive
  /** @param {Partial<Question>} question @param {Answer} answer @param {ArrayBuffer[]} buffers */
  constructor(question, answer, [image, text, positions, percentiles]) {
    this.question = question;
    this.answer = answer;
    this.sides = [image, text].map((buffer) => (buffer.byteLength ? new Float64Array(buffer) : null));
    this.positions = positions && new Int32Array(positions);
    this.percentiles = percentiles && new Float32Array(percentiles);
    this.relevant = new Set(answer.relevant ?? []);
    this.unknown = new Set(answer.unknown);
    /** @type {Map<string, Float64Array[]>} */
    this.scales = new Map();
    /** @type {Map<string, Float64Array>} */
    this.kernelScores = new Map();
    /** @type {Float64Array[]} */
    this.ascending = [];
  }

  static empty() {
    /** @type {Answer} */
    const answer = { relevant: null, unknown: [], attribute: "", marks: {}, moments: [[], []] };
    return new Query({}, answer, [new ArrayBuffer(0), new ArrayBuffer(0)]);
  }

  get isBlank() {
    return !this.sides[0] && !this.sides[1];
  }

  get isComposed() {
    return Boolean(this.sides[0] && this.sides[1]);
  }

  /** @param {number} row */
  position(row) {
    return this.positions ? this.positions[row] : row;
  }

  /** @param {string} scale @param {number} side */
  onScale(scale, side) {
    const all = this.sides[side] ?? new Float64Array(0);
    return SCALES[scale](/** @type {Moments} */ (this.answer.moments[side]), all);
  }

  /** Both sides on a scale; an absent side is empty. @param {string} scale */
  scaled(scale) {
    let scaled = this.scales.get(scale);
    if (!scaled) {
      scaled = this.sides.map((s, side) => (s ? s.map(this.onScale(scale, side)) : new Float64Array(0)));
      this.scales.set(scale, scaled);
    }
    return scaled;
  }

  // the side that alone decides the order (0 picture, 1 words), null where both do
  /** @param {Method} method @param {number} lambda */
  alone(method, lambda) {
    if (!this.isComposed) return this.sides[0] ? 0 : 1;
    return method.rule === "mix" && (lambda === 0 || lambda === 1) ? lambda : null;
  }

  // scores to rank every row by; from the kernel where the browser doesn't know the method, null where that refuses.
  // One side alone is ranked as it is: no scale changes its order, and some saturate
  /** @param {Method} method @param {number} lambda @param {Ask} ask */
  async scoresAt(method, lambda, ask) {
    const side = this.alone(method, lambda);
    if (side !== null) return this.sides[side] ?? new Float64Array(0);
    if (method.rule && method.scale) {
      const [image, text] = this.scaled(method.scale);
      return mixed(method.rule, image, text, lambda);
    }
    const key = `${method.name} ${method.hasLambda ? lambda : ""}`;
    if (!this.kernelScores.has(key)) {
      const [answer, buffers] = await ask({ ...this.question, ask: "scores", lam: lambda, method: method.name });
      if (answer.error) return null;
      this.kernelScores.set(key, new Float64Array(buffers[0]));
    }
    return this.kernelScores.get(key) ?? null;
  }

  // the score on the method's own scale, also where one side alone was ranked
  /** @param {Method} method @param {number} lambda @param {number} row @param {Float64Array} scores */
  methodScore(method, lambda, row, scores) {
    const side = this.alone(method, lambda);
    return method.rule && method.scale && side !== null ? this.scaled(method.scale)[side][row] : scores[row];
  }

  /** The share of the archive, in per cent, that is less similar to a side. @param {number} side @param {number} row */
  percentile(side, row) {
    if (this.percentiles && this.positions) return this.percentiles[side * this.positions.length + row];
    const s = this.sides[side] ?? new Float64Array(0);
    this.ascending[side] ??= s.slice().sort();
    return (100 * countBelow(this.ascending[side], s[row])) / Math.max(s.length - 1, 1);
  }

  // what the benchmark says of a row: relevant, unknown (nobody labelled it) or other; "" where it doesn't hold this query
  /** @param {number} row */
  judgement(row) {
    if (!this.answer.relevant) return "";
    if (this.relevant.has(this.position(row))) return "relevant";
    return this.unknown.has(this.position(row)) ? "unknown" : "other";
  }
}
