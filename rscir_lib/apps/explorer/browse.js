// The panel in which a person chooses a picture of the archive: by class, by name, page by page, or at random.

import { number, pictureButton, put, say, slots } from "./dom.js";
import { clamp } from "./state.js";

/** @import { View } from "./view.js" */

const PAGE = 24; // pictures, four rows of six

export class Browser {
  page = 0;
  wanted = /** @type {number[]} */ ([]); // positions on all pages
  /** @type {number[]} */
  shown = []; // and on this one

  constructor(/** @type {View} */ view) {
    this.view = view;
    const { ui } = view;
    ui.browseClass.onchange = () => this.list();
    ui.browseName.oninput = () => view.later("browse", 200, () => this.list());
    ui.pageBefore.onclick = () => this.show(this.page - 1);
    ui.nextPage.onclick = () => this.show(this.page + 1);
    ui.random.onclick = () => this.list(true);
  }

  list(isShuffled = false) {
    const { facts, ui } = this.view;
    this.view.stop("browse"); // a name still being typed is read here: its own turn, later, would undo this one
    const name = ui.browseName.value.toLowerCase();
    const cls = ui.browseClass.value && facts.classes.indexOf(ui.browseClass.value);
    const isWanted = (/** @type {number} */ k) =>
      (cls === "" || facts.classIndex[k] === cls) && facts.files[k].toLowerCase().includes(name);
    this.wanted = [...facts.files.keys()].filter(isWanted);
    const key = facts.files.map(Math.random);
    if (isShuffled) this.wanted.sort((a, b) => key[a] - key[b]);
    return this.show(0);
  }

  async show(/** @type {number} */ page) {
    const { pictures, ui } = this.view;
    const pages = Math.max(Math.ceil(this.wanted.length / PAGE), 1);
    this.page = clamp(page, 0, pages - 1);
    const positions = this.wanted.slice(this.page * PAGE, (this.page + 1) * PAGE);
    this.shown = positions;
    await pictures.fetch(positions);
    if (positions !== this.shown) return; // another page was asked for meanwhile
    say(ui.pageText, `page ${number(this.page + 1)} of ${number(pages)}`);
    const create = (/** @type {number} */ k) => pictureButton((event) => this.view.choose(event, this.shown[k]));
    slots(ui.thumbs, positions, create, (thumb, position) => {
      pictures.show(thumb.firstElementChild, position);
      const title = pictures.nameOf(position);
      put(thumb, { title, "aria-label": `search with ${title}` });
    });
  }
}
