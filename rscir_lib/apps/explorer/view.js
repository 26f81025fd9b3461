// The explorer's page: what a person changes becomes a question, its answer a drawing. A host gives `mount` an element and
// `ask(question, buffers)`, which promises [answer, buffers]; types.d.ts says what is asked.

import { Browser } from "./browse.js";
import { drawCurve, drawMap, drawStrip } from "./charts.js";
import { button, make, number, put, say, slots } from "./dom.js";
import { saveCsv, saveHtml, saveMarks, savePng } from "./export.js";
import { drawHits } from "./hits.js";
import { layout } from "./layout.js";
import { Pictures } from "./pictures.js";
import { Query } from "./query.js";
import { Scatter } from "./scatter.js";
import { best } from "./scoring.js";
import { fromLink, LAMBDAS, parted, START, toLink, wantedHits } from "./state.js";

/** @import { Ask, Facts, ImageId, Method, State } from "./types" */

export class View {
  // questions and drawings are numbered: what comes late is dropped
  asked = 0;
  answered = 0;
  drawing = 0;
  opened = 0;
  typed = 0; // when the words were last changed, in ms
  read = ""; // the words that were last asked for
  /** @type {State[]} */
  past = []; // queries that were left, the last one last
  /** @type {State[]} */
  future = []; // queries that were gone back from
  query = Query.empty();
  /** @type {{ rows: number[], scores: Float64Array }} */
  shown = { rows: [], scores: new Float64Array(0) };
  /** @type {Map<string, ReturnType<typeof setTimeout>>} */
  timers = new Map();
  /** @type {Map<string, number>} */
  picked = new Map(); // how often a kind of benchmark query was asked for: the next one comes

  /** @param {HTMLElement} el @param {Ask} host @param {Facts} facts @param {Uint16Array} classes @param {boolean} link */
  constructor(el, host, facts, classes, link) {
    this.facts = facts;
    this.classes = classes;
    this.link = link;
    /** Every refusal is shown. @type {Ask} */
    this.ask = async (question, buffers) => {
      const [answer, answers] = await host(question, buffers);
      if (answer.error) say(this.ui.error, answer.error);
      return [answer, answers];
    };
    this.methods = new Map(facts.methods.map((method) => [method.name, method]));
    const [first] = facts.methods;
    /** @type {State} */
    this.state = { ...START, method: this.methods.has(START.method) ? START.method : first.name };
    this.ui = layout(facts, link);
    this.pictures = new Pictures(this.ask);
    this.browser = new Browser(this);
    this.scatter = new Scatter(this);
    this.listen();
    el.replaceChildren(this.ui.root);
  }

  listen() {
    const { ui } = this;
    ui.back.onclick = () => this.travel(this.past, this.future);
    ui.forward.onclick = () => this.travel(this.future, this.past);
    ui.clear.onclick = () => this.go({ images: [], text: "" });
    ui.words.oninput = () => {
      this.typed = performance.now();
      this.suggest();
      this.later("words", 80, () => this.readWords());
    };
    ui.words.onchange = () => this.readWords();
    ui.slider.oninput = (event) => this.change({ lambda: Number(ui.slider.value) }, event.timeStamp);
    ui.method.onchange = () => this.change({ method: ui.method.value });
    ui.top.onchange = () => this.change({ top: wantedHits(ui.top.value) });
    ui.cls.onchange = () => this.change({ cls: ui.cls.value });
    ui.min.onchange = () => this.change({ min: ui.min.value === "" ? null : Number(ui.min.value) });
    ui.best.onclick = () => this.pick("best");
    ui.worst.onclick = () => this.pick("worst");
    ui.any.onclick = () => this.pick("random");
    ui.upload.onchange = async () => {
      await this.addFiles([...(ui.upload.files ?? [])]);
      ui.upload.value = "";
    };
    ui.root.ondragover = (event) => event.preventDefault();
    ui.root.ondrop = (event) => {
      event.preventDefault();
      if (this.facts.uploads) this.addFiles([...(event.dataTransfer?.files ?? [])]);
    };
    ui.root.addEventListener("focusin", ({ target }) => {
      // or JupyterLab takes the keys of what has the focus
      if (target instanceof HTMLElement) target.dataset.lmSuppressShortcuts = "true";
    });
    ui.link.onclick = () => this.copyLink();
    ui.csv.onclick = () => saveCsv(this);
    ui.png.onclick = () => savePng(this);
    ui.html.onclick = () => saveHtml(this);
    ui.marks.onclick = () => saveMarks(this);
  }

