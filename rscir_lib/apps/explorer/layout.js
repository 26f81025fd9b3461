// What stands on the page from the start. The markup is constant: names and words are put in later, as text.

import { make, partsOf } from "./dom.js";
import { MOST_HITS } from "./state.js";

/** @import { Facts, Parts } from "./types" */

const MARKUP = `
<h2 data-part="title"></h2>
<div class="columns">
  <div class="side">
    <section aria-label="Query" class="query">
      <div class="bar">
        <button type="button" data-part="back" title="back to the query before">←</button>
        <button type="button" data-part="forward" title="forward again">→</button>
        <button type="button" data-part="clear" title="start over, without picture and words">Clear</button>
      </div>
      <div class="pictures" data-part="pictures" role="group" aria-label="Pictures of the query"></div>
      <label><span>Words</span>
        <input data-part="words" type="text" autocomplete="off" spellcheck="false" placeholder="oval, or: oval - cars"></label>
      <datalist data-part="suggestions"></datalist>
      <p class="note" data-part="note" role="status"></p>
      <p class="error" data-part="error" role="alert"></p>
    </section>
    <details class="browse" data-part="browse">
      <summary>Choose a picture</summary>
      <div class="fields">
        <label><span>Class</span><select data-part="browseClass"><option value="">all</option></select></label>
        <label><span>Name</span><input data-part="browseName" type="text"></label>
      </div>
      <div class="bar">
        <button type="button" data-part="pageBefore" title="page before">‹</button>
        <span data-part="pageText" role="status"></span>
        <button type="button" data-part="nextPage" title="next page">›</button>
        <button type="button" data-part="random" title="pictures drawn at random">Random</button>
      </div>
      <div class="thumbs" data-part="thumbs"></div>
      <label data-part="uploadLabel">
        <span>A picture of your own: choose a file, or drop it anywhere on this page. Several pictures are searched by their average.</span>
        <input data-part="upload" type="file" accept="image/*,.tif,.tiff" multiple></label>
      <p class="note" data-part="noUpload">This page has no encoder: it knows the pictures of the archive and the words it suggests.</p>
      <div class="bar" data-part="benchmark">
        <label><span>Benchmark</span><select data-part="attribute"><option value="">all attributes</option></select></label>
        <button type="button" data-part="best" title="best query of the benchmark">best</button>
        <button type="button" data-part="worst" title="worst query of the benchmark">worst</button>
        <button type="button" data-part="any" title="random query of the benchmark">random</button>
      </div>
    </details>
  </div>
  <div class="main">
    <section aria-label="Mix" class="mix">
      <div class="ends"><span>picture</span><output data-part="lambda"></output><span>words</span></div>
      <input data-part="slider" type="range" min="0" max="1" step="0.05" class="lambda" aria-label="lambda, from picture to words">
      <div class="fields">
        <label><span>Method</span><select data-part="method"></select></label>
        <label><span>Hits</span><input data-part="top" type="number" min="1" max="${MOST_HITS}" step="1"></label>
        <label><span>Class</span><select data-part="cls"><option value="">all</option></select></label>
        <label><span>Least score</span><input data-part="min" type="number" step="any" placeholder="none"></label>
      </div>
    </section>
    <section aria-label="Hits">
      <div class="bar">
        <p class="count" data-part="count" role="status" aria-live="polite"></p>
        <p class="metrics" data-part="metrics"></p>
        <span class="space"></span>
        <button type="button" data-part="link" title="copy a link that opens this view">Link</button>
        <button type="button" data-part="csv" title="save these hits as a table">CSV</button>
        <button type="button" data-part="png" title="save these hits as a picture">PNG</button>
        <button type="button" data-part="html" title="save these hits as one self-contained page">HTML</button>
        <button type="button" data-part="marks" title="save your marks as a table">Marks</button>
      </div>
      <ol class="hits" data-part="hits"></ol>
    </section>
    <section aria-label="Why" class="why">
      <figure>
        <figcaption>Each dot is an image: how similar it is to the picture (across) and to the words (up), in standard deviations from
          the archive's mean. The line joins all points that score as much as the last hit.</figcaption>
        <p data-part="unplotted">A picture and words together draw the archive here.</p>
        <div class="plot" data-part="plot"><canvas data-part="scatter" width="640" height="480" role="img"></canvas>
          <svg data-part="marked" viewBox="0 0 640 480"></svg></div>
        <p class="note" data-part="pointed" role="status"></p>
      </figure>
      <figure><figcaption>The first hits from picture to words</figcaption><div class="strip" data-part="strip"></div></figure>
      <figure data-part="curveFigure" hidden>
        <figcaption data-part="curveText"></figcaption><svg data-part="curve" viewBox="0 0 320 180" role="img"></svg>
      </figure>
      <figure data-part="mapFigure" hidden>
        <figcaption>Where the hits lie</figcaption><svg data-part="map" role="img" aria-label="map of the hits"></svg>
      </figure>
    </section>
  </div>
</div>`;

// the page's root and its parts, by the names that they have in the markup; what this host can't do is left out
export function layout(/** @type {Facts} */ facts, /** @type {boolean} */ link) {
  const root = make("div", { class: "rscir" });
  root.innerHTML = MARKUP;
  /** @type {Parts} */
  const ui = { root, ...partsOf(root) };
  for (const node of root.querySelectorAll("button")) node.setAttribute("aria-label", node.title);
  ui.suggestions.id = `words-${Math.random().toString(36).slice(2)}`; // a notebook may show the explorer twice
  ui.words.setAttribute("list", ui.suggestions.id);
  ui.title.textContent = facts.title;
  ui.browse.open = !matchMedia("(max-width: 820px)").matches;
  const options = (/** @type {string[]} */ values) => values.map((value) => make("option", { value }, value));
  ui.method.append(...options(facts.methods.map((method) => method.name)));
  for (const node of [ui.browseClass, ui.cls]) node.append(...options(facts.classes.filter(Boolean)));
  ui.attribute.append(...options(facts.attributes));
  (facts.hasKernel ? ui.noUpload : ui.uploadLabel).remove();
  if (!facts.attributes.length) ui.benchmark.remove();
  if (!link) ui.link.remove();
  if (facts.hasKernel) ui.marks.remove(); // which are in its file
  return ui;
}
