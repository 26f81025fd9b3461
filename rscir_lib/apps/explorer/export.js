// What a person takes along: the hits as a table, as a picture, as a page; marks as a table.

import { baseName, make, save } from "./dom.js";

/** @import { View } from "./view.js" */

/** @param {View} view */
function heading({ method, pictures, state }) {
  const images = state.images.map((id) => pictures.nameOf(id)).join(" + ") || "no picture";
  const lambda = method.hasLambda ? `, lambda ${state.lambda.toFixed(2)}` : "";
  return `${images}${state.text ? ` + ${state.text}` : ""}, ${state.method}${lambda}`;
}

const SIDES = ["cosine_picture", "cosine_words", "percentile_picture", "percentile_words"];
const COLUMNS = ["rank", "file", "class", "score", ...SIDES, "judged", "mark"];

/** @param {View} view @returns {(string | number)[][]} */
function table(view) {
  const { pictures, query, shown } = view;
  return shown.rows.map((row, k) => {
    const position = query.position(row);
    const { file, class: cls } = pictures.of(position);
    const cosines = query.sides.map((s) => (s ? s[row] : ""));
    const percentiles = query.sides.map((s, side) => (s ? query.percentile(side, row) : ""));
    const said = [query.judgement(row), query.answer.marks[position] || ""];
    return [k + 1, file, cls, view.score(row), ...cosines, ...percentiles, ...said];
  });
}

/** @param {string} name @param {(string | number)[][]} rows */
function saveTable(name, rows) {
  const cell = (/** @type {string} */ text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  save(name, "text/csv", rows.map((row) => `${row.map((value) => cell(String(value))).join(",")}\n`).join(""));
}

/** @param {View} view */
export function saveCsv(view) {
  saveTable("hits.csv", [COLUMNS, ...table(view)]);
}

/** @param {View} view */
export async function saveMarks(view) {
  const [answer] = await view.ask({ ask: "marks" });
  if (!answer.error) saveTable("marks.csv", [["image", "text", "answer", "verdict"], ...answer.rows]);
}

/** @param {View} view */
export function savePng(view) {
  const { facts, pictures, query, shown } = view;
  const across = 5;
  const side = 150;
  const width = across * side + 20;
  const height = 60 + Math.ceil(shown.rows.length / across) * (side + 24);
  const canvas = make("canvas", { width, height });
  const context = canvas.getContext("2d");
  if (!context) return;
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.fillStyle = "black";
  context.font = "bold 15px sans-serif";
  context.fillText(heading(view), 14, 24, width - 28);
  context.font = "13px sans-serif";
  context.fillText(facts.title, 14, 44, width - 28);
  for (const [k, row] of shown.rows.entries()) {
    const left = 10 + (k % across) * side;
    const top = 58 + Math.floor(k / across) * (side + 24);
    const { file, img } = pictures.of(query.position(row));
    const isRelevant = query.judgement(row) === "relevant";
    context.fillStyle = "#1a7f37";
    if (isRelevant) context.fillRect(left, top, side - 6, side - 6);
    if (img) context.drawImage(img, left + 4, top + 4, side - 14, side - 14);
    context.fillStyle = "black";
    context.fillText(`${k + 1} ${isRelevant ? "✓ " : ""}${baseName(file)}`, left + 4, top + side + 8, side - 14);
  }
  canvas.toBlob((blob) => blob && save("hits.png", "image/png", blob));
}

const STYLE = `body { font: 15px sans-serif; margin: 2em; color-scheme: light dark } ol { display: flex; flex-wrap: wrap; gap: 1em }
li { width: 190px; list-style: none } img { width: 180px } .name { display: block; overflow-wrap: anywhere }
th { text-align: left; font-weight: normal } .relevant img { outline: 4px solid #1a7f37 }`;

/** The hits as they are on the screen, without what can be clicked. @param {View} view */
export function saveHtml(view) {
  const { facts, ui } = view;
  const page = document.implementation.createHTMLDocument(heading(view));
  page.documentElement.lang = "en";
  const hits = /** @type {Element} */ (ui.hits.cloneNode(true));
  for (const node of hits.querySelectorAll(".verdicts")) node.remove();
  for (const open of hits.querySelectorAll(".open")) open.replaceWith(...open.children);
  const queried = [...ui.pictures.querySelectorAll("img")].map((img) => img.cloneNode());
  page.head.append(make("meta", { charset: "utf-8" }), make("style", {}, STYLE));
  page.body.append(make("h1", {}, heading(view)), make("p", {}, facts.title), ...queried, hits);
  save("hits.html", "text/html", `<!doctype html>\n${page.documentElement.outerHTML}`);
}
