// Host: the page that `make explore` serves. A question is posted as JSON, its buffers behind it; so is the answer.

function packed(head, buffers) {
  const text = new TextEncoder().encode(JSON.stringify({ ...head, lengths: buffers.map((b) => b.byteLength) }));
  return new Blob([new Uint32Array([text.length]), text, ...buffers], { type: "application/octet-stream" });
}

function unpacked(data) {
  const length = new DataView(data).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  let at = 4 + length;
  return [head, head.lengths.map((size) => data.slice(at, (at += size)))];
}

async function overHttp(question, buffers = []) {
  const reply = await fetch("ask", { method: "POST", body: packed(question, buffers) });
  if (!reply.ok) throw new Error(`the server answered ${reply.status}`);
  return unpacked(await reply.arrayBuffer());
}

const place = document.getElementById("explorer");
mount(place, overHttp, { link: true, start: JSON.parse(place.dataset.start) }).catch((error) => {
  console.error(error);
  place.textContent = `The explorer could not start: ${error.message}`;
});
