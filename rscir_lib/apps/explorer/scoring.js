// Scales, rules and ranks in float64, each named and defined as its twin in Python (rscir_lib.similarity, rscir_lib.methods).
// Nothing here touches the page: a test runs this file in node against numbers that Python wrote.

/** @import { Moments, Scale, Rule } from "./types" */

// 1 - Phi(z) for z >= 0: a series of positive terms; from z = 1.5 on, where that converges slowly, a continued fraction
function beyond(/** @type {number} */ z) {
  const density = Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI);
  if (z < 1.5) {
    let term = z;
    let sum = z;
    for (let n = 3; term > sum * 1e-17; n += 2) {
      term *= (z * z) / n;
      sum += term;
    }
    return 0.5 - density * sum;
  }
  let fraction = z;
  for (let n = Math.ceil(24 + 450 / (z * z)); n > 0; n--) fraction = z + n / fraction;
  return density / fraction;
}

/** Phi(z) - 1: the order of the normal CDF, without its ties at the top. */
const lowered = (/** @type {number} */ z) => (z > 0 ? -beyond(z) : beyond(-z) - 1);

// how many of k = 0 ... n - 1, of which the first have a property and the others don't, have it
export function countFirst(/** @type {number} */ n, /** @type {(k: number) => boolean} */ hasIt) {
  let low = 0;
  let high = n;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (hasIt(middle)) low = middle + 1;
    else high = middle;
  }
  return low;
}

const FLAT = 1e-12; // similarities that spread less than this differ by rounding alone

/** @type {Scale} */
const zscore = ([mean, std]) => {
  return (s) => (std > FLAT ? (s - mean) / std : 0);
};

// A scale turns similarities to one side of a query, given their moments over the archive and all of them, into comparable ones.
/** @type {Record<string, Scale>} */
export const SCALES = {
  raw: () => (s) => s,
  clamped: () => (s) => Math.max(s, 0),
  zscore,
  upper_tail(moments, all) {
    const z = zscore(moments, all);
    return (s) => lowered(z(s));
  },
  minmax: ([, , least, greatest]) => {
    return (s) => (greatest - least > FLAT ? (s - least) / (greatest - least) : 0);
  },
  // equal similarities share the better rank
  reciprocal_rank(_, all) {
    const ascending = all.slice().sort();
    return (s) => 1 / (61 + all.length - countFirst(all.length, (k) => ascending[k] <= s));
  },
};

// A rule makes one score of the scaled similarity to the picture and the one to the words.
/** @type {Record<string, Rule>} */
export const RULES = {
  mix: (image, text, lambda) => (1 - lambda) * image + lambda * text,
  halfway: (image, text) => 0.5 * image + 0.5 * text,
  add: (image, text) => image + text,
  multiply: (image, text) => image * text,
  minimum: (image, text) => Math.min(image, text),
};

// rows of the `top` highest scores, best first, ties in archive order
/** @param {Float64Array} scores @param {number} top @param {((row: number) => boolean) | null} [allowed] */
export function best(scores, top, allowed) {
  const rows = /** @type {number[]} */ ([]);
  for (let row = 0; row < scores.length; row++) {
    if (allowed && !allowed(row)) continue;
    if (rows.length === top && !(scores[row] > scores[rows[top - 1]])) continue;
    const ahead = countFirst(rows.length, (k) => scores[rows[k]] >= scores[row]);
    rows.splice(ahead, 0, row);
    rows.length = Math.min(rows.length, top);
  }
  return rows;
}

// ranks of the relevant rows from 1, ascending, ties in archive order; excluded rows take no rank
/** @param {Float64Array} scores @param {number[]} relevant @param {Set<number>} excluded */
export function ranks(scores, relevant, excluded) {
  const order = [...relevant].sort((i, j) => scores[j] - scores[i] || i - j);
  const before = new Float64Array(order.length + 1); // at k, the rows that come after k relevant ones and before the next
  for (let row = 0; row < scores.length; row++) {
    const isAhead = (/** @type {number} */ k) =>
      scores[order[k]] > scores[row] || (scores[order[k]] === scores[row] && order[k] <= row);
    if (!excluded.has(row)) before[countFirst(order.length, isAhead)]++;
  }
  let rank = 0;
  return order.map((_, k) => {
    rank += before[k];
    return rank + 1;
  });
}

/** The mean of the precisions at each relevant row, in [0, 1]. */
export function averagePrecision(/** @type {number[]} */ ascendingRanks) {
  const sum = ascendingRanks.reduce((total, rank, k) => total + (k + 1) / rank, 0);
  return ascendingRanks.length ? sum / ascendingRanks.length : 0;
}

/** Mean, unbiased std, least and greatest; of an absent side none. @param {Float64Array} s @returns {Moments | []} */
export function momentsOf(s) {
  if (!s.length) return [];
  const mean = s.reduce((sum, x) => sum + x, 0) / s.length;
  const squares = s.reduce((sum, x) => sum + (x - mean) ** 2, 0);
  const [least, greatest] = [Math.min, Math.max].map((pick) => s.reduce((a, b) => pick(a, b)));
  return [mean, Math.sqrt(squares / Math.max(s.length - 1, 1)), least, greatest];
}
