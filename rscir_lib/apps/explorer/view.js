// The explorer's page: what a person changes becomes a question, its answer a drawing. A host gives `mount` an element and
// `ask(question)`, which promises the answer; types.d.ts says what is asked.

import { Browser } from "./browse.js";
import { drawCurve, drawMap, drawStrip } from "./charts.js";
import { make, number, pictureButton, put, rowAt, say, slots } from "./dom.js";
import { saveCsv, saveGeoJson, saveHtml, savePng } from "./export.js";
import { drawHits } from "./hits.js";
import { layout } from "./layout.js";
import { saveMarks, subject } from "./marks.js";
import { Pictures } from "./pictures.js";
import { Query } from "./query.js";
import { Scatter } from "./scatter.js";
import { best } from "./scoring.js";
import { fromLink, LAMBDAS, parted, START, toLink, wantedHits } from "./state.js";

/** @import { Ask, Facts, ImageId, Method, State } from "./types" */

const NOTHING = /** @type {{ rows: number[], scores: Float64Array }} */ ({ rows: [], scores: new Float64Array(0) });

export class View {
  // questions and drawings are numbered: what comes late is dropped
  asked = 0;
  drawing = 0;
  isWaiting = false; // for the answer to the last question
  acted = 0; // when a person last did something, in ms
  read = ""; // the words that were last asked for
  past = /** @type {State[]} */ ([]); // queries that were left, the last one last
  future = /** @type {State[]} */ ([]); // queries that were gone back from
  query = new Query();
  readOff = /** @type {{ query: Query, lambda: number, said: string } | null} */ (null); // by "auto"
  shown = NOTHING;
  timers = new Map();
  ap = /** @type {(number | null)[] | undefined} */ (undefined); // of the benchmark's queries, once it was asked for
  picked = new Map(); // how often a kind of them was asked for: the next one comes

  /** @param {HTMLElement} el @param {Ask} host @param {Facts} facts @param {boolean} link */
  constructor(el, host, facts, link) {
    this.facts = facts;
    this.marks = [...facts.marks];
    this.link = link;
    /** Every refusal is shown, and a warning from then on; a host that fails refuses, too. @type {Ask} */
    this.ask = async (question) => {
      const asked = { ...question, archive: facts.archive };
      const answer = await host(asked).catch((error) => ({ error: error.message, isGone: true }));
      facts.warning ||= answer.warning;
      if (answer.error || answer.warning) this.complain(answer.error);
      return answer;
    };
    this.state = START;
    this.ui = layout(facts, link);
    this.pictures = new Pictures(this.ask, facts);
    this.browser = new Browser(this);
    this.scatter = new Scatter(this);
    this.listen();
    el.replaceChildren(this.ui.root);
  }

  listen() {
    const { ui } = this;
    for (const kind of ["input", "change", "click", "drop"]) {
      ui.root.addEventListener(kind, (event) => Object.assign(this, { acted: event.timeStamp }), { capture: true });
    }
    ui.back.onclick = () => this.travel(this.past, this.future);
    ui.forward.onclick = () => this.travel(this.future, this.past);
    ui.clear.onclick = () => this.go({ images: [], text: "" });
    ui.words.oninput = () => {
      const typed = ui.words.value.toLowerCase();
      const fitting = this.facts.words.filter((word) => word.startsWith(typed)).slice(0, 30);
      ui.suggestions.replaceChildren(...fitting.map((value) => make("option", { value })));
      this.later("words", 80, () => this.readWords());
    };
    ui.words.onchange = () => this.readWords();
    ui.slider.oninput = () => this.change({ lambda: Number(ui.slider.value) });
    ui.auto.onclick = async () => {
      const { images, words, without } = this.query.question;
      const { lambda, low, high, error } = await this.ask({ ask: "auto", images, words, without });
      if (error) return;
      const spread = `of the archive drawn anew, half the times between ${low.toFixed(2)} and ${high.toFixed(2)}`;
      this.readOff = { query: this.query, lambda, said: `λ ${lambda.toFixed(2)} is read off this query; ${spread}.` };
      this.change({ lambda });
    };
    ui.method.onchange = () => this.change({ method: ui.method.value });
    ui.top.onchange = () => this.change({ top: wantedHits(ui.top.value) });
    ui.cls.onchange = () => this.change({ cls: ui.cls.value });
    ui.min.onchange = () => this.change({ min: ui.min.value === "" ? null : Number(ui.min.value) });
    for (const which of /** @type {const} */ (["best", "worst", "any"])) ui[which].onclick = () => this.pick(which);
    ui.upload.onchange = async () => {
      await this.addFiles([...(ui.upload.files ?? [])]);
      ui.upload.value = "";
    };
    ui.root.ondragover = (event) => event.preventDefault();
    ui.root.ondrop = (event) => {
      event.preventDefault();
      if (this.facts.hasKernel) this.addFiles([...(event.dataTransfer?.files ?? [])]);
    };
    ui.root.onmouseover = (event) => this.highlight(rowAt(event));
    ui.root.addEventListener("focusin", (event) => {
      this.highlight(rowAt(event));
      // or JupyterLab takes the keys of what has the focus
      if (event.target instanceof HTMLElement) event.target.dataset.lmSuppressShortcuts = "true";
    });
    ui.link.onclick = () => this.copyLink();
    const saves = { csv: saveCsv, png: savePng, html: saveHtml, geojson: saveGeoJson, marks: saveMarks };
    for (const [part, save] of Object.entries(saves)) ui[part].onclick = () => save(this);
    ui.more.onclick = () => this.change({ top: wantedHits(this.state.top + 20) });
  }

