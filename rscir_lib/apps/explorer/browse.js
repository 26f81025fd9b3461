// The panel in which a picture of the archive is chosen: by class, by name, page by page, or by chance.

import { button, make, number, put, say, slots } from "./dom.js";

/** @import { View } from "./view.js" */

const PAGE = 24; // pictures; the host counts pages by the same number

export class Browser {
  page = 0;
  turn = 0; // of two answers the later question's is shown
  name = ""; // which the page was asked for
  /** @type {number | undefined} */
  seed = undefined; // of the draw whose pages are turned
  /** @type {number[]} */
  positions = [];

  /** @param {View} view */
  constructor(view) {
    this.view = view;
    const { ui } = view;
    ui.browseClass.onchange = () => this.show(0);
    ui.browseName.oninput = () => view.later("browse", 200, () => this.show(0));
    ui.pageBefore.onclick = () => this.show(this.page - 1);
    ui.nextPage.onclick = () => this.show(this.page + 1);
    ui.random.onclick = () => this.show(0, Math.floor(Math.random() * 1e9));
  }

  /** @param {number} page @param {number} [seed] */
  async show(page, seed) {
    const { ui, pictures } = this.view;
    this.view.stop("browse"); // a name still being typed is read here: its own turn, later, would undo this one
    const name = ui.browseName.value;
    const wanted = name === this.name ? page : 0;
    this.name = name;
    if (seed !== undefined || wanted === 0) this.seed = seed;
    const question = { ask: "browse", cls: ui.browseClass.value, name, page: wanted };
    const turn = ++this.turn;
    const [answer] = await this.view.ask(this.seed === undefined ? question : { ...question, seed: this.seed });
    if (answer.error) return;
    await pictures.fetch(answer.positions);
    if (turn !== this.turn) return;
    this.page = answer.page;
    this.positions = answer.positions;
    const pages = Math.max(Math.ceil(answer.total / PAGE), 1);
    say(ui.pageText, `page ${number(answer.page + 1)} of ${number(pages)}`);
    const create = (/** @type {number} */ k) =>
      button("", (event) => this.view.choose(event, this.positions[k]), make("img"));
    slots(ui.thumbs, this.positions, create, (thumb, position) => {
      pictures.show(/** @type {Element} */ (thumb.firstChild), position);
      put(thumb, "aria-label", `search with ${pictures.nameOf(position)}`);
      put(thumb, "title", pictures.nameOf(position));
    });
  }
}
