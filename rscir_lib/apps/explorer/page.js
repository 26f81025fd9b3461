// Host: a page without a server. It answers the questions of types.d.ts itself, from data.js and thumbnails/*.js.

import { make } from "./dom.js";
import { momentsOf } from "./scoring.js";
import { clamp } from "./state.js";
import { open } from "./view.js";

/** @import { Ask, PageData } from "./types" */

const PER_PAGE = 24; // pictures when browsing

/** @param {string} base64 */
const decoded = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)).buffer;

/** @param {string} message @returns {never} */
function refuse(message) {
  throw new Error(message);
}

/** @param {Float64Array} v @param {string} problem */
function unit(v, problem) {
  const length = Math.hypot(...v);
  return length < 1e-6 ? refuse(problem) : v.map((x) => x / length);
}

/** @param {Float64Array} a @param {Float64Array} b */
const dot = (a, b) => a.reduce((sum, x, k) => sum + x * b[k], 0);

// features of pictures and words, and similarities, as session.py has them
class Features {
  /** @param {PageData} data */
  constructor(data) {
    this.dim = data.dim;
    this.n = data.files.length;
    this.images = new Float32Array(decoded(data.feats));
    this.texts = new Float32Array(decoded(data.wordFeats));
    this.words = new Map(data.facts.words.map((word, k) => [word.toLowerCase(), k]));
  }

  /** @param {Float32Array} matrix @param {number} row */
  row(matrix, row) {
    return Float64Array.from(matrix.subarray(row * this.dim, (row + 1) * this.dim));
  }

  /** @param {string} text */
  ofText(text) {
    const row = this.words.get(text.toLowerCase());
    if (row !== undefined) return this.row(this.texts, row);
    return refuse(`This page has no encoder: it knows the words it suggests, and "${text}" is not among them.`);
  }

  /** What to leave out is projected away. @param {string} words @param {string} without */
  ofWords(words, without) {
    if (!without) return words ? this.ofText(words) : null;
    const out = this.ofText(without);
    if (!words) return out.map((x) => -x);
    const wanted = this.ofText(words);
    const along = dot(wanted, out);
    return unit(
      wanted.map((x, k) => x - along * out[k]),
      `"${words}" without "${without}" leaves nothing to search for: change one`,
    );
  }

  /** @param {number[]} images */
  ofImages(images) {
    if (images.length < 2) return images.length ? this.row(this.images, images[0]) : null;
    const mean = new Float64Array(this.dim);
    for (const image of images) {
      for (const [k, x] of this.row(this.images, image).entries()) mean[k] += x / images.length;
    }
    return unit(mean, "these pictures cancel each other out: take one away");
  }

  /** @param {Float64Array | null} query */
  similarities(query) {
    const s = new Float64Array(query ? this.n : 0);
    if (!query) return s;
    for (let row = 0; row < this.n; row++) {
      for (let k = 0, at = row * this.dim; k < this.dim; k++) s[row] += this.images[at + k] * query[k];
    }
    return s;
  }
}

// thumbnails lie in scripts, some together: a page opened from the disk can read nothing else
/** @param {PageData} data @returns {(position: number) => Promise<ArrayBuffer>} */
function thumbnailsOf(data) {
  /** @type {Map<number, { promise: Promise<string[]>, resolve: (encoded: string[]) => void }>} */
  const files = new Map();
  data.thumbnails = (number, encoded) => files.get(number)?.resolve(encoded);
  const load = (/** @type {number} */ number) => {
    const file = Promise.withResolvers();
    const script = make("script", { src: `thumbnails/${number}.js` });
    script.onerror = () => file.reject(new Error(`thumbnails/${number}.js is missing`));
    document.head.append(script);
    files.set(number, file);
    return file;
  };
  return async (position) => {
    const number = Math.floor(position / data.together);
    const encoded = await (files.get(number) ?? load(number)).promise;
    return decoded(encoded[position % data.together]);
  };
}

/** What a person marked stays in this browser. @param {string} key @returns {[string, string, string, string][]} */
function readMarks(key) {
  try {
    return JSON.parse(localStorage.getItem(key) ?? "[]"); // image, text, answer, verdict
  } catch {
    return [];
  }
}