  /** @param {string} name */
  stop(name) {
    clearTimeout(this.timers.get(name));
  }

  /** @param {string} name @param {number} ms @param {() => void} act */
  later(name, ms, act) {
    this.stop(name);
    this.timers.set(name, setTimeout(act, ms));
  }

  /** @returns {Method} */
  get method() {
    return this.methods.get(this.state.method) ?? this.facts.methods[0];
  }

  get isWaiting() {
    return this.answered !== this.asked;
  }

  // the archive's picture that marks belong to; null where there is none, or more than one
  get markedImage() {
    const [image, ...more] = this.state.images;
    return typeof image === "number" && !more.length ? image : null;
  }

  // ---- changes ----

  // a new query, which can be gone back from. since: when the person acted, in ms
  /** @param {Partial<State>} changes @param {number} [since] */
  async go(changes, since) {
    const next = { ...this.state, ...changes };
    if (JSON.stringify(next) === JSON.stringify(this.state)) return;
    this.past.push(this.state);
    this.future = [];
    this.state = next;
    await this.renew(since);
  }

  // another mix of the same query; where not every image was sent, that takes other candidates
  /** @param {Partial<State>} changes @param {number} [since] */
  async change(changes, since) {
    this.state = { ...this.state, ...changes };
    say(this.ui.error, "");
    if (!this.facts.whole && ("method" in changes || "cls" in changes)) await this.renew(since);
    else await this.draw(since);
  }

  /** @param {State[]} from @param {State[]} to */
  async travel(from, to) {
    const state = from.pop();
    if (!state) return;
    to.push(this.state);
    this.state = state;
    await this.renew();
  }

  /** @param {ImageId} id @param {number} [since] */
  join(id, since) {
    return this.go({ images: [...this.state.images.filter((other) => other !== id), id] }, since);
  }

  // with shift or ctrl a picture joins those that are there, and their average is searched
  /** @param {MouseEvent} event @param {ImageId} id */
  choose(event, id) {
    if (event.shiftKey || event.ctrlKey || event.metaKey) return this.join(id, event.timeStamp);
    return this.go({ images: [id] }, event.timeStamp);
  }

  suggest() {
    const text = this.ui.words.value.toLowerCase();
    const some = this.facts.words.filter((word) => word.startsWith(text)).slice(0, 30);
    this.ui.suggestions.replaceChildren(...some.map((value) => make("option", { value })));
  }

  async readWords() {
    this.stop("words");
    this.read = this.ui.words.value.trim();
    await this.go({ text: this.read }, this.typed);
  }

  /** @param {string} which */
  async pick(which) {
    const attribute = this.ui.attribute.value;
    const key = `${which} ${attribute}`;
    const nth = this.picked.get(key) ?? 0;
    this.picked.set(key, nth + 1);
    const [answer] = await this.ask({ ask: "benchmark", which, attribute, nth });
    if (!answer.error) await this.go({ images: [answer.image], text: answer.words });
  }

  /** @param {File[]} files */
  async addFiles(files) {
    const problems = [];
    const keys = [];
    for (const file of files) {
      const key = await this.pictures.upload(file);
      if (key) keys.push(key);
      else problems.push(this.ui.error.textContent);
    }
    if (keys.length) await this.go({ images: keys });
    if (problems.length) say(this.ui.error, problems.join(" "));
  }

  // ---- one query ----

  /** @param {number} [since] */
  async renew(since) {
    const turn = ++this.asked;
    this.drawing++; // what is being drawn is of the question before
    const { images, text, method, cls } = this.state;
    const question = { ask: "query", images, ...parted(text), ...(this.facts.whole ? {} : { method, cls }) };
    this.ui.root.setAttribute("aria-busy", "true");
    const [answer, buffers] = await this.ask(question);
    await this.pictures.fetch(images);
    if (turn !== this.asked) return;
    this.ui.root.removeAttribute("aria-busy");
    say(this.ui.error, answer.error ?? "");
    // of a refused question nothing is shown: the hits of the one before would be taken for its own
    this.query = answer.error ? Query.empty() : new Query(question, answer, buffers);
    this.answered = turn;
    await this.draw(since);
    if (turn === this.asked) this.later("prefetch", 30, () => this.prefetch());
  }

