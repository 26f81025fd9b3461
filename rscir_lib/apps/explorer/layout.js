// What stands on the page from the start. The markup is constant: names and words are put in later, as text.

import { make, partsOf } from "./dom.js";
import { MOST_HITS } from "./state.js";

/** @import { Facts, Parts } from "./types" */

const button = (/** @type {string} */ part, /** @type {string} */ text, /** @type {string} */ title) =>
  `<button type="button" data-part="${part}" title="${title}" aria-label="${title}">${text}</button>`;
const field = (/** @type {string} */ name, /** @type {string} */ control) =>
  `<label><span>${name}</span>${control}</label>`;

const MARKUP = `
<h2 data-part="title"></h2>
<p class="notice" data-part="notice" role="alert"></p>
<div class="columns">
  <div class="side">
    <section aria-label="Query" class="query">
      <div class="bar">${button("back", "←", "back to the query before")}${button("forward", "→", "forward again")}
        ${button("clear", "Clear", "start over, without picture and words")}</div>
      <div class="pictures" data-part="pictures" role="group" aria-label="Pictures of the query"></div>
      <label><span>Words</span><input data-part="words" type="text" autocomplete="off" spellcheck="false"
        placeholder="oval, or: oval - cars"></label><datalist data-part="suggestions"></datalist>
      <p class="note" data-part="note" role="status"></p>
      <p class="error" data-part="error" role="alert"></p>
    </section>
    <figure class="scatter">
      <div class="plot" data-part="plot"><canvas data-part="scatter" width="640" height="480" role="img"></canvas>
        <svg data-part="marked" viewBox="0 0 640 480"></svg></div>
      <p class="note" data-part="pointed" role="status"></p>
      <figcaption>Each dot is an image: how similar it is to the picture (across) and to the words (up), in standard
        deviations from the archive's mean. The line joins all points that score as much as the last hit.</figcaption>
    </figure>
    <figure data-part="mapFigure" hidden><svg data-part="map" role="img" aria-label="map of the hits"></svg>
      <figcaption data-part="mapText"></figcaption></figure>
    <details class="browse" data-part="browse">
      <summary>Choose a picture</summary>
      <div class="fields">${field("Class", `<select data-part="browseClass"><option value="">all</option></select>`)}
        ${field("Name", `<input data-part="browseName" type="text">`)}</div>
      <div class="bar">${button("pageBefore", "‹", "page before")}<span data-part="pageText" role="status"></span>
        ${button("nextPage", "›", "next page")}${button("random", "Random", "pictures drawn at random")}</div>
      <div class="thumbs" data-part="thumbs"></div>
      <label data-part="uploadLabel"><span>A picture of your own: choose a file, or drop it anywhere on this page. Several
        pictures are searched by their average.</span>
        <input data-part="upload" type="file" accept="image/*,.tif,.tiff,.jp2,.heic,.heif" multiple></label>
      <p class="note" data-part="noUpload">This page has no encoder: it knows the pictures of the archive and the words it
        suggests.</p>
      <div class="bar" data-part="benchmark">
        ${field("Benchmark", `<select data-part="attribute"><option value="">all attributes</option></select>`)}
        ${button("best", "best", "best query of the benchmark")}${button("worst", "worst", "worst query of the benchmark")}
        ${button("any", "random", "random query of the benchmark")}</div>
    </details>
  </div>
  <div class="main">
    <section aria-label="Mix" class="mix">
      <div class="ends"><span>picture</span><span><output data-part="lambda"></output>
        ${button("auto", "auto", "read lambda off this query, without a label")}</span><span>words</span></div>
      <input data-part="slider" type="range" min="0" max="1" step="0.05" class="lambda"
        aria-label="lambda, from picture to words">
      <div class="fields">${field("Method", `<select data-part="method"></select>`)}
        ${field("Hits", `<input data-part="top" type="number" min="1" max="${MOST_HITS}" step="1">`)}
        ${field("Class", `<select data-part="cls"><option value="">all</option></select>`)}
        ${field("Least score", `<input data-part="min" type="number" step="any" placeholder="none">`)}</div>
    </section>
    <section aria-label="Hits">
      <div class="bar">
        <p class="count" data-part="count" role="status" aria-live="polite"></p>
        <p class="metrics" data-part="metrics"></p>
        <div class="bar">${button("link", "Link", "copy a link that opens this view")}${button("csv", "CSV", "save these hits as a table")}
          ${button("png", "PNG", "save these hits as a picture")}
          ${button("html", "HTML", "save these hits as one self-contained page")}
          ${button("geojson", "GeoJSON", "save these hits as polygons for a map")}</div>
      </div>
      <p class="note" data-part="about"></p>
      <ol class="hits" data-part="hits"></ol>
      ${button("more", "More hits", "show twenty more hits")}
      <details class="marks" data-part="markList"><summary data-part="markCount"></summary>
        ${button("marks", "CSV", "save your marks as a table")}<ol data-part="markRows"></ol></details>
    </section>
    <section aria-label="Why" class="why">
      <figure><figcaption>The first hits from picture to words</figcaption><div class="strip" data-part="strip"></div></figure>
      <figure data-part="curveFigure" hidden><figcaption data-part="curveText"></figcaption>
        <svg data-part="curve" viewBox="0 0 320 180" role="img"></svg></figure>
    </section>
  </div>
</div>
<dialog data-part="large" aria-label="A hit, large">
  <div class="bar">${button("largeBefore", "‹", "hit before")}${button("largeNext", "›", "next hit")}
    <b data-part="largeName"></b>${button("largeSearch", "→", "search from this picture")}
    <a data-part="largeOpen" target="_blank">Open</a>
    <form method="dialog"><button>Close</button></form></div>
  <img data-part="largeImage" alt=""><p class="note" data-part="largePath"></p>
</dialog>`;

/** The page's parts, by the names that they have in the markup; what this host can't do is left out. */
export function layout(/** @type {Facts} */ facts, /** @type {boolean} */ link) {
  const root = make("div", { class: "rscir" });
  root.innerHTML = MARKUP;
  const ui = /** @type {Parts} */ ({ root, ...partsOf(root) });
  ui.suggestions.id = `words-${Math.random().toString(36).slice(2)}`; // a notebook may show the explorer twice
  ui.words.setAttribute("list", ui.suggestions.id);
  ui.title.textContent = facts.title;
  ui.notice.textContent = facts.notice;
  ui.browse.open = !matchMedia("(max-width: 820px)").matches;
  const options = (/** @type {string[]} */ values) => values.map((value) => make("option", { value }, value));
  ui.method.append(...options(facts.methods.map((method) => method.name)));
  for (const node of [ui.browseClass, ui.cls]) node.append(...options(facts.classes.filter(Boolean)));
  ui.attribute.append(...options([...new Set(facts.queries.map(([, , attribute]) => attribute))]));
  (facts.hasKernel ? ui.noUpload : ui.uploadLabel).remove();
  if (!facts.hasKernel) ui.auto.remove(); // a page alone reads no lambda
  if (!facts.queries.length) ui.benchmark.remove();
  if (!link) ui.link.remove();
  return ui;
}