/** A shuffle that the same seed repeats. @param {number[]} values @param {number} seed */
function shuffle(values, seed) {
  let state = seed;
  for (let k = values.length - 1; k > 0; k--) {
    state = (state * 1664525 + 1013904223) % 4294967296; // a linear congruential generator (Numerical Recipes)
    const other = Math.floor((state / 4294967296) * (k + 1));
    [values[k], values[other]] = [values[other], values[k]];
  }
}

/** @param {PageData} data @returns {Record<string, (question: any) => [any, ArrayBuffer[]] | Promise<[any, ArrayBuffer[]]>>} */
function answersFrom(data) {
  const { facts, files, classIndex, queries, targets } = data;
  const features = new Features(data);
  const thumbnail = thumbnailsOf(data);
  const key = `rscir marks ${facts.title}`;
  const textOf = (/** @type {any} */ { words = "", without = "" }) =>
    without ? `${words} - ${without}`.trim() : words;
  const about = (/** @type {number} */ i) => ({
    file: files[i],
    class: facts.classes[classIndex[i]],
    footprint: data.footprints?.[i] ?? null,
  });
  return {
    hello: () => [facts, [Uint16Array.from(classIndex).buffer]],
    async images({ positions }) {
      const jpegs = await Promise.all(positions.map(thumbnail));
      return [{ images: positions.map(about) }, jpegs];
    },
    browse({ cls, name, page, seed }) {
      const isWanted = (/** @type {string} */ file, /** @type {number} */ i) =>
        (!cls || facts.classes[classIndex[i]] === cls) && file.toLowerCase().includes(name.toLowerCase());
      const all = files.flatMap((file, i) => (isWanted(file, i) ? [i] : []));
      if (seed !== undefined) shuffle(all, seed);
      const at = clamp(page, 0, Math.floor(Math.max(all.length - 1, 0) / PER_PAGE));
      return [{ total: all.length, page: at, positions: all.slice(at * PER_PAGE, (at + 1) * PER_PAGE) }, []];
    },
    find({ files: wanted }) {
      const positions = wanted.map((/** @type {string} */ file) => files.indexOf(file));
      const absent = positions.indexOf(-1);
      return absent < 0 ? [{ positions }, []] : refuse(`${facts.title} has no image "${wanted[absent]}"`);
    },
    query({ images, words, without }) {
      const queried = [features.ofImages(images), features.ofWords(words, without)];
      const sides = queried.map((feature) => features.similarities(feature));
      const text = textOf({ words, without });
      const [image, ...more] = images;
      const asked = more.length ? undefined : queries.find((query) => query[0] === image && query[1] === text);
      const own = readMarks(key).filter((mark) => !more.length && mark[0] === files[image] && mark[1] === text);
      const answer = {
        moments: sides.map(momentsOf),
        relevant: asked ? targets[asked[3]] : null,
        attribute: asked ? asked[2] : "",
        unknown: asked ? asked[4] : [],
        marks: Object.fromEntries(own.map((mark) => [files.indexOf(mark[2]), mark[3]])),
      };
      return [answer, sides.map((s) => s.buffer)];
    },
    benchmark({ which, attribute, nth }) {
      const some = queries.filter((query) => !attribute || query[2] === attribute);
      const rated = some.filter((query) => query[5] !== null);
      const sign = which === "best" ? -1 : 1;
      rated.sort((a, b) => sign * (Number(a[5]) - Number(b[5])));
      const query = which === "random" ? some[Math.floor(Math.random() * some.length)] : rated[nth % rated.length];
      return query ? [{ image: query[0], words: query[1] }, []] : refuse("there is no such query");
    },
    mark(question) {
      const mark = [files[question.image], textOf(question), files[question.answer]];
      const others = readMarks(key).filter((other) => other.slice(0, 3).join("\n") !== mark.join("\n"));
      const all = question.verdict ? [...others, [...mark, question.verdict]] : others;
      localStorage.setItem(key, JSON.stringify(all));
      return [{}, []];
    },
    marks: () => [{ rows: readMarks(key) }, []],
  };
}

const answers = answersFrom(RSCIR);
/** @type {Ask} */
const ask = async ({ ask: name, ...question }) => {
  try {
    return await answers[/** @type {string} */ (name)](question);
  } catch (error) {
    return [{ error: /** @type {Error} */ (error).message }, []];
  }
};
const [firstQuery] = RSCIR.queries;
open(ask, firstQuery ? { image: firstQuery[0], words: firstQuery[1] } : { image: 0, words: "" });
