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

function saveTable(/** @type {string} */ name, /** @type {(string | number)[][]} */ rows) {
  const cell = (/** @type {string} */ text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  save(name, "text/csv", rows.map((row) => `${row.map((value) => cell(String(value))).join(",")}\n`).join(""));
}

export function saveCsv(/** @type {View} */ view) {
  const { pictures, query, shown } = view;
  const table = shown.rows.map((row, k) => {
    const position = query.position(row);
    const { file, class: cls } = pictures.of(position);
    const cosines = query.sides.map((s) => s[row] ?? "");
    const percentiles = query.sides.map((s, side) => (s.length ? query.percentile(side, row) : ""));
    const said = [query.judgement(row), query.answer.marks[position] || ""];
    return [k + 1, file, cls, view.score(row), ...cosines, ...percentiles, ...said];
  });
  saveTable("hits.csv", [COLUMNS, ...table]);
}

export async function saveMarks(/** @type {View} */ view) {
  const { rows } = await view.ask({ ask: "marks" });
  saveTable("marks.csv", [["image", "text", "answer", "verdict"], ...rows]);
}

export function savePng(/** @type {View} */ view) {
  const { facts, pictures, query, shown } = view;
  const across = 5;
  const side = 150;
  const height = 60 + Math.ceil(shown.rows.length / across) * (side + 24);
  const canvas = make("canvas", { width: across * side + 20, height });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  /** @param {string} text @param {number} left @param {number} bottom @param {number} width */
  const write = (text, left, bottom, width) => {
    context.fillStyle = "black";
    context.fillText(text, left, bottom, width);
  };
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, height);
  context.font = "bold 15px sans-serif";
  write(heading(view), 14, 24, canvas.width - 28);
  context.font = "13px sans-serif";
  write(facts.title, 14, 44, canvas.width - 28);
  for (const [k, row] of shown.rows.entries()) {
    const left = 10 + (k % across) * side;
    const top = 58 + Math.floor(k / across) * (side + 24);
    const { file, img } = pictures.of(query.position(row));
    const isRelevant = query.judgement(row) === "relevant";
    context.fillStyle = isRelevant ? "#1a7f37" : "white";
    context.fillRect(left, top, side - 6, side - 6);
    if (img) context.drawImage(img, left + 4, top + 4, side - 14, side - 14);
    write(`${k + 1} ${isRelevant ? "✓ " : ""}${baseName(file)}`, left + 4, top + side + 8, side - 14);
  }
  canvas.toBlob((blob) => blob && save("hits.png", "image/png", blob));
}

const STYLE = `body { font: 15px sans-serif; margin: 2em; color-scheme: light dark } ol { display: flex; flex-wrap: wrap; gap: 1em }
li { width: 190px; list-style: none } img { width: 180px } .name { display: block; overflow-wrap: anywhere }
th { text-align: left; font-weight: normal } .relevant img { outline: 4px solid #1a7f37 }`;

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
