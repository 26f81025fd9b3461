// What a person has chosen, written as a link and read from one.

/** @import { Facts, State } from "./types" */

export const MOST_HITS = 200; // session.py sends candidates enough for so many
/** @type {State} */
export const START = { images: [], text: "", lambda: 0.5, method: "weicom", top: 20, cls: "", min: null };
export const LAMBDAS = Array.from({ length: 21 }, (_, k) => k / 20); // where the slider stops

/** @param {number} x @param {number} low @param {number} high */
export const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

export const wantedHits = (/** @type {unknown} */ x) => clamp(Math.round(Number(x)) || START.top, 1, MOST_HITS);

/** "oval - cars" is oval, without cars; a hyphen inside a word is none. */
export function parted(/** @type {string} */ text) {
  const [, words, without] = text.match(/^(.*?)(?:^|\s)[-−]\s*([^\s-].*)$/) ?? [text, text, ""];
  const tidy = (/** @type {string} */ part) => part.trim().replace(/\s+/g, " ");
  return { words: tidy(words), without: tidy(without) };
}

/** As benchmarks and marks hold it. */
export const fullText = (/** @type {Record<string, string>} */ { words = "", without = "" }) =>
  without ? `${words} - ${without}`.trim() : words;

// pictures of one's own are on this machine alone: no link holds them
/** @param {State} state @param {Facts} facts */
export function toLink({ images, text, lambda, method, top, cls, min }, { files }) {
  const link = new URLSearchParams();
  for (const image of images) if (typeof image === "number") link.append("image", files[image]);
  const given = { words: text, lambda, method, top: top === START.top ? "" : top, class: cls, min: min ?? "" };
  for (const [name, value] of Object.entries(given)) {
    if (value !== "" || name === "words") link.append(name, String(value));
  }
  return link.toString();
}

// the state that a link asks for, and the files it names that the archive lacks
export function fromLink(/** @type {string} */ hash, /** @type {State} */ state, /** @type {Facts} */ facts) {
  const link = new URLSearchParams(hash.replace(/^#/, ""));
  const given = (/** @type {string} */ name) => link.get(name) ?? "";
  const lambda = link.has("lambda") ? Number(given("lambda")) : state.lambda;
  const min = Number.parseFloat(given("min"));
  const files = link.getAll("image");
  const opened = {
    images: files.map((file) => facts.files.indexOf(file)).filter((position) => position >= 0),
    text: given("words"),
    lambda: clamp(Number.isFinite(lambda) ? lambda : START.lambda, 0, 1),
    method: facts.methods.some((method) => method.name === given("method")) ? given("method") : state.method,
    top: wantedHits(link.get("top")),
    cls: facts.classes.includes(given("class")) ? given("class") : "",
    min: Number.isFinite(min) ? min : null,
  };
  return { opened, absent: files.filter((file) => !facts.files.includes(file)) };
}
