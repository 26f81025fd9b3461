// The pictures on the page: fetched once, as JPEGs, by archive position; those of one's own by the key that the host gave.

import { baseName, make, put } from "./dom.js";

/** @import { Ask, Facts, ImageId, Picture } from "./types" */

export class Pictures {
  known = /** @type {Map<ImageId, Partial<Picture>>} */ (new Map());
  asked = new Map(); // the promise of each that was asked for

  constructor(/** @type {Ask} */ ask, /** @type {Facts} */ facts) {
    this.ask = ask;
    this.facts = facts;
  }

  /** Known and decoded once the promise is kept, or refused. */
  async fetch(/** @type {ImageId[]} */ ids) {
    const wanted = ids.filter((id) => typeof id === "number" && !this.asked.has(id));
    const promise = wanted.length ? this.fetchTogether(wanted) : null;
    for (const id of wanted) this.asked.set(id, promise);
    await Promise.all(ids.map((id) => this.asked.get(id)));
  }

  async fetchTogether(/** @type {ImageId[]} */ positions) {
    const { error, jpegs, footprints } = await this.ask({ ask: "images", positions });
    const decode = async (/** @type {ImageId} */ position, /** @type {number} */ k) => {
      if (error) return this.asked.delete(position); // to be asked for again
      const img = make("img", { src: `data:image/jpeg;base64,${jpegs[k]}` });
      this.known.set(position, { src: img.src, img, footprint: footprints[k] });
      return img.decode().catch(() => {});
    };
    await Promise.all(positions.map(decode));
  }

  /** Encoded by the host, whose answer holds a key or an error. */
  async upload(/** @type {File} */ file) {
    const reader = new FileReader();
    await new Promise((done) => {
      reader.onloadend = done;
      reader.readAsDataURL(file);
    });
    const data = String(reader.result).split(",")[1];
    const answer = await this.ask({ ask: "upload", name: file.name, data });
    const src = `data:image/jpeg;base64,${answer.jpeg}`;
    if (answer.key) this.known.set(answer.key, { file: file.name, class: "your own", src });
    return answer;
  }

  /** @param {ImageId} id @returns {Picture} */
  of(id) {
    const { classes, classIndex, files } = this.facts;
    const named = typeof id === "number" ? { file: files[id], class: classes[classIndex[id]] } : {};
    return { file: "…", class: "", src: "", ...named, ...this.known.get(id) };
  }

  nameOf(/** @type {ImageId} */ id) {
    const { file, class: cls } = this.of(id);
    return [baseName(file), cls].filter(Boolean).join(", ");
  }

  show(/** @type {Element | null} */ img, /** @type {ImageId} */ id) {
    if (img) put(img, { src: this.of(id).src || null, alt: this.nameOf(id) });
  }
}