  stop(/** @type {string} */ name) {
    clearTimeout(this.timers.get(name));
  }

  later(/** @type {string} */ name, /** @type {number} */ ms, /** @type {() => void} */ act) {
    this.stop(name);
    this.timers.set(name, setTimeout(act, ms));
  }

  complain(error = "") {
    say(this.ui.error, error || this.facts.warning);
  }

  /** @returns {Method} */
  get method() {
    return this.facts.methods.find(({ name }) => name === this.state.method) ?? this.facts.methods[0];
  }

  /** "right", "wrong", or "" for a hit of the query that nobody marked: the last mark counts. */
  markOf(/** @type {number} */ position) {
    const mark = [subject(this), this.query.text, this.facts.files[position]];
    return this.marks.findLast((other) => mark.every((part, k) => part === other[k]))?.[3] ?? "";
  }

  // ---- changes ----

  // a new query, which can be gone back from
  async go(/** @type {Partial<State>} */ changes) {
    const next = { ...this.state, ...changes };
    if (JSON.stringify(next) === JSON.stringify(this.state)) return;
    this.past.push(this.state);
    this.future = [];
    this.state = next;
    await this.renew();
  }

  // another mix of the same query; where not every image was sent, that takes other candidates
  async change(/** @type {Partial<State>} */ changes) {
    this.state = { ...this.state, ...changes };
    this.complain();
    if (!this.facts.whole && ("method" in changes || "cls" in changes)) await this.renew();
    else await this.draw();
  }

  async travel(/** @type {State[]} */ from, /** @type {State[]} */ to) {
    const state = from.pop();
    if (!state) return;
    to.push(this.state);
    this.state = state;
    await this.renew();
  }

  // with shift or ctrl a picture joins those that are there, and their average is searched
  choose(/** @type {MouseEvent} */ event, /** @type {ImageId} */ id, isJoined = false) {
    const joins = isJoined || event.shiftKey || event.ctrlKey || event.metaKey;
    const others = joins ? this.state.images.filter((other) => other !== id) : [];
    return this.go({ images: [...others, id] });
  }

  async readWords() {
    this.stop("words");
    this.read = this.ui.words.value.trim();
    await this.go({ text: this.read });
  }

  /** A query of the benchmark. */
  async pick(/** @type {"best" | "worst" | "any"} */ which) {
    this.ap ??= (await this.ask({ ask: "rated" })).ap;
    const { ap } = this;
    if (!ap) return;
    const attribute = this.ui.attribute.value;
    const all = [...this.facts.queries.keys()].filter((k) => !attribute || this.facts.queries[k][2] === attribute);
    const rated = all.filter((k) => ap[k] !== null).sort((a, b) => Number(ap[b]) - Number(ap[a])); // best first
    const key = `${which} ${attribute}`;
    const nth = (this.picked.get(key) ?? 0) % rated.length;
    this.picked.set(key, nth + 1);
    const picked = { best: rated[nth], worst: rated.at(-1 - nth), any: all[Math.floor(Math.random() * all.length)] };
    const [image, text] = this.facts.queries[picked[which] ?? 0];
    await this.go({ images: [image], text });
  }

