// What stands beside the scatter: the first hits at five lambdas, average precision against lambda, and the hits on a map.

import { make, number, put, rowAt, say, slots } from "./dom.js";
import { averagePrecision, ranks } from "./scoring.js";
import { LAMBDAS } from "./state.js";

/** @import { View } from "./view.js" */
/** @typedef {[number, number]} Point */

const STRIP = [0, 0.5, 0.75, 0.95, 1];
const AXES = `<path d="M34 12H310M34 81H310M34 150H310" class="grid"/>
  <g text-anchor="end"><text x="28" y="16">100</text><text x="28" y="85">50</text><text x="28" y="154">0</text></g>
  <g text-anchor="middle"><text x="34" y="168">0</text><text x="172" y="168">0.5</text><text x="310" y="168">1</text></g>`;

/** For each of five lambdas a column of its first hits; a click on it moves lambda there. */
export async function drawStrip(/** @type {View} */ view, /** @type {() => boolean} */ isStale) {
  const { method, pictures, query, state, ui } = view;
  if (!query.isComposed || !method.hasLambda) return ui.strip.replaceChildren();
  const columns = [];
  for (const lambda of STRIP) {
    const hits = await view.hitsAt(lambda, 5);
    if (isStale()) return;
    if (!hits) return ui.strip.replaceChildren(); // the method refuses: no pictures of another
    columns.push({ lambda, positions: hits.rows.map((row) => query.position(row)) });
  }
  const create = (/** @type {number} */ k) => {
    const button = make("button", { type: "button" }, make("span"), make("span", { class: "faces" }));
    button.onclick = () => view.change({ lambda: STRIP[k] });
    return button;
  };
  const createFace = () => make("img");
  slots(ui.strip, columns, create, (button, { lambda, positions }) => {
    const [label, faces] = button.children;
    say(label, `λ ${lambda}`);
    put(button, { "aria-label": `lambda ${lambda}`, "aria-current": lambda === state.lambda || null });
    slots(faces, positions, createFace, (img, position) => {
      pictures.show(img, position);
      img.classList.toggle("relevant", query.relevant.has(position));
    });
  });
}

export async function drawCurve(/** @type {View} */ view, /** @type {() => boolean} */ isStale) {
  const { facts, method, query, state, ui } = view;
  const isDrawn = facts.whole && query.isComposed && method.hasLambda && method.rule && query.relevant.size;
  ui.curveFigure.hidden = !isDrawn;
  if (!isDrawn) return;
  const precision = async (/** @type {number} */ lambda) => {
    const scores = await query.scoresAt(method, lambda, view.ask);
    return 100 * averagePrecision(ranks(scores ?? new Float64Array(0), [...query.relevant], query.unknown));
  };
  const values = /** @type {number[]} */ (query.curves.get(method.name) ?? []);
  for (const lambda of LAMBDAS.slice(values.length)) {
    values.push(await precision(lambda));
    await new Promise((done) => setTimeout(done)); // the slider comes first
    if (isStale()) return;
  }
  query.curves.set(method.name, values);
  const now = await precision(state.lambda);
  const x = (/** @type {number} */ lambda) => 34 + lambda * 276;
  const y = (/** @type {number} */ ap) => 150 - (ap / 100) * 138;
  const points = values.map((ap, k) => `${x(LAMBDAS[k])},${y(ap)}`).join(" ");
  const here = x(state.lambda);
  ui.curve.innerHTML = `${AXES}<polyline points="${points}" class="curve"/>
    <path d="M${here} 12V150" class="now"/><circle cx="${here}" cy="${y(now)}" r="5" class="now"/>`; // numbers alone
  const top = values.indexOf(Math.max(...values));
  const highest = `best ${values[top].toFixed(1)} at ${LAMBDAS[top].toFixed(2)}`;
  const text = `AP of this query against lambda: ${now.toFixed(1)} at ${state.lambda.toFixed(2)}, ${highest}`;
  say(ui.curveText, text);
  put(ui.curve, { "aria-label": text });
}

