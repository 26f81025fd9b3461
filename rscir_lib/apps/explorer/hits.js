// The grid of hits: each a picture to enlarge and to search from, with its score and the marks of a person.

import { baseName, decoded, make, number, partsOf, put, say, slots } from "./dom.js";
import { drawMarks, keep, subject } from "./marks.js";
import { averagePrecision, ranks } from "./scoring.js";
import { MOST_HITS } from "./state.js";

/** @import { View } from "./view.js" */

const HIT = `
<button type="button" class="open" data-part="open"><span class="badge" data-part="badge" aria-hidden="true"></span></button>
<div class="head"><span class="rank" data-part="rank"></span><span class="cls" data-part="cls"></span>
  <span class="score" data-part="score"></span></div>
<span class="name" data-part="name"></span>
<table title="cosine similarity, and the share of the archive that is less similar">
  <tr><th scope="row">picture</th><td data-part="cosine0"></td><td data-part="percentile0"></td></tr>
  <tr><th scope="row">words</th><td data-part="cosine1"></td><td data-part="percentile1"></td></tr>
</table>
<div class="verdicts"><button type="button" data-part="right">✓</button>
  <button type="button" data-part="wrong">✗</button><button type="button" data-part="join">+</button>
  <button type="button" data-part="from">→</button></div>`;
const VERDICTS = /** @type {const} */ (["right", "wrong"]);
const BADGES = { "": "", relevant: "✓", unknown: "?", other: "" };
const JUDGEMENTS = { "": "", relevant: ", relevant", unknown: ", not labelled", other: ", not relevant" };

/** Show the k-th hit in a dialog over the page, with its file; before the first comes the last. */
async function enlarge(/** @type {View} */ view, /** @type {number} */ k) {
  const { pictures, query, shown, ui } = view;
  const n = shown.rows.length;
  const turned = (k + n) % n;
  const position = query.position(shown.rows[turned]);
  const { error, jpeg, path } = await view.ask({ ask: "picture", position });
  if (error) return;
  URL.revokeObjectURL(ui.largeOpen.href);
  const alt = pictures.nameOf(position);
  put(ui.largeOpen, { href: URL.createObjectURL(new Blob([decoded(jpeg)], { type: "image/jpeg" })) });
  put(ui.largeImage, { src: `data:image/jpeg;base64,${jpeg}`, alt });
  say(ui.largeName, `${turned + 1}: ${alt}`);
  say(ui.largePath, path || pictures.of(position).file);
  ui.largeBefore.onclick = () => enlarge(view, turned - 1);
  ui.largeNext.onclick = () => enlarge(view, turned + 1);
  ui.largeSearch.onclick = (/** @type {MouseEvent} */ event) => {
    ui.large.close();
    view.choose(event, position);
  };
  if (!ui.large.open) ui.large.showModal();
}

function hit(/** @type {View} */ view, /** @type {number} */ k) {
  const li = make("li");
  li.innerHTML = HIT;
  const { open, join, from, ...parts } = partsOf(li);
  const position = () => view.query.position(view.shown.rows[k]);
  open.onclick = () => enlarge(view, k);
  from.onclick = (/** @type {MouseEvent} */ event) => view.choose(event, position());
  join.onclick = (/** @type {MouseEvent} */ event) => view.choose(event, position(), true);
  for (const verdict of VERDICTS) {
    parts[verdict].onclick = () => {
      if (view.isWaiting) return; // the hits on the screen are no answer to what is asked by now
      const now = view.markOf(position()) === verdict ? "" : verdict; // a second click takes it back
      keep(view, [subject(view), view.query.text, view.facts.files[position()], now]);
    };
  }
  return li;
}

/** @param {View} view @param {HTMLElement} li @param {number} row @param {number} k */
function drawHit(view, li, row, k) {
  const { query, pictures } = view;
  const position = query.position(row);
  const { file, class: cls, img = make("img") } = pictures.of(position);
  const judgement = query.judgement(row);
  const verdict = view.markOf(position);
  const name = baseName(file);
  const parts = partsOf(li);
  put(li, { "data-row": row, class: `hit ${judgement} ${verdict && `marked-${verdict}`}` });
  if (parts.open.firstChild !== img) parts.open.replaceChildren(img, parts.badge);
  const alt = pictures.nameOf(position);
  put(img, { alt });
  put(parts.open, { title: file, "aria-label": `${k + 1}: ${alt}${JUDGEMENTS[judgement]}; enlarge` });
  const texts = { badge: BADGES[judgement], rank: `${k + 1}`, cls, name, score: view.score(row).toFixed(4) };
  for (const [part, text] of Object.entries(texts)) say(parts[part], text);
  query.sides.forEach((s, side) => {
    say(parts[`cosine${side}`], s.length ? s[row].toFixed(3) : "–");
    say(parts[`percentile${side}`], s.length ? `${query.percentile(side, row).toFixed(1)} %` : "–");
  });
  const hidden = subject(view) ? null : "";
  for (const which of VERDICTS) put(parts[which], { hidden, "aria-pressed": verdict === which });
  const does = { right: `mark ${name} right`, wrong: `mark ${name} wrong`, join: `add ${name} to the query` };
  for (const [part, title] of Object.entries({ ...does, from: `search from ${name}` })) {
    put(parts[part], { title, "aria-label": title });
  }
}

export function drawHits(/** @type {View} */ view) {
  const { facts, query, shown, state, ui } = view;
  const create = (/** @type {number} */ k) => hit(view, k);
  slots(ui.hits, shown.rows, create, (li, row, k) => drawHit(view, li, row, k));
  drawMarks(view);
  ui.more.hidden = shown.rows.length < state.top || state.top >= MOST_HITS;
  const { attribute, relevant } = query;
  const n = facts.classIndex.filter((cls) => !state.cls || facts.classes[cls] === state.cls).length;
  const judgements = shown.rows.map((row) => query.judgement(row));
  const countRelevant = (/** @type {string[]} */ judged) => judged.filter((value) => value === "relevant").length;
  const right = attribute ? `, ${countRelevant(judgements)} relevant` : "";
  const counted = `${number(shown.rows.length)} of ${number(n)} images${right}`;
  say(ui.count, !query.rows ? "Choose a picture, type words, or both." : counted);
  const isUnknown = facts.queries.length && query.rows;
  const missing = isUnknown ? "This query is not in the benchmark: nobody said which images are relevant." : "";
  if (!attribute) return say(ui.metrics, missing);
  const parts = [`${attribute}, ${relevant.size} relevant`];
  if (facts.whole && shown.scores.length) {
    const precision = averagePrecision(ranks(shown.scores, [...relevant], query.unknown));
    const median = state.method === "weicom" && state.lambda === 0.5 && facts.median;
    parts.push(`AP ${(100 * precision).toFixed(1)} ${median ? `(median query ${median.toFixed(1)})` : ""}`.trim());
  }
  const labelled = judgements.filter((judgement) => judgement !== "unknown");
  for (const k of [5, 10, 20]) {
    const isWhole = !state.cls && state.min === null && k <= labelled.length;
    if (isWhole) parts.push(`P@${k} ${((100 * countRelevant(labelled.slice(0, k))) / k).toFixed(0)}`);
  }
  say(ui.metrics, parts.join(" · "));
}
