// Host: a page without a server. It answers the questions of types.d.ts itself, from data.js and thumbnails/*.js.

import { decoded, make } from "./dom.js";
import { momentsOf } from "./scoring.js";
import { open } from "./view.js";

const { facts, dim, queries, judged } = RSCIR;
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
  throw new Error(`This page has no encoder: it knows the words it suggests, and "${text}" is not among them.`);
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
/** @type {Map<number, PromiseWithResolvers<string[]>>} */
const thumbnailFiles = new Map();
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

/** What a person marked stays in this browser. @returns {[string, string, string, string][]} image, text, answer, verdict */
function readMarks() {
  try {
    return JSON.parse(localStorage.getItem(`rscir marks ${facts.title}`) ?? "[]");
  } catch {
    return [];
  }
}

/** As marks and links hold it. @param {{ words: string, without: string }} question */
const fullText = ({ words, without }) => (without ? `${words} - ${without}`.trim() : words);

/** @type {Record<string, (question: any) => any>} */
const answers = {
  hello: () => facts,
  rated: () => ({ queries }),
  marks: () => ({ rows: readMarks() }),
  async images({ positions }) {
    const footprints = positions.map((/** @type {number} */ position) => RSCIR.footprints[position]);
    return { jpegs: await Promise.all(positions.map(thumbnail)), footprints };
  },
  query({ images, words, without }) {
    const sides = [featureOfImages(images), featureOfWords(words, without)].map(similarities);
    const answer = { similarities: sides, moments: sides.map(momentsOf) };
    if (images.length !== 1) return { ...answer, relevant: null, attribute: "", unknown: [], marks: {} };
    const text = fullText({ words, without });
    const asked = queries.findIndex(([position, other]) => position === images[0] && other === text);
    const [target, unknown] = judged[asked] ?? [-1, []];
    const own = readMarks().filter(([file, other]) => file === facts.files[images[0]] && other === text);
    const marks = Object.fromEntries(own.map(([, , file, verdict]) => [facts.files.indexOf(file), verdict]));
    return { ...answer, relevant: RSCIR.targets[target] ?? null, attribute: queries[asked]?.[2] ?? "", unknown, marks };
  },
  mark(question) {
    const mark = [facts.files[question.image], fullText(question), facts.files[question.answer]];
    const others = readMarks().filter((other) => other.slice(0, 3).join("\n") !== mark.join("\n"));
    const all = question.verdict ? [...others, [...mark, question.verdict]] : others;
    localStorage.setItem(`rscir marks ${facts.title}`, JSON.stringify(all));
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
