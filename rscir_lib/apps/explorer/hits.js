// The grid of hits: each a picture to search from, with its score, where it stands, and the marks of a person.

import { baseName, button, make, number, partsOf, put, say, slots } from "./dom.js";
import { averagePrecision, ranks } from "./scoring.js";

/** @import { View } from "./view.js" */

const HIT = `
<div class="head"><span class="rank" data-part="rank"></span><span class="cls" data-part="cls"></span>
  <span class="score" data-part="score"></span></div>
<span class="name" data-part="name"></span>
<table title="cosine similarity, and the share of the archive that is less similar">
  <tr><th scope="row">picture</th><td data-part="cosine0"></td><td data-part="percentile0"></td></tr>
  <tr><th scope="row">words</th><td data-part="cosine1"></td><td data-part="percentile1"></td></tr>
</table>`;

const JUDGEMENTS = {
  "": { badge: "", said: "" },
  relevant: { badge: "✓", said: ", relevant" },
  unknown: { badge: "?", said: ", not labelled" },
  other: { badge: "", said: ", not relevant" },
};

/** @param {View} view @param {number} k */
function hit(view, k) {
  const li = make("li");
  li.innerHTML = HIT;
  const row = () => view.shown.rows[k];
  const position = () => view.query.position(row());
  li.onmouseenter = () => view.highlight(row());
  li.onmouseleave = () => view.highlight(null);
  li.addEventListener("focusin", () => view.highlight(row()));
  const badge = make("span", { class: "badge", "data-part": "badge", "aria-hidden": "true" });
  const open = button("", (event) => view.choose(event, position()), badge);
  open.className = "open";
  const marks = [
    button("", () => mark(view, row(), "right"), "✓"),
    button("", () => mark(view, row(), "wrong"), "✗"),
    button("", () => view.join(position()), "+"),
  ];
  li.prepend(open);
  li.append(make("div", { class: "verdicts" }, ...marks));
  return li;
}

/** @param {View} view @param {HTMLElement} li @param {number} row @param {number} k */
function drawHit(view, li, row, k) {
  const { query, pictures } = view;
  const position = query.position(row);
  const picture = pictures.of(position);
  const judgement = query.judgement(row);
  const verdict = query.answer.marks[position] || "";
  const open = /** @type {Element} */ (li.firstElementChild);
  const parts = partsOf(li);
  put(li, "class", ["hit", judgement, verdict && `marked-${verdict}`].filter(Boolean).join(" "));
  const img = picture.img ?? make("img");
  if (open.firstChild !== img) open.replaceChildren(img, parts.badge);
  put(img, "alt", pictures.nameOf(position));
  const { badge: sign, said } = JUDGEMENTS[judgement];
  put(open, "aria-label", `${k + 1}: ${pictures.nameOf(position)}${said}; search from it`);
  put(open, "title", picture.file);
  say(parts.badge, sign);
  const texts = {
    rank: `${k + 1}`,
    cls: picture.class,
    name: baseName(picture.file),
    score: view.score(row).toFixed(4),
  };
  for (const [name, text] of Object.entries(texts)) say(parts[name], text);
  query.sides.forEach((s, side) => {
    say(parts[`cosine${side}`], s ? s[row].toFixed(3) : "–");
    say(parts[`percentile${side}`], s ? `${query.percentile(side, row).toFixed(1)} %` : "–");
  });
  const name = baseName(picture.file);
  const [right, wrong, join] = li.querySelectorAll(".verdicts button");
  for (const [which, node] of Object.entries({ right, wrong })) {
    put(node, "aria-pressed", verdict === which);
    put(node, "aria-label", `mark ${name} ${which}`);
    put(node, "hidden", view.markedImage === null ? "" : null);
  }
  put(join, "aria-label", `add ${name} to the query`);
}

/** @param {View} view */
export function drawHits(view) {
  const { facts, query, shown, state, ui } = view;
  slots(
    ui.hits,
    shown.rows,
    (k) => hit(view, k),
    (li, row, k) => drawHit(view, li, row, k),
  );
  const { relevant, attribute } = query.answer;
  const cls = facts.classes.indexOf(state.cls);
  const n = state.cls ? view.classes.filter((other) => other === cls).length : facts.n;
  const judgements = shown.rows.map((row) => query.judgement(row));
  const right = judgements.filter((judgement) => judgement === "relevant").length;
  const counted = `${number(shown.rows.length)} of ${number(n)} images${relevant ? `, ${right} relevant` : ""}`;
  say(ui.count, query.isBlank ? "Choose a picture, type words, or both." : counted);
  if (!relevant) {
    const unlabelled = facts.attributes.length && !query.isBlank;
    say(ui.metrics, unlabelled ? "This query is not in the benchmark: nobody said which images are relevant." : "");
    return;
  }
  const parts = [`${attribute}, ${relevant.length} relevant`];
  if (facts.whole && shown.scores.length) {
    const precision = averagePrecision(ranks(shown.scores, relevant, query.unknown));
    parts.push(`AP ${(100 * precision).toFixed(1)}`);
  }
  const labelled = judgements.filter((judgement) => judgement !== "unknown");
  for (const k of state.cls || state.min !== null ? [] : [5, 10, 20].filter((k) => k <= labelled.length)) {
    const share = labelled.slice(0, k).filter((judgement) => judgement === "relevant").length / k;
    parts.push(`P@${k} ${(100 * share).toFixed(0)}`);
  }
  say(ui.metrics, parts.join(" · "));
}

// a second click on the same mark takes it back
/** @param {View} view @param {number} row @param {"right" | "wrong"} verdict */
async function mark(view, row, verdict) {
  const { query, markedImage } = view;
  if (view.isWaiting || markedImage === null) return; // the hits on the screen are no answer to what is asked by now
  const { marks } = query.answer;
  const answer = query.position(row);
  const now = marks[answer] === verdict ? "" : verdict;
  const { words, without } = query.question;
  const [reply] = await view.ask({ ask: "mark", image: markedImage, words, without, answer, verdict: now });
  if (reply.error) return;
  marks[answer] = now;
  if (query === view.query) drawHits(view);
}