  async addFiles(/** @type {File[]} */ files) {
    const answers = await Promise.all(files.map((file) => this.pictures.upload(file)));
    const images = answers.flatMap(({ key }) => key ?? []);
    const problems = answers.flatMap(({ error }) => error ?? []);
    if (images.length) await this.go({ images });
    if (problems.length) say(this.ui.error, problems.join(" "));
  }

  // ---- one query ----

  async renew() {
    const turn = ++this.asked;
    this.isWaiting = true;
    this.drawing++; // what is being drawn is of the question before
    const { images, text, method, cls } = this.state;
    const question = { images, ...parted(text), ...(this.facts.whole ? {} : { method, cls }) };
    this.ui.root.setAttribute("aria-busy", "true");
    const [answer] = await Promise.all([this.ask({ ask: "query", ...question }), this.pictures.fetch(images)]);
    if (turn !== this.asked) return;
    if (answer.isGone) return this.later("again", 1500, () => this.renew()); // until somebody answers
    this.ui.root.removeAttribute("aria-busy");
    this.complain(answer.error);
    // of a refused question nothing is shown: the hits of the one before would be taken for its own
    this.query = answer.error ? new Query() : new Query(question, answer, this.facts);
    this.isWaiting = false;
    await this.draw();
    if (turn === this.asked) this.later("prefetch", 30, () => this.prefetch());
  }

  // the first hits at a lambda, their pictures fetched; null where the kernel refuses to score
  async hitsAt(/** @type {number} */ lambda, top = this.state.top) {
    const { query } = this;
    const scores = await query.scoresAt(this.method, lambda, this.ask);
    if (!scores) return null;
    const rows = this.bestOf(scores, top);
    await this.pictures.fetch(rows.map((row) => query.position(row)));
    return { rows, scores };
  }

  // the score that a person reads: Phi, where Phi - 1 is what ranks
  score(/** @type {number} */ row, /** @type {Float64Array} */ scores = this.shown.scores) {
    const score = this.query.methodScore(this.method, this.state.lambda, row, scores);
    return this.method.scale === "upper_tail" ? 1 + score : score;
  }

  // rows of the first hits, of the class and the least score that are asked for
  bestOf(/** @type {Float64Array} */ scores, /** @type {number} */ top) {
    const { cls, min } = this.state;
    const wanted = this.facts.classes.indexOf(cls);
    const allowed = (/** @type {number} */ row) =>
      (cls === "" || this.facts.classIndex[this.query.position(row)] === wanted) &&
      (min === null || this.score(row, scores) >= min);
    return best(scores, top, cls === "" && min === null ? null : allowed);
  }

  // ---- drawing ----

  controls() {
    const { pictures, state, ui } = this;
    if (state.text !== this.read) {
      // not while somebody types on
      this.stop("words");
      ui.words.value = this.read = state.text;
    }
    ui.slider.value = String(state.lambda);
    put(ui.slider, { "aria-valuetext": `lambda ${state.lambda.toFixed(2)}` });
    say(ui.lambda, `λ ${state.lambda.toFixed(2)}`);
    for (const part of /** @type {const} */ (["method", "top", "cls", "min"])) ui[part].value = `${state[part] ?? ""}`;
    ui.slider.disabled = !this.method.hasLambda;
    say(ui.about, this.method.about);
    ui.auto.disabled = ui.slider.disabled || !this.query.isComposed;
    ui.back.disabled = !this.past.length;
    ui.forward.disabled = !this.future.length;
    const create = (/** @type {number} */ k) =>
      pictureButton(() => this.go({ images: this.state.images.toSpliced(k, 1) }));
    slots(ui.pictures, state.images, create, (node, id) => {
      pictures.show(node.firstElementChild, id);
      const name = pictures.nameOf(id);
      put(node, { title: `${name}: take it away`, "aria-label": `take away ${name}` });
    });
  }

