// Small helpers of the page. Names and texts reach it as text nodes and attributes, never as HTML.

/** @typedef {Record<string, string | number | boolean | null | undefined>} Attributes */

/** @template {keyof HTMLElementTagNameMap} T @param {T} tag @param {Attributes} [attributes] @param {(Node | string)[]} children */
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== false && value != null) node.setAttribute(key, value === true ? "" : String(value));
  }
  node.append(...children);
  return node;
}

/** The descendants that have a data-part, by it. @param {Element} root @returns {any} */
export function partsOf(root) {
  const nodes = /** @type {NodeListOf<HTMLElement>} */ (root.querySelectorAll("[data-part]"));
  return Object.fromEntries([...nodes].map((node) => [node.dataset.part, node]));
}

// only what changed is written, so that a screen reader and the browser do no more than they must
/** @param {Element} node @param {string} text */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** @param {Element} node @param {string} name @param {string | number | boolean | null} value */
export function put(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
}

// as many children as items, made once and updated in place: what has the focus keeps it. Child k shows item k
/**
 * @template {Element} N
 * @template I
 * @param {Element} parent
 * @param {I[]} items
 * @param {(k: number) => N} create
 * @param {(child: N, item: I, k: number) => void} update
 */
export function slots(parent, items, create, update) {
  while (parent.children.length > items.length) parent.lastElementChild?.remove();
  while (parent.children.length < items.length) parent.append(create(parent.children.length));
  items.forEach((item, k) => {
    update(/** @type {N} */ (parent.children[k]), item, k);
  });
}

/** @param {string} title @param {(event: MouseEvent) => void} onclick @param {(Node | string)[]} children */
export function button(title, onclick, ...children) {
  const node = make("button", { type: "button", "aria-label": title, title }, ...children);
  node.onclick = onclick;
  return node;
}

/** @param {string} name @param {string} type @param {BlobPart} content */
export function save(name, type, content) {
  const href = URL.createObjectURL(new Blob([content], { type }));
  make("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 10_000); // the download has begun by then
}

/** @param {ArrayBuffer} jpeg */
export function dataUrl(jpeg) {
  const bytes = new Uint8Array(jpeg);
  let text = "";
  for (let at = 0; at < bytes.length; at += 4096) text += String.fromCharCode(...bytes.subarray(at, at + 4096));
  return `data:image/jpeg;base64,${btoa(text)}`;
}

/** @param {number} x */
export const number = (x) => x.toLocaleString("en");
/** @param {string} file */
export const baseName = (file) => file.split("/").pop() ?? file;
