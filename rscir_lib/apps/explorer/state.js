// What a person has chosen, as a link holds it, and the way back.

/** @import { Facts, ImageId, State } from "./types" */

export const MOST_HITS = 200; // session.py sends candidates enough for so many
/** @type {State} */
export const START = { images: [], text: "", lambda: 0.5, method: "weicom", top: 20, cls: "", min: null };
export const LAMBDAS = Array.from({ length: 21 }, (_, k) => k / 20); // where the slider stops

/** @param {number} x @param {number} low @param {number} high */
export const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

/** @param {unknown} x */
export const wantedHits = (x) => clamp(Math.round(Number(x)) || START.top, 1, MOST_HITS);

/** "oval - cars" is oval, without cars; a hyphen inside a word is none. @param {string} text */
export function parted(text) {
  const match = text.match(/^(.*?)(?:^|\s)[-−]\s*([^\s-].*)$/);
  const tidy = (/** @type {string} */ words) => words.trim().replace(/\s+/g, " ");
  return match ? { words: tidy(match[1]), without: tidy(match[2]) } : { words: tidy(text), without: "" };
}

// pictures of one's own are on this machine alone: no link holds them
/** @param {State} state @param {(position: number) => string} fileOf */
export function toLink(state, fileOf) {
  const link = new URLSearchParams();
  for (const image of state.images) if (typeof image === "number") link.append("image", fileOf(image));
  link.append("words", state.text);
  link.append("lambda", String(state.lambda));
  link.append("method", state.method);
  if (state.top !== START.top) link.append("top", String(state.top));
  if (state.cls) link.append("class", state.cls);
  if (state.min !== null) link.append("min", String(state.min));
  return link.toString();
}

// the state that a link asks for, without its pictures, and their files
/** @param {string} hash @param {State} state @param {Facts} facts */
export function fromLink(hash, state, facts) {
  const link = new URLSearchParams(hash.replace(/^#/, ""));
  const given = (/** @type {string} */ name) => link.get(name) ?? "";
  const lambda = link.has("lambda") ? Number(given("lambda")) : state.lambda;
  const min = Number.parseFloat(given("min"));
  const opened = {
    images: /** @type {ImageId[]} */ ([]),
    text: given("words"),
    lambda: clamp(Number.isFinite(lambda) ? lambda : START.lambda, 0, 1),
    method: facts.methods.some((method) => method.name === given("method")) ? given("method") : state.method,
    top: wantedHits(link.get("top")),
    cls: facts.classes.includes(given("class")) ? given("class") : "",
    min: Number.isFinite(min) ? min : null,
  };
  return { files: link.getAll("image"), opened };
}