function boxOf(/** @type {Point[]} */ points) {
  const [h, v] = [0, 1].map((axis) => points.map((point) => point[axis]));
  const [left, top] = [Math.min(...h), Math.min(...v)];
  return { left, top, width: Math.max(...h) - left, height: Math.max(...v) - top };
}

/** Longitude and latitude of the middle of a footprint. */
export function centre(/** @type {Point[]} */ footprint) {
  const { left, top, width, height } = boxOf(footprint);
  return [left + width / 2, top + height / 2];
}

const DEGREE = 111_320; // metres of latitude
const coordinates = (/** @type {number} */ lon, /** @type {number} */ lat) =>
  `${Math.abs(lat).toFixed(4)}° ${lat < 0 ? "S" : "N"}, ${Math.abs(lon).toFixed(4)}° ${lon < 0 ? "W" : "E"}`;

/** The hits' pictures on the ground, over a mosaic of the tiles around them; as wide as they are there, with a scale. */
export function drawMap(/** @type {View} */ view) {
  const { pictures, query, shown, ui } = view;
  const placed = shown.rows.flatMap((row, k) => {
    const { footprint } = pictures.of(query.position(row));
    return footprint ? [{ row, rank: k + 1, footprint }] : [];
  });
  ui.mapFigure.hidden = ui.geojson.hidden = !placed.length;
  if (!placed.length) return;
  const lonLat = boxOf(placed.flatMap(({ footprint }) => footprint));
  const narrow = Math.cos(((lonLat.top + lonLat.height / 2) * Math.PI) / 180); // a degree of longitude, in latitudes
  const [wide, high] = [lonLat.width * narrow, lonLat.height];
  const pad = 0.04 * Math.max(wide, high);
  const scale = 600 / (Math.max(wide, 0.7 * high) + 2 * pad); // pixels a degree of latitude
  const height = Math.max((high + 2 * pad) * scale, 60) + 36; // below stands the scale
  const north = lonLat.top + high + pad; // up on the map, where pixels count downward
  const pixel = (/** @type {Point} */ [lon, lat]) =>
    /** @type {Point} */ ([((lon - lonLat.left) * narrow + pad) * scale, (north - lat) * scale]);
  const tiles = [...pictures.known.values()].map(({ footprint, src }) => {
    const { left, top, width, height } = boxOf((footprint ?? []).map(pixel));
    const place = `x="${left}" y="${top}" width="${width}" height="${height}"`;
    return footprint ? `<image href="${src}" ${place} preserveAspectRatio="none" class="tile"/>` : "";
  });
  const places = placed.map(({ row, rank, footprint }) => {
    const points = footprint.map(pixel);
    const [x, y] = centre(points);
    return `<g><polygon points="${points.join(" ")}" class="place" data-row="${row}"/>
      <text x="${x}" y="${y}" text-anchor="middle">${rank}</text></g>`;
  });
  const most = (200 / scale) * DEGREE; // metres
  const ten = 10 ** Math.floor(Math.log10(most));
  const metres = ten * (most >= 5 * ten ? 5 : most >= 2 * ten ? 2 : 1);
  const length = (metres / DEGREE) * scale;
  const bar = `<rect y="${height - 36}" width="600" height="36" class="under"/>
    <path d="M8 ${height - 18}v6h${length}v-6" class="level"/>
    <text x="${length + 18}" y="${height - 16}">${metres < 1000 ? `${metres} m` : `${number(metres / 1000)} km`}</text>`;
  ui.map.innerHTML = tiles.join("") + places.join("") + bar; // numbers, and pictures in base64
  const other = coordinates(lonLat.left + lonLat.width, lonLat.top + lonLat.height);
  say(ui.mapText, `${placed.length} of ${shown.rows.length} hits, ${coordinates(lonLat.left, lonLat.top)} to ${other}`);
  put(ui.map, { viewBox: `0 0 600 ${height}`, "aria-label": `map of ${placed.length} hits` });
  ui.map.onclick = (event) => {
    const row = rowAt(event);
    if (row !== null) view.choose(event, query.position(row));
  };
}