  /** @param {number} lambda */
  scoresAt(lambda) {
    return this.query.scoresAt(this.method, lambda, this.ask);
  }

  // the score that a person reads: Phi, where Phi - 1 is what ranks
  /** @param {number} row @param {Float64Array} [scores] */
  score(row, scores = this.shown.scores) {
    const score = this.query.methodScore(this.method, this.state.lambda, row, scores);
    return this.method.scale === "upper_tail" ? 1 + score : score;
  }

  // positions of the first hits, of the class and the least score that are asked for
  /** @param {Float64Array} scores @param {number} top */
  bestOf(scores, top) {
    const { cls, min } = this.state;
    const wanted = this.facts.classes.indexOf(cls);
    const allowed = (/** @type {number} */ row) =>
      (cls === "" || this.classes[this.query.position(row)] === wanted) &&
      (min === null || this.score(row, scores) >= min);
    return best(scores, top, cls === "" && min === null ? null : allowed);
  }

  // ---- drawing ----

  controls() {
    const { state, ui } = this;
    if (state.text !== this.read) {
      // not while somebody types on
      this.stop("words");
      ui.words.value = this.read = state.text;
    }
    ui.slider.value = String(state.lambda);
    put(ui.slider, "aria-valuetext", `lambda ${state.lambda.toFixed(2)}`);
    say(ui.lambda, `λ ${state.lambda.toFixed(2)}`);
    ui.method.value = state.method;
    ui.top.value = String(state.top);
    ui.cls.value = state.cls;
    ui.min.value = state.min === null ? "" : String(state.min);
    ui.slider.disabled = !this.method.hasLambda;
    ui.back.disabled = !this.past.length;
    ui.forward.disabled = !this.future.length;
    const remove = (/** @type {number} */ k) =>
      this.go({ images: this.state.images.filter((_, other) => other !== k) });
    const create = (/** @type {number} */ k) => button("", () => remove(k), make("img"));
    slots(ui.pictures, state.images, create, (node, id) => {
      this.pictures.show(/** @type {Element} */ (node.firstChild), id);
      put(node, "title", `${this.pictures.nameOf(id)}: take it away`);
      put(node, "aria-label", `take away ${this.pictures.nameOf(id)}`);
    });
  }

  /** @param {number} [since] */
  async draw(since = performance.now()) {
    this.controls();
    if (this.isWaiting) return; // the answer that is under way will be drawn as things then are
    const turn = ++this.drawing;
    const scores = this.query.isBlank ? null : await this.scoresAt(this.state.lambda);
    if (turn !== this.drawing) return;
    this.shown = scores
      ? { rows: this.bestOf(scores, this.state.top), scores }
      : { rows: [], scores: new Float64Array(0) };
    const positions = this.shown.rows.map((row) => this.query.position(row));
    await this.pictures.fetch(positions);
    await Promise.all(positions.map((position) => this.pictures.of(position).ready));
    if (turn !== this.drawing) return;
    this.scatter.draw(); // before the hits, or to ask for its colours would have the page laid out twice
    drawHits(this);
    this.drawNotes();
    requestAnimationFrame(() => {
      if (turn !== this.drawing) return;
      const link = toLink(this.state, (position) => this.pictures.of(position).file);
      this.ui.root.dataset.drawn = link;
      if (this.link) history.replaceState(null, "", `#${link}`); // the address of what is on the screen
      this.ui.root.dispatchEvent(new CustomEvent("drawn", { detail: performance.now() - since, bubbles: true }));
    });
    this.later("extras", 60, () => this.drawExtras());
  }