  async draw() {
    this.controls();
    if (this.isWaiting) return; // the answer that is under way will be drawn as things then are
    const turn = ++this.drawing;
    const hits = this.query.rows ? await this.hitsAt(this.state.lambda) : NOTHING;
    if (turn !== this.drawing) return;
    this.shown = hits ?? NOTHING;
    this.scatter.draw();
    drawHits(this);
    this.drawNotes();
    requestAnimationFrame(() => {
      if (turn !== this.drawing) return;
      const link = toLink(this.state, this.facts);
      this.ui.root.dataset.drawn = link;
      if (this.link) history.replaceState(null, "", `#${link}`); // the address of what is on the screen
      const waited = performance.now() - this.acted;
      this.ui.root.dispatchEvent(new CustomEvent("drawn", { detail: waited, bubbles: true }));
    });
    this.later("extras", 60, async () => {
      const isStale = () => turn !== this.drawing;
      await drawStrip(this, isStale);
      await drawCurve(this, isStale);
      if (!isStale()) drawMap(this);
    });
  }

  drawNotes() {
    const { facts, method, query, readOff, shown, state } = this;
    const { strange } = query.answer;
    const isMixed = query.isComposed && state.lambda > 0 && shown.rows.length && state.min === null;
    const ofPicture = isMixed && method.scale && this.bestOf(query.scaled(method.scale)[0], state.top);
    const candidates = `${number(query.rows)} of ${number(facts.files.length)} images`;
    const notes = [
      readOff?.query === query && readOff.lambda === state.lambda && readOff.said,
      ofPicture &&
        ofPicture.join() === shown.rows.join() &&
        "The words change nothing here: the picture alone has the same hits.",
      strange?.length && `The encoder never saw ${strange.join(", ")} while it learned: expect noise.`,
      shown.rows.length && !subject(this) && "To mark hits as right or wrong, ask with one picture.",
      query.positions && `${candidates} can be among the first hits at some lambda: those are compared here.`,
    ];
    say(this.ui.note, notes.filter(Boolean).join(" "));
  }

  // the pictures that the slider will show, before it is moved
  async prefetch() {
    const turn = this.drawing;
    if (!this.method.hasLambda || !this.method.rule || !this.query.isComposed) return;
    const { lambda } = this.state;
    for (const near of [...LAMBDAS].sort((a, b) => Math.abs(a - lambda) - Math.abs(b - lambda))) {
      if (!(await this.hitsAt(near)) || turn !== this.drawing) return;
    }
  }

  /** A hit wherever it is shown: in the grid, in the scatter, on the map. */
  highlight(/** @type {number | null} */ row) {
    for (const node of this.ui.root.querySelectorAll("[data-row]")) {
      node.classList.toggle("over", node.getAttribute("data-row") === `${row}`);
    }
  }

  // ---- links ----

  async open(/** @type {string} */ hash) {
    const { opened, absent } = fromLink(hash, this.state, this.facts);
    this.state = opened;
    this.controls();
    await this.renew();
    if (absent.length) say(this.ui.error, `${this.facts.title} has no image '${absent[0]}'`);
  }

  async copyLink() {
    const without = this.state.images.some((image) => typeof image === "string") ? ", without your own picture" : "";
    const copied = navigator.clipboard?.writeText(location.href).then(() => `The link is on the clipboard${without}.`);
    say(this.ui.note, (await copied?.catch(() => "")) || `The link${without}: ${location.href}`);
  }
}

// link: whether the address of the page is ours to keep the view in; start: the first query. Returns what ends it
/** @param {HTMLElement} el @param {Ask} host @param {boolean} [link] @param {Partial<State>} [start] */
export async function mount(el, host, link = true, start = undefined) {
  const facts = await host({ ask: "hello" });
  if (facts.error) throw new Error(facts.error);
  const view = new View(el, host, facts, link);
  const follow = () => view.open(location.hash);
  if (link) addEventListener("hashchange", follow);
  if (link && location.hash.length > 1) await follow();
  else {
    const [image, text] = facts.queries[facts.opening] ?? [0, ""];
    view.state = { ...START, ...(start?.images ? start : { images: [image], text }) };
    await view.renew();
  }
  view.browser.list(); // the rest may come when the hits are there
  return () => removeEventListener("hashchange", follow);
}

/** What a page of its own does: no host awaits its end. */
export function open(/** @type {Ask} */ host) {
  const place = document.getElementById("explorer") ?? document.body;
  mount(place, host).catch((error) => {
    place.textContent = `The explorer could not start: ${error.message}`;
  });
}
