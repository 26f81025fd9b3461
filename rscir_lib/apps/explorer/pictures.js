// The pictures on the page: fetched once, as JPEGs, by archive position; those of one's own by the key that the host gave.

import { baseName, dataUrl, make, put } from "./dom.js";

/** @import { Ask, ImageId, Picture } from "./types" */

const TOGETHER = 60; // pictures of one question: a page of them comes in one answer, and the first soon

export class Pictures {
  /** @param {Ask} ask */
  constructor(ask) {
    this.ask = ask;
    /** @type {Map<ImageId, Picture>} */
    this.known = new Map();
    /** @type {Map<number, Promise<void>>} */
    this.coming = new Map();
  }

  /** Known once the promise is kept, or refused. @param {ImageId[]} ids */
  async fetch(ids) {
    const positions = ids.filter((id) => typeof id === "number");
    const wanted = positions.filter((position) => !this.known.has(position) && !this.coming.has(position));
    for (let at = 0; at < wanted.length; at += TOGETHER) {
      const some = wanted.slice(at, at + TOGETHER);
      const promise = this.fetchTogether(some);
      for (const position of some) this.coming.set(position, promise);
    }
    await Promise.all(positions.map((position) => this.coming.get(position)));
  }

  /** @param {number[]} positions */
  async fetchTogether(positions) {
    const [answer, buffers] = await this.ask({ ask: "images", positions });
    for (const [k, position] of positions.entries()) {
      this.coming.delete(position);
      if (answer.error) continue;
      const src = dataUrl(buffers[k]); // a blob's address would be one more question to another process, for each
      const img = make("img", { src });
      const ready = img.decode().catch(() => {});
      this.known.set(position, { ...answer.images[k], src, img, ready });
    }
  }

  /** Encoded by the host: the key of a picture of one's own; null where that refuses. @param {File} file */
  async upload(file) {
    const [answer, buffers] = await this.ask({ ask: "upload", name: file.name }, [await file.arrayBuffer()]);
    if (answer.error) return null;
    this.known.set(answer.key, { file: answer.name, class: "your own", src: dataUrl(buffers[0]) });
    return /** @type {string} */ (answer.key);
  }

  /** @param {ImageId} id @returns {Picture} */
  of(id) {
    return this.known.get(id) ?? { file: "…", class: "", src: "" };
  }

  /** @param {ImageId} id */
  nameOf(id) {
    return [baseName(this.of(id).file), this.of(id).class].filter(Boolean).join(", ");
  }

  /** @param {Element} img @param {ImageId} id */
  show(img, id) {
    put(img, "src", this.of(id).src || null);
    put(img, "alt", this.nameOf(id));
  }
}