  drawNotes() {
    const { facts, method, query, shown, state } = this;
    const notes = [];
    if (
      query.isComposed &&
      method.rule &&
      method.scale &&
      state.lambda > 0 &&
      shown.rows.length &&
      state.min === null
    ) {
      const ofPicture = this.bestOf(query.scaled(method.scale)[0], state.top);
      if (ofPicture.join() === shown.rows.join()) {
        notes.push("The words change nothing here: the picture alone has the same hits.");
      }
    }
    const { strange } = query.answer;
    if (strange?.length) notes.push(`The encoder never saw ${strange.join(", ")} while it learned: expect noise.`);
    if (query.positions) {
      const few = number(query.positions.length);
      notes.push(
        `${few} of ${number(facts.n)} images can be among the first hits at some lambda: those are compared here.`,
      );
    }
    say(this.ui.note, notes.join(" "));
  }

  // what may come a little later
  async drawExtras() {
    const turn = this.drawing;
    const isStale = () => turn !== this.drawing;
    await drawStrip(this, isStale);
    await drawCurve(this, isStale);
    if (!isStale()) drawMap(this);
  }

  // the pictures that the slider will show, before it is moved
  async prefetch() {
    const turn = this.drawing;
    if (!this.method.hasLambda || !this.method.rule || !this.query.isComposed) return;
    const { lambda } = this.state;
    for (const near of [...LAMBDAS].sort((a, b) => Math.abs(a - lambda) - Math.abs(b - lambda))) {
      if (turn !== this.drawing) return;
      const scores = await this.scoresAt(near);
      if (!scores || turn !== this.drawing) return;
      await this.pictures.fetch(this.bestOf(scores, this.state.top).map((row) => this.query.position(row)));
    }
  }

  /** A hit wherever it is shown: in the grid, in the scatter, on the map. @param {number | null} row */
  highlight(row) {
    const { hits, map } = this.ui;
    for (const [k, other] of this.shown.rows.entries()) hits.children[k]?.classList.toggle("over", other === row);
    for (const place of map.querySelectorAll(".place")) {
      place.classList.toggle("over", place.getAttribute("data-row") === `${row}`);
    }
    if (this.query.isComposed) this.scatter.draw(row);
  }

  // ---- links ----

  /** @param {string} hash */
  async open(hash) {
    const turn = ++this.opened;
    this.asked++; // nothing is drawn until the files are found; what is changed meanwhile is kept
    this.drawing++;
    const { files, opened } = fromLink(hash, this.state, this.facts);
    this.state = opened;
    this.controls();
    const [answer] = files.length ? await this.ask({ ask: "find", files }) : [{ positions: [] }];
    if (turn !== this.opened) return;
    if (!answer.error && this.state.images === opened.images) this.state = { ...this.state, images: answer.positions };
    await this.renew();
    if (answer.error) say(this.ui.error, answer.error);
  }

  async copyLink() {
    const without = this.state.images.some((image) => typeof image === "string") ? ", without your own picture" : "";
    try {
      await navigator.clipboard.writeText(location.href);
      say(this.ui.note, `The link is on the clipboard${without}.`);
    } catch {
      say(this.ui.note, `The link${without}: ${location.href}`);
    }
  }
}

// link: whether the address of the page is ours to keep the view in. Returns what ends it
/** @param {HTMLElement} el @param {Ask} host @param {{ link?: boolean, start?: any }} [options] */
export async function mount(el, host, { link = false, start = {} } = {}) {
  /** A host that fails is an answer, too: it is shown, and the page goes on. @type {Ask} */
  const ask = (...question) => host(...question).catch((error) => [{ error: `no answer (${error.message})` }, []]);
  const [facts, [classes]] = await ask({ ask: "hello" });
  if (facts.error) throw new Error(facts.error);
  const view = new View(el, ask, facts, new Uint16Array(classes), link);
  const follow = () => view.open(location.hash);
  if (link) addEventListener("hashchange", follow);
  if (link && location.hash.length > 1) await view.open(location.hash);
  else if (start.image === undefined) await view.renew();
  else await view.go({ images: [start.image], text: start.words || "", lambda: start.lambda ?? START.lambda });
  view.past = [];
  view.controls();
  view.browser.show(0); // the rest may come when the hits are there
  return () => removeEventListener("hashchange", follow);
}

/** What a page of its own does: no host awaits its end. @param {Ask} host @param {any} start */
export function open(host, start) {
  const place = document.getElementById("explorer") ?? document.body;
  mount(place, host, { link: true, start }).catch((error) => {
    console.error(error);
    place.textContent = `The explorer could not start: ${error.message}`;
  });
}
