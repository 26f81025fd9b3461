// Files to save: the hits as a table, a picture, a page, or polygons for a map.

import { centre } from "./charts.js";
import { baseName, make, save, saveTable } from "./dom.js";

/** @import { View } from "./view.js" */

// as `Hits.to_csv` has them; what the benchmark and a person say of a hit comes last
const OF_HITS = "rank,position,file,class,score,cosine_image,cosine_text,normal_image,normal_text,lon,lat";
const COLUMNS = `${OF_HITS},query_image,query_text,query_method,query_lambda,query_archive,judged,mark`.split(",");
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

/** A file's name: the question in safe characters. */
function fileName(/** @type {View} */ { pictures, state }, /** @type {string} */ ending) {
  const stems = state.images.map((id) => baseName(pictures.of(id).file).replace(/\.\w+$/, ""));
  const asked = [...stems, state.text].join(" ").replace(/[^\p{L}\p{N}]+/gu, "-");
  return `hits_${asked.replace(/^-|-$/g, "").slice(0, 60).toLowerCase()}.${ending}`;
}

/** A row a hit, with a value for each of COLUMNS. */
function tableOf(/** @type {View} */ view) {
  const { facts, method, pictures, query, shown, state } = view;
  const images = state.images.map((id) => pictures.of(id).file).join(" + ");
  const asked = [images, state.text, method.name, method.hasLambda ? state.lambda : "", facts.title];
  return shown.rows.map((row, k) => {
    const position = query.position(row);
    const { file, class: cls, footprint } = pictures.of(position);
    const cosines = query.sides.map((s) => s[row] ?? "");
    const normals = query.sides.map((s, side) => (s.length ? 1 + query.scaled("upper_tail")[side][row] : ""));
    const place = footprint ? centre(footprint) : ["", ""];
    const judged = [query.judgement(row), view.markOf(position)];
    return [k + 1, position, file, cls, view.score(row), ...cosines, ...normals, ...place, ...asked, ...judged];
  });
}

export const saveCsv = (/** @type {View} */ view) => saveTable(fileName(view, "csv"), [COLUMNS, ...tableOf(view)]);

/** The hits that have a place, as polygons in longitude and latitude (RFC 7946). */
export function saveGeoJson(/** @type {View} */ view) {
  const features = tableOf(view).flatMap((row) => {
    const { footprint } = view.pictures.of(Number(row[1]));
    const geometry = { type: "Polygon", coordinates: [footprint] };
    const properties = Object.fromEntries(COLUMNS.map((column, k) => [column, row[k] === "" ? null : row[k]]));
    return footprint ? [{ type: "Feature", geometry, properties }] : [];
  });
  save(fileName(view, "geojson"), "application/geo+json", JSON.stringify({ type: "FeatureCollection", features }));
}

export function savePng(/** @type {View} */ view) {
  const { facts, pictures, query, shown, ui } = view;
  const width = ACROSS * SIDE + 20;
  const queried = [...ui.pictures.querySelectorAll("img")];
  const above = queried.length ? 172 : 62; // title and query
  const canvas = make("canvas", { width, height: above + Math.ceil(shown.rows.length / ACROSS) * (SIDE + 24) });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.fillStyle = "white";
  context.fillRect(0, 0, width, canvas.height);
  context.fillStyle = "black";
  context.font = "bold 15px sans-serif";
  context.fillText(heading(view), 14, 24, width - 28);
  context.font = "13px sans-serif";
  context.fillText(facts.title, 14, 44, width - 28);
  for (const [k, img] of queried.entries()) context.drawImage(img, 14 + 104 * k, 58, 96, 96);
  context.strokeStyle = "#1a7f37";
  context.lineWidth = 8;
  for (const [k, row] of shown.rows.entries()) {
    const left = 14 + (k % ACROSS) * SIDE;
    const top = above + Math.floor(k / ACROSS) * (SIDE + 24);
    const { file, img } = pictures.of(query.position(row));
    const isRelevant = query.judgement(row) === "relevant";
    if (isRelevant) context.strokeRect(left, top, SIDE - 14, SIDE - 14);
    if (img) context.drawImage(img, left, top, SIDE - 14, SIDE - 14);
    context.fillText(`${k + 1} ${isRelevant ? "✓ " : ""}${baseName(file)}`, left, top + SIDE + 4, SIDE - 14);
  }
  canvas.toBlob((blob) => blob && save(fileName(view, "png"), "image/png", blob));
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
  save(fileName(view, "html"), "text/html", `<!doctype html>\n${page.documentElement.outerHTML}`);
}
