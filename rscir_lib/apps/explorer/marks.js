// What a person called right or wrong: kept by the host, counted and listed here, and taken back.

import { baseName, make, put, saveTable, say, slots } from "./dom.js";

/** @import { Mark } from "./types" */
/** @import { View } from "./view.js" */

const UPLOAD = "upload: "; // before the name of a picture that is not of the archive; marks.py knows it, too

/** The name by which marks know a query's picture: one alone; "" for none and for several. */
export function subject(/** @type {View} */ { facts, pictures, query }) {
  const [id, ...more] = query.question.images ?? [];
  if (id === undefined || more.length) return "";
  return typeof id === "number" ? facts.files[id] : `${UPLOAD}${pictures.of(id).file}`;
}

/** The marks that count: the last of each answer, unless it was taken back. */
function standing(/** @type {View} */ view) {
  const last = new Map(view.marks.map((mark) => [mark.slice(0, 3).join("\n"), mark]));
  return [...last.values()].filter((mark) => mark[3]);
}

export async function keep(/** @type {View} */ view, /** @type {Mark} */ [image, text, answer, verdict]) {
  if ((await view.ask({ ask: "mark", image, text, answer, verdict })).error) return;
  view.marks.push([image, text, answer, verdict]);
  await view.draw();
}

export function drawMarks(/** @type {View} */ view) {
  const { facts, ui } = view;
  const marks = standing(view).reverse();
  ui.markList.hidden = !marks.length;
  say(ui.markCount, `Your marks: ${marks.length}, saved in ${facts.marksFile || "this browser"}`);
  const create = () => make("li", {}, make("span"), make("button", { type: "button" }, "undo"));
  slots(ui.markRows, marks, create, (li, [image, text, answer, verdict]) => {
    const sentence = `${verdict === "right" ? "✓" : "✗"} ${baseName(answer)} for ${baseName(image)} + ${text}`;
    const [name, undo] = li.children;
    say(name, sentence);
    put(undo, { "aria-label": `undo ${sentence}` });
    /** @type {HTMLElement} */ (undo).onclick = () => keep(view, [image, text, answer, ""]);
  });
}

export const saveMarks = (/** @type {View} */ view) =>
  saveTable("marks.csv", [["image", "text", "answer", "verdict"], ...standing(view)]);
