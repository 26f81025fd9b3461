// One answered query: the similarities of the archive to its picture and to its words, and the scores made of them.

import { decoded } from "./dom.js";
import { countFirst, RULES, SCALES } from "./scoring.js";
import { fullText } from "./state.js";

/** @import { Answer, Ask, Facts, Method, Moments } from "./types" */

const EMPTY = /** @type {Answer} */ ({ similarities: ["", ""], moments: [[], []] });

const doubles = (/** @type {string | Float64Array} */ values) =>
  typeof values === "string" ? new Float64Array(decoded(values)) : values;

export class Query {
  scales = new Map(); // by their names, both sides
  kernelScores = new Map();
  ascending = /** @type {Float64Array[]} */ ([]); // each side, sorted
  curves = new Map(); // by method, average precision in per cent at LAMBDAS

  // rows count the images that were sent, positions those of the archive
  /** @param {Record<string, any>} question @param {Answer} answer @param {Facts} [facts] */
  constructor(question = {}, answer = EMPTY, facts = undefined) {
    this.question = question;
    this.answer = answer;
    this.sides = answer.similarities.map(doubles); // an absent one is empty
    this.positions = answer.positions === undefined ? null : new Int32Array(decoded(answer.positions));
    this.percentiles = answer.percentiles?.map(doubles);
    const [image, ...more] = question.images ?? [];
    this.image = typeof image === "number" && !more.length ? image : -1; // of the archive, that marks belong to
    this.text = fullText(question);
    const asked = facts?.queries.find(([position, text]) => position === this.image && text === this.text);
    this.attribute = asked?.[2]; // of the benchmark's query that this is
    this.relevant = new Set(asked && facts?.targets[asked[3]]);
    this.unknown = new Set(asked && facts?.unknowns[asked[4]]);
    if (asked && facts?.excludeSelf) this.unknown.add(this.image);
    this.isComposed = this.sides.every((s) => s.length);
    this.rows = Math.max(...this.sides.map((s) => s.length));
  }

  position(/** @type {number} */ row) {
    return this.positions ? this.positions[row] : row;
  }

  onScale(/** @type {string} */ scale, /** @type {number} */ side) {
    return SCALES[scale](/** @type {Moments} */ (this.answer.moments[side]), this.sides[side]);
  }

  /** Both sides on a scale. */
  scaled(/** @type {string} */ scale) {
    /** @type {Float64Array[]} */
    const scaled = this.scales.get(scale) ?? this.sides.map((s, side) => s.map(this.onScale(scale, side)));
    this.scales.set(scale, scaled);
    return scaled;
  }

  // the side that alone decides the order (0 picture, 1 words), null where both do
  alone(/** @type {Method} */ method, /** @type {number} */ lambda) {
    if (!this.isComposed) return this.sides[0].length ? 0 : 1;
    return method.rule === "mix" && (lambda === 0 || lambda === 1) ? lambda : null;
  }

  // scores to rank every row by; from the kernel where the browser doesn't know the method, null where that refuses.
  // One side alone is ranked as it is: no scale changes its order, and some saturate
  async scoresAt(/** @type {Method} */ method, /** @type {number} */ lambda, /** @type {Ask} */ ask) {
    const side = this.alone(method, lambda);
    if (side !== null) return this.sides[side];
    if (method.rule && method.scale) {
      const rule = RULES[method.rule];
      const [image, text] = this.scaled(method.scale);
      return image.map((s, row) => rule(s, text[row], lambda));
    }
    const key = `${method.name} ${method.hasLambda ? lambda : ""}`;
    if (!this.kernelScores.has(key)) {
      const { scores } = await ask({ ...this.question, ask: "scores", lam: lambda, method: method.name });
      if (scores) this.kernelScores.set(key, doubles(scores));
    }
    return this.kernelScores.get(key) ?? null;
  }

  // the score on the method's own scale, also where one side alone was ranked
  /** @param {Method} method @param {number} lambda @param {number} row @param {Float64Array} scores */
  methodScore(method, lambda, row, scores) {
    const side = this.alone(method, lambda);
    return method.rule && method.scale && side !== null ? this.scaled(method.scale)[side][row] : scores[row];
  }

  /** The share of the archive, in per cent, that is less similar to a side. */
  percentile(/** @type {number} */ side, /** @type {number} */ row) {
    if (this.percentiles) return this.percentiles[side][row];
    const s = this.sides[side];
    this.ascending[side] ??= s.slice().sort();
    const below = countFirst(s.length, (k) => this.ascending[side][k] < s[row]);
    return (100 * below) / Math.max(s.length - 1, 1);
  }

  // what the benchmark says of a row: relevant, unknown (nobody labelled it) or other; "" where it doesn't hold this query
  judgement(/** @type {number} */ row) {
    if (this.attribute === undefined) return "";
    if (this.relevant.has(this.position(row))) return "relevant";
    return this.unknown.has(this.position(row)) ? "unknown" : "other";
  }
}
