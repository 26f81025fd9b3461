// Host: a page without a server. It answers the questions of types.d.ts itself, from data.js and thumbnails/*.js.

import { decoded, make } from "./dom.js";
import { momentsOf } from "./scoring.js";
import { open } from "./view.js";

const { facts, dim } = RSCIR;
const imageFeats = new Float32Array(decoded(RSCIR.feats));
const wordFeats = new Float32Array(decoded(RSCIR.wordFeats));
const wordRows = new Map(facts.words.map((word, row) => [word.toLowerCase(), row]));

// features of pictures and words, and similarities, as session.py has them

/** @param {Float32Array} matrix @param {number} row */
const rowOf = (matrix, row) => Float64Array.from(matrix.subarray(row * dim, (row + 1) * dim));

function unit(/** @type {Float64Array} */ v, /** @type {string} */ problem) {
  const length = Math.hypot(...v);
  if (length < 1e-6) throw new Error(problem);
  return v.map((x) => x / length);
}

function featureOf(/** @type {string} */ text) {
  const row = wordRows.get(text.toLowerCase());
  if (row !== undefined) return rowOf(wordFeats, row);
  const among = text.split(/\s+/).filter((word) => wordRows.has(word.toLowerCase()));
  const parts = among.length ? ` By itself, it knows ${among.map((word) => `"${word}"`).join(", ")}.` : "";
  throw new Error(`This page has no encoder: it knows the words it suggests, and "${text}" is not among them.${parts}`);
}

/** What to leave out is projected away. */
function featureOfWords(/** @type {string} */ words, /** @type {string} */ without) {
  if (!without) return words ? featureOf(words) : null;
  const out = featureOf(without);
  if (!words) return out.map((x) => -x);
  const wanted = featureOf(words);
  const along = wanted.reduce((sum, x, k) => sum + x * out[k], 0);
  const left = wanted.map((x, k) => x - along * out[k]);
  return unit(left, `"${words}" without "${without}" leaves nothing to search for: change one`);
}

function featureOfImages(/** @type {number[]} */ images) {
  if (images.length < 2) return images.length ? rowOf(imageFeats, images[0]) : null;
  const rows = images.map((image) => rowOf(imageFeats, image));
  const mean = rows[0].map((_, k) => rows.reduce((sum, row) => sum + row[k] / rows.length, 0));
  return unit(mean, "these pictures cancel each other out: take one away");
}

function similarities(/** @type {Float64Array | null} */ query) {
  if (!query) return new Float64Array(0);
  const s = new Float64Array(facts.files.length);
  for (let row = 0; row < s.length; row++) {
    for (let k = 0, at = row * dim; k < dim; k++) s[row] += imageFeats[at + k] * query[k];
  }
  return s;
}

// thumbnails lie in scripts, some together: a page opened from the disk can read nothing else
const thumbnailFiles = /** @type {Map<number, PromiseWithResolvers<string[]>>} */ (new Map());
RSCIR.thumbnails = (number, jpegs) => thumbnailFiles.get(number)?.resolve(jpegs);

async function thumbnail(/** @type {number} */ position) {
  const number = Math.floor(position / RSCIR.together);
  const file = thumbnailFiles.get(number) ?? Promise.withResolvers();
  if (!thumbnailFiles.has(number)) {
    thumbnailFiles.set(number, file);
    const script = make("script", { src: `thumbnails/${number}.js` });
    script.onerror = () => file.reject(new Error(`thumbnails/${number}.js is missing`));
    document.head.append(script);
  }
  return (await file.promise)[position % RSCIR.together];
}

// what a person marked stays in this browser
const store = `rscir marks ${facts.title}`;
try {
  facts.marks = JSON.parse(localStorage.getItem(store) ?? "[]");
} catch {
  // a browser that keeps nothing for files
}

/** @type {Record<string, (question: any) => any>} */
const answers = {
  hello: () => facts,
  rated: () => RSCIR.rated,
  async images({ positions }) {
    const footprints = positions.map((/** @type {number} */ position) => RSCIR.footprints[position]);
    return { jpegs: await Promise.all(positions.map(thumbnail)), footprints };
  },
  query({ images, words, without }) {
    const sides = [featureOfImages(images), featureOfWords(words, without)].map(similarities);
    return { similarities: sides, moments: sides.map(momentsOf) };
  },
  async picture({ position }) {
    return { jpeg: await thumbnail(position), path: "" };
  },
  mark({ image, text, answer, verdict }) {
    facts.marks.push([image, text, answer, verdict]);
    localStorage.setItem(store, JSON.stringify(facts.marks));
    return {};
  },
};

open(async ({ ask, ...question }) => {
  try {
    return await answers[String(ask)](question);
  } catch (error) {
    return { error: /** @type {Error} */ (error).message };
  }
});
