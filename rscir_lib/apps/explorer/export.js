// Files to save: the hits as a table, as a picture or as a page; the marks as a table.

import { baseName, make, save } from "./dom.js";

/** @import { View } from "./view.js" */

const SIDES = ["cosine_picture", "cosine_words", "percentile_picture", "percentile_words"];
const COLUMNS = ["rank", "file", "class", "score", ...SIDES, "judged", "mark"];
const ACROSS = 5; // pictures
const SIDE = 150; // of each with its margin, in pixels; below it stands its name
const STYLE = `body { font: 15px sans-serif; margin: 2em; color-scheme: light dark } ol { display: flex; flex-wrap: wrap; gap: 1em }
li { width: 190px; list-style: none } img { width: 180px } .name { display: block; overflow-wrap: anywhere }
th { text-align: left; font-weight: normal } .relevant img { outline: 4px solid #1a7f37 }`;

function heading(/** @type {View} */ { method, pictures, state }) {
  const images = state.images.map((id) => pictures.nameOf(id)).join(" + ") || "no picture";
  const lambda = method.hasLambda ? `, lambda ${state.lambda.toFixed(2)}` : "";
  return `${images}${state.text ? ` + ${state.text}` : ""}, ${state.method}${lambda}`;
}

function saveTable(/** @type {string} */ name, /** @type {(string | number)[][]} */ rows) {
  // a text that a spreadsheet would run as a formula is shown by an apostrophe in front, as storage/cells.py has it
  const shown = (/** @type {string | number} */ value) =>
    typeof value === "string" ? value.replace(/^(?='*[=+\-@\t\r\n])/, "'") : String(value);
  const cell = (/** @type {string} */ text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  save(name, "text/csv", rows.map((row) => `${row.map((value) => cell(shown(value))).join(",")}\n`).join(""));
}

export function saveCsv(/** @type {View} */ view) {
  const { pictures, query, shown } = view;
  const table = shown.rows.map((row, k) => {
    const position = query.position(row);
    const { file, class: cls } = pictures.of(position);
    const cosines = query.sides.map((s) => s[row] ?? "");
    const percentiles = query.sides.map((s, side) => (s.length ? query.percentile(side, row) : ""));
    const judged = [query.judgement(row), view.markOf(position)];
    return [k + 1, file, cls, view.score(row), ...cosines, ...percentiles, ...judged];
  });
  saveTable("hits.csv", [COLUMNS, ...table]);
}

export function saveMarks(/** @type {View} */ view) {
  const last = new Map(view.marks.map((mark) => [mark.slice(0, 3).join("\n"), mark]));
  saveTable(
    "marks.csv",
    [["image", "text", "answer", "verdict"], ...last.values()].filter((mark) => mark[3]),
  );
}

export function savePng(/** @type {View} */ view) {
  const { facts, pictures, query, shown } = view;
  const width = ACROSS * SIDE + 20;
  const canvas = make("canvas", { width, height: 60 + Math.ceil(shown.rows.length / ACROSS) * (SIDE + 24) });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.fillStyle = "white";
  context.fillRect(0, 0, width, canvas.height);
  context.fillStyle = "black";
  context.font = "bold 15px sans-serif";
  context.fillText(heading(view), 14, 24, width - 28);
  context.font = "13px sans-serif";
  context.fillText(facts.title, 14, 44, width - 28);
  context.strokeStyle = "#1a7f37";
  context.lineWidth = 8;
  for (const [k, row] of shown.rows.entries()) {
    const left = 14 + (k % ACROSS) * SIDE;
    const top = 62 + Math.floor(k / ACROSS) * (SIDE + 24);
    const { file, img } = pictures.of(query.position(row));
    const isRelevant = query.judgement(row) === "relevant";
    if (isRelevant) context.strokeRect(left, top, SIDE - 14, SIDE - 14);
    if (img) context.drawImage(img, left, top, SIDE - 14, SIDE - 14);
    context.fillText(`${k + 1} ${isRelevant ? "✓ " : ""}${baseName(file)}`, left, top + SIDE + 4, SIDE - 14);
  }
  canvas.toBlob((blob) => blob && save("hits.png", "image/png", blob));
}

/** The hits as they are on the screen, without what can be clicked. */
export function saveHtml(/** @type {View} */ view) {
  const { facts, ui } = view;
  const page = document.implementation.createHTMLDocument(heading(view));
  page.documentElement.lang = "en";
  const hits = /** @type {Element} */ (ui.hits.cloneNode(true));
  for (const node of hits.querySelectorAll(".verdicts, .open")) node.replaceWith(...node.querySelectorAll("img, span"));
  const queried = [...ui.pictures.querySelectorAll("img")].map((img) => img.cloneNode());
  page.head.append(make("meta", { charset: "utf-8" }), make("style", {}, STYLE));
  page.body.append(make("h1", {}, heading(view)), make("p", {}, facts.title), ...queried, hits);
  save("hits.html", "text/html", `<!doctype html>\n${page.documentElement.outerHTML}`);
}
