// Host: the page that `make explore` serves. A question is posted as JSON, its buffers behind it; so is the answer.

import { open } from "./view.js";

/** @import { Ask } from "./types" */

/** @param {object} head @param {ArrayBuffer[]} buffers */
function packed(head, buffers) {
  const lengths = buffers.map((buffer) => buffer.byteLength);
  const text = new TextEncoder().encode(JSON.stringify({ ...head, lengths }));
  return new Blob([new Uint32Array([text.length]), text, ...buffers], { type: "application/octet-stream" });
}

/** @param {ArrayBuffer} data @returns {[any, ArrayBuffer[]]} */
function unpacked(data) {
  const length = new DataView(data).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  let start = 4 + length;
  const buffers = head.lengths.map((/** @type {number} */ size) => {
    start += size;
    return data.slice(start - size, start);
  });
  return [head, buffers];
}

/** @type {Ask} */
async function ask(question, buffers = []) {
  const reply = await fetch("ask", { method: "POST", body: packed(question, buffers) });
  if (!reply.ok) throw new Error(`the server answered ${reply.status}`);
  return unpacked(await reply.arrayBuffer());
}

open(ask, JSON.parse(document.getElementById("explorer")?.dataset.start ?? "{}"));
