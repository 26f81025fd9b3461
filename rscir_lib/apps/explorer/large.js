// One hit, large: in a dialog over the page, with its file, and the way to the next one.

import { decoded, put, say } from "./dom.js";

/** @import { View } from "./view.js" */

/** Show the k-th hit; before the first comes the last. */
export async function enlarge(/** @type {View} */ view, /** @type {number} */ k) {
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
