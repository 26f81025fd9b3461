// Small helpers of the page. Names and texts reach it as text nodes and attributes, never as HTML.

/** @template {keyof HTMLElementTagNameMap} T @param {T} tag @param {(Node | string)[]} children */
export function make(tag, /** @type {Record<string, string | number>} */ attributes = {}, ...children) {
  const node = document.createElement(tag);
  put(node, attributes);
  node.append(...children);
  return node;
}

/** The descendants that have a data-part, by it. @returns {any} */
export function partsOf(/** @type {Element} */ root) {
  const nodes = [...root.querySelectorAll("[data-part]")];
  return Object.fromEntries(nodes.map((node) => [node.getAttribute("data-part"), node]));
}

// only what changed is written, so that a screen reader and the browser do no more than they must
export function say(/** @type {Element} */ node, /** @type {string} */ text) {
  if (node.textContent !== text) node.textContent = text;
}

/** @param {Element} node @param {Record<string, string | number | boolean | null>} attributes null takes one away */
export function put(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null) node.removeAttribute(name);
    else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
  }
}

// as many children as items, made once and updated in place: what has the focus keeps it. Child k shows item k
/** @template {Element} N @template I @param {(k: number) => N} create @param {(child: N, item: I, k: number) => void} update */
export function slots(/** @type {Element} */ parent, /** @type {I[]} */ items, create, update) {
  while (parent.children.length > items.length) parent.lastElementChild?.remove();
  while (parent.children.length < items.length) parent.append(create(parent.children.length));
  items.forEach((item, k) => {
    update(/** @type {N} */ (parent.children[k]), item, k);
  });
}

/** @param {(event: MouseEvent) => void} onclick */
export const pictureButton = (onclick) => Object.assign(make("button", { type: "button" }, make("img")), { onclick });

export function save(/** @type {string} */ name, /** @type {string} */ type, /** @type {BlobPart} */ content) {
  const href = URL.createObjectURL(new Blob([content], { type }));
  make("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 10_000); // the download has begun by then
}

export function saveTable(/** @type {string} */ name, /** @type {(string | number)[][]} */ rows) {
  // a text that a spreadsheet would run as a formula is shown by an apostrophe in front, as storage/cells.py has it
  const shown = (/** @type {string | number} */ value) =>
    typeof value === "string" ? value.replace(/^(?='*[=+\-@\t\r\n])/, "'") : String(value);
  const cell = (/** @type {string} */ text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  save(name, "text/csv", rows.map((row) => `${row.map((value) => cell(shown(value))).join(",")}\n`).join(""));
}

export function decoded(/** @type {string} */ base64) {
  const letters = atob(base64);
  const bytes = new Uint8Array(letters.length);
  for (let at = 0; at < bytes.length; at++) bytes[at] = letters.charCodeAt(at); // ten times as fast as Uint8Array.from
  return bytes.buffer;
}

export const number = (/** @type {number} */ x) => x.toLocaleString("en");
export const baseName = (/** @type {string} */ file) => file.split("/").pop() ?? file;

/** The row that the target of an event shows, or lies in; null where there is none. */
export function rowAt(/** @type {Event} */ { target }) {
  const node = target instanceof Element ? target.closest("[data-row]") : null;
  return node ? Number(node.getAttribute("data-row")) : null;
}
