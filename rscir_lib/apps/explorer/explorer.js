// The explorer: pick a picture, type words, slide lambda, look. One component for every host: a host gives `mount` an
// element and `ask(question, buffers) -> Promise<[answer, ArrayBuffer[]]>` (session.py says what is asked), nothing else.
// Names and texts reach the page as text nodes and attributes, never as HTML.

// ---- mixing and ranking, in float64 as the library does ----

// 1 - Phi(z) for z >= 0: a series of positive terms, from z = 2.5 on a continued fraction
function upperTail(z) {
  const density = Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI);
  if (z < 2.5) {
    let term = z, sum = z;
    for (let n = 3; term > sum * 1e-17; n += 2) sum += term *= (z * z) / n;
    return 0.5 - density * sum;
  }
  let fraction = z;
  for (let n = Math.ceil(24 + 450 / (z * z)); n > 0; n--) fraction = z + n / fraction;
  return density / fraction;
}

// Phi(z) - 1: the order of the normal CDF, without its ties at the top
const cdf = (z) => (z > 0 ? -upperTail(z) : upperTail(-z) - 1);

// how many of sorted values come before the first that `early` denies
function countBefore(sorted, early) {
  let low = 0, high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (early(sorted[middle])) low = middle + 1;
    else high = middle;
  }
  return low;
}

// a similarity on a method's scale; moments: mean, std, least, greatest; all: the similarities of the whole archive
const FLAT = 1e-12; // what spreads less is rounding
const z = ([mean, std], s) => (std > FLAT ? (s - mean) / std : 0);
const SCALES = {
  raw: () => (s) => s,
  clamped: () => (s) => Math.max(s, 0),
  z: (moments) => (s) => z(moments, s),
  cdf: (moments) => (s) => cdf(z(moments, s)),
  rank(moments, all) { // equal similarities share the better rank
    const sorted = all.slice().sort();
    return (s) => 1 / (61 + sorted.length - countBefore(sorted, (other) => other <= s));
  },
  minmax: ([, , least, greatest]) => (s) => (greatest - least > FLAT ? (s - least) / (greatest - least) : 0),
};

const MIXES = {
  mix: (a, b, lambda) => (lambda === 1 ? b : (1 - lambda) * a + lambda * b),
  mean: (a, b) => (a + b) / 2,
  sum: (a, b) => a + b,
  product: (a, b) => a * b,
  minimum: (a, b) => Math.min(a, b),
};

function mixed(a, b, rule, lambda) {
  if (!a || !b) return a || b;
  const out = new Float64Array(a.length), mix = MIXES[rule];
  for (let i = 0; i < out.length; i++) out[i] = mix(a[i], b[i], lambda);
  return out;
}

// rows of the `top` greatest scores, best first, ties in archive order
function best(scores, top, allowed) {
  const rows = [];
  for (let i = 0; i < scores.length; i++) {
    if (allowed && !allowed(i)) continue;
    if (rows.length === top && !(scores[i] > scores[rows[top - 1]])) continue;
    let low = 0, high = rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (scores[rows[middle]] >= scores[i]) low = middle + 1;
      else high = middle;
    }
    rows.splice(low, 0, i);
    if (rows.length > top) rows.pop();
  }
  return rows;
}

// average precision: one pass counts, for each relevant image, those before it; left out images take no rank
function averagePrecision(scores, relevant, out) {
  if (!relevant.length) return 0;
  const order = [...relevant].sort((i, j) => scores[j] - scores[i] || i - j);
  const values = Float64Array.from(order, (i) => scores[i]);
  const before = new Float64Array(order.length + 1); // steps of the number of images before the k-th
  for (let i = 0; i < scores.length; i++) {
    if (out.has(i)) continue;
    let low = 0, high = order.length; // the first relevant image that comes after image i
    while (low < high) {
      const k = (low + high) >> 1;
      if (values[k] < scores[i] || (values[k] === scores[i] && order[k] > i)) high = k;
      else low = k + 1;
    }
    before[low]++;
  }
  let sum = 0, rank = 1;
  order.forEach((_, k) => {
    rank += before[k];
    sum += (k + 1) / rank;
  });
  return sum / order.length;
}

// ---- small helpers of the page ----

const SVG = "http://www.w3.org/2000/svg";

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "circle", "text", "polygon", "g", "image"].includes(tag);
  const node = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value === true) node.setAttribute(key, "");
    else if (value !== false && value != null) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== ""));
  return node;
}

// only what changed, so that a screen reader and the browser do no more than they must
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function put(node, name, value) {
  if (value == null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

// as many children as there are items, made once and updated in place: what has the focus keeps it
function slots(parent, items, create, update) {
  while (parent.children.length > items.length) parent.lastChild.remove();
  while (parent.children.length < items.length) parent.append(create(parent.children.length));
  items.forEach((item, k) => update(parent.children[k], item, k));
}

function save(name, type, content) {
  const url = URL.createObjectURL(new Blob([content], { type }));
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

const LAMBDAS = Array.from({ length: 21 }, (_, k) => k / 20);
const STRIP = [0, 0.5, 0.75, 0.95, 1];
const NOTHING = { image: false, text: false, relevant: null, marks: {}, moments: [[], []] }; // the answer to no question
const clamp = (x, low, high) => Math.min(Math.max(x, low), high);
const number = (x) => x.toLocaleString("en");
const baseName = (file) => file.split("/").pop();
const cell = (text) => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const lines = (rows) => rows.map((row) => row.map((value) => cell(String(value))).join(",") + "\n").join("");

// "oval - cars" is oval, without cars; a hyphen inside a word is none
function parted(text) {
  const match = text.match(/^(.*?)(?:^|\s)[-−]\s*([^\s-].*)$/);
  const tidy = (words) => words.trim().replace(/\s+/g, " ");
  return match ? { words: tidy(match[1]), without: tidy(match[2]) } : { words: tidy(text), without: "" };
}

// ---- the component ----

async function mount(el, host, { link = false, start = {} } = {}) {
  // a host that fails is an answer, too: it is shown, and the page goes on
  const ask = (...question) => host(...question).catch((error) => [{ error: `no answer (${error.message})` }, []]);
  const [facts, [classBuffer]] = await ask({ ask: "hello" });
  if (facts.error) throw new Error(facts.error);
  const classes = new Uint16Array(classBuffer);
  const methods = Object.fromEntries(facts.methods.map((method) => [method.name, method]));
  const first = { images: [], text: "", lambda: 0.5, method: facts.methods[0].name, top: 20, cls: "", min: "" };
  let state = { ...first, method: methods.weicom ? "weicom" : first.method };
  let past = [], future = [];
  let query = null; // the last answer, with its arrays
  let shown = { rows: [], scores: null }; // what is on the screen
  let asked = 0, answered = 0, opened = 0; // questions are numbered: an answer that comes late is dropped
  let drawing = 0; // and so are drawings

  const own = new Map(); // pictures of one's own, by key: name and address
  const cache = new Map(); // position -> {file, class, footprint, src, bytes, img, ready}: img is moved to where it is a hit
  const coming = new Map();

  // -- pictures, fetched once, some at a time --

  async function pictures(positions) {
    const wanted = positions.filter((i) => !cache.has(i) && !coming.has(i));
    for (let at = 0; at < wanted.length; at += 60) {
      const part = wanted.slice(at, at + 60);
      const promise = ask({ ask: "images", positions: part }).then(([answer, buffers]) => {
        part.forEach((i) => coming.delete(i));
        if (refused(answer)) return;
        part.forEach((i, k) => { // not as blobs: each is a question to another process
          const src = dataUrl(buffers[k]), img = make("img", { src });
          cache.set(i, { ...answer.images[k], src, bytes: buffers[k], img, ready: img.decode().catch(() => {}) });
        });
      });
      part.forEach((i) => coming.set(i, promise));
    }
    await Promise.all(positions.map((i) => coming.get(i)));
  }

  const face = (id) => (typeof id === "string" ? own.get(id) : cache.get(id)) || { file: "…", class: "", src: "" };
  const called = (id) => [baseName(face(id).file), face(id).class].filter(Boolean).join(", ");

  function show(img, id) {
    put(img, "src", face(id).src || null);
    put(img, "alt", called(id));
  }

  // -- the page --

  const ui = {};
  const named = (name, node) => (ui[name] = node);
  const button = (text, label, onclick, attributes = {}) =>
    make("button", { type: "button", "aria-label": label, title: label, onclick, ...attributes }, text);
  const labelled = (text, node, attributes = {}) => make("label", attributes, make("span", {}, text), node);
  const choice = (name, options, onchange) =>
    named(name, make("select", { onchange }, ...options.map(([value, text]) => make("option", { value }, text))));

  const known = make("datalist", { id: `words-${Math.random().toString(36).slice(2)}` });
  named("words", make("input", {
    type: "text", list: known.id, autocomplete: "off", spellcheck: "false", placeholder: "oval, or: oval - cars",
    oninput: () => { suggest(); later("words", 80, readWords); }, onchange: () => { stop("words"); readWords(); },
  }));
  named("slider", make("input", {
    type: "range", min: 0, max: 1, step: 0.05, class: "lambda", "aria-label": "lambda, from picture to words",
    oninput: (event) => change({ lambda: +event.target.value }, event),
  }));
  const upload = named("upload", make("input", {
    type: "file", accept: "image/*,.tif,.tiff", multiple: true,
    onchange: async () => { await addFiles([...upload.files]); upload.value = ""; },
  }));

  const asking = make("section", { "aria-label": "Query", class: "query" },
    make("div", { class: "bar" },
      named("back", button("←", "back to the query before", () => travel(past, future))),
      named("forward", button("→", "forward again", () => travel(future, past))),
      named("clear", button("Clear", "start over, without picture and words", () => go({ images: [], text: "" }))),
    ),
    named("pictures", make("div", { class: "pictures", role: "group", "aria-label": "Pictures of the query" })),
    labelled("Words", ui.words), known,
    named("note", make("p", { class: "note", role: "status" })),
    named("error", make("p", { class: "error", role: "alert" })),
  );

  const mixing = make("section", { "aria-label": "Mix", class: "mix" },
    make("div", { class: "ends" }, make("span", {}, "picture"), named("lambda", make("output", {})), make("span", {}, "words")),
    ui.slider,
    make("div", { class: "fields" },
      labelled("Method", choice("method", facts.methods.map((m) => [m.name, m.name]), (e) => change({ method: e.target.value }))),
      labelled("Hits", named("top", make("input", { type: "number", min: 1, max: 200, step: 1,
        onchange: (e) => change({ top: clamp(Math.round(+e.target.value) || 20, 1, 200) }) }))),
      labelled("Class", choice("cls", [["", "all"], ...facts.classes.filter(Boolean).map((c) => [c, c])], (e) => change({ cls: e.target.value }))),
      labelled("Least score", named("min", make("input", { type: "number", step: "any", placeholder: "none",
        onchange: (e) => change({ min: e.target.value }) }))),
    ),
  );

  const browsing = make("details", { class: "browse", open: !matchMedia("(max-width: 820px)").matches },
    make("summary", {}, "Choose a picture"),
    make("div", { class: "fields" },
      labelled("Class", choice("browseClass", [["", "all"], ...facts.classes.filter(Boolean).map((c) => [c, c])], () => browse(0))),
      labelled("Name", named("browseName", make("input", { type: "text", oninput: () => later("browse", 200, () => browse(0)) }))),
    ),
    make("div", { class: "bar" },
      button("‹", "page before", () => browse(ui.page - 1)),
      named("pageText", make("span", { role: "status" })),
      button("›", "next page", () => browse(ui.page + 1)),
      button("Random", "pictures drawn at random", () => browse(0, Math.floor(Math.random() * 1e9))),
    ),
    named("thumbs", make("div", { class: "thumbs" })),
    facts.uploads
      ? labelled("A picture of your own (or drop it anywhere here; of several, the mean is searched)", upload)
      : make("p", { class: "note" }, "This page has no encoder: it knows the pictures of the archive and the words it suggests."),
    facts.attributes.length
      ? make("div", { class: "bar" },
          labelled("Benchmark", choice("attribute", [["", "all attributes"], ...facts.attributes.map((a) => [a, a])], () => (nth = {}))),
          ...["best", "worst", "random"].map((which) => button(which, `${which} query of the benchmark`, () => pick(which))),
        )
      : "",
  );

  const found = make("section", { "aria-label": "Hits", class: "found" },
    make("div", { class: "bar" },
      named("count", make("p", { role: "status", "aria-live": "polite", class: "count" })),
      named("metrics", make("p", { class: "metrics" })),
      make("span", { class: "space" }),
      link ? button("Link", "copy a link that opens this view", copyLink) : "",
      button("CSV", "save these hits as a table", saveCsv),
      button("PNG", "save these hits as a picture", savePng),
      button("HTML", "save these hits as one self-contained page", saveHtml),
      facts.marks ? "" : button("Marks", "save your marks as a table", saveMarks),
    ),
    named("hits", make("ol", { class: "hits" })),
  );

  const why = make("section", { "aria-label": "Why", class: "why" },
    make("figure", {},
      make("figcaption", {}, "The archive: picture (across) against words (up), in standard deviations. On the line, the score of the last hit."),
      named("scatter", make("canvas", { width: 640, height: 480, role: "img", "aria-label": "scatter of the archive",
        onmousemove: (e) => pointAt(e, false), onclick: (e) => pointAt(e, true), onmouseleave: () => highlight(null) })),
      named("pointed", make("p", { class: "note", role: "status" })),
    ),
    make("figure", {}, make("figcaption", {}, "The first hits from picture to words"), named("strip", make("div", { class: "strip" }))),
    named("curveFigure", make("figure", { hidden: true },
      named("curveText", make("figcaption", {})), named("curve", make("svg", { viewBox: "0 0 320 180", role: "img" })))),
    named("mapFigure", make("figure", { hidden: true },
      make("figcaption", {}, "Where the hits lie"), named("map", make("svg", { role: "img", "aria-label": "map of the hits" })))),
  );

  const root = make("div", { class: "rscir", ondragover: (e) => e.preventDefault(),
    onfocusin: (e) => (e.target.dataset.lmSuppressShortcuts = "true"), // or JupyterLab takes the keys of what has the focus
    ondrop: (e) => { e.preventDefault(); if (facts.uploads) addFiles([...e.dataTransfer.files]); } },
    make("h2", {}, facts.title), make("div", { class: "columns" }, make("div", { class: "side" }, asking, browsing),
    make("div", { class: "main" }, mixing, found, why)));
  el.replaceChildren(root);

  const timers = {};
  const stop = (name) => clearTimeout(timers[name]);
  const later = (name, ms, what) => { stop(name); timers[name] = setTimeout(what, ms); };

  // -- changes of the query --

  // a new query: it can be gone back from
  async function go(changes, event) {
    if (Object.entries(changes).every(([key, value]) => JSON.stringify(state[key]) === JSON.stringify(value))) return;
    past.push(state);
    future = [];
    state = { ...state, ...changes };
    await renew(event);
  }

  // another mix of the same query
  async function change(changes, event) {
    const more = !facts.whole && ("method" in changes || "cls" in changes);
    state = { ...state, ...changes };
    say(ui.error, "");
    if (more) await renew(event);
    else await draw(event);
  }

  async function travel(from, to) {
    if (!from.length) return;
    to.push(state);
    state = from.pop();
    await renew();
  }

  const readWords = () => {
    read = ui.words.value.trim();
    return go({ text: read }, { timeStamp: typed });
  };
  let typed = 0, read = "", nth = {};

  function suggest() {
    typed = performance.now();
    const text = ui.words.value.toLowerCase();
    const starts = facts.words.filter((word) => word.startsWith(text));
    known.replaceChildren(...starts.slice(0, 30).map((value) => make("option", { value })));
  }

  async function pick(which) {
    const key = `${which} ${ui.attribute.value}`;
    const [answer] = await ask({ ask: "benchmark", which, attribute: ui.attribute.value, nth: nth[key] ?? 0 });
    nth[key] = (nth[key] ?? 0) + 1;
    if (!refused(answer)) await go({ images: [answer.image], text: answer.words });
  }

  async function addFiles(files) {
    const keys = [], problems = [];
    for (const file of files) {
      const [answer, buffers] = await ask({ ask: "upload", name: file.name }, [await file.arrayBuffer()]);
      if (answer.error) { problems.push(answer.error); continue; }
      const src = URL.createObjectURL(new Blob([buffers[0]], { type: "image/jpeg" }));
      own.set(answer.key, { file: answer.name, class: "your own", src, bytes: buffers[0] });
      keys.push(answer.key);
    }
    if (keys.length) await go({ images: keys });
    refused({ error: problems.join(" ") });
  }

  function refused(answer) {
    if (answer.error) say(ui.error, answer.error);
    return Boolean(answer.error);
  }

  async function browse(page, seed) {
    stop("browse"); // a name still being typed is read here: its own turn, later, would undo this one
    if (ui.browseName.value !== ui.namedThen) page = 0;
    ui.namedThen = ui.browseName.value;
    if (seed !== undefined) ui.seed = seed;
    else if (page === 0) ui.seed = undefined;
    const question = { ask: "browse", cls: ui.browseClass.value, name: ui.browseName.value, page };
    const turn = (ui.turn = (ui.turn ?? 0) + 1); // of two answers the later question's is shown
    const [answer] = await ask(ui.seed === undefined ? question : { ...question, seed: ui.seed });
    if (refused(answer)) return;
    await pictures(answer.positions);
    if (turn !== ui.turn) return;
    ui.page = answer.page;
    say(ui.pageText, `page ${number(answer.page + 1)} of ${number(Math.max(Math.ceil(answer.total / 24), 1))}`);
    slots(ui.thumbs, answer.positions,
      () => { const b = make("button", { type: "button", onclick: (e) => pictureChosen(e, b.id_) }, make("img", {})); return b; },
      (b, i) => { b.id_ = i; show(b.firstChild, i); put(b, "aria-label", `search with ${called(i)}`); put(b, "title", called(i)); });
  }

  // with shift or ctrl a picture joins those that are there, and the mean is searched
  function pictureChosen(event, id) {
    const join = event.shiftKey || event.ctrlKey || event.metaKey;
    return go({ images: join ? [...state.images.filter((i) => i !== id), id] : [id] }, event);
  }

  async function renew(event) {
    const turn = ++asked;
    drawing++; // what is being drawn is of the question before
    const question = { ask: "query", images: state.images, ...parted(state.text) };
    if (!facts.whole) Object.assign(question, { method: state.method, cls: state.cls });
    root.setAttribute("aria-busy", "true");
    const [answer, buffers] = await ask(question);
    await pictures(state.images.filter((i) => typeof i === "number"));
    if (turn !== asked) return;
    root.removeAttribute("aria-busy");
    say(ui.error, "");
    controls();
    const none = refused(answer); // the hits of the question before would be taken for this one's
    const [image, text, positions, percentiles] = (none ? [new ArrayBuffer(0), new ArrayBuffer(0)] : buffers).map((buffer, k) =>
      new [Float64Array, Float64Array, Int32Array, Float32Array][k](buffer));
    query = { ...(none ? NOTHING : answer), question, sides: [image, text].map((s) => (s.length ? s : null)), positions, percentiles,
      unknownRows: new Set(answer.unknown || []), relevantRows: new Set(answer.relevant || []), scaled: {}, sorted: [], scores: new Map() };
    answered = turn;
    await draw(event);
    if (turn === asked) later("prefetch", 30, prefetch);
  }

  // -- scores --

  const position = (row) => (query.positions ? query.positions[row] : row);

  const onScale = (scale, side) => SCALES[scale](query.moments[side], query.sides[side]);

  function scaled(scale) {
    query.scaled[scale] ??= query.sides.map((s, side) => s && s.map(onScale(scale, side)));
    return query.scaled[scale];
  }

  // float64 scores of every row; by the kernel where the browser doesn't know the method; null where that refuses
  async function scoresAt(lambda, name = state.method) {
    const method = methods[name];
    if (!query.sides[0] || !query.sides[1]) return mixed(...scaled("raw"));
    // one modality alone is ranked as it is, where no scale can saturate
    if (method.rule === "mix" && (lambda === 0 || lambda === 1)) return scaled("raw")[lambda];
    if (method.rule) return mixed(...scaled(method.scale), method.rule, lambda);
    const key = `${name} ${method.hasLambda ? lambda : ""}`, of = query; // there may be another when the answer comes
    if (!of.scores.has(key)) {
      const [answer, buffers] = await ask({ ...of.question, ask: "scores", lam: lambda, method: name });
      if (refused(answer)) return null;
      of.scores.set(key, new Float64Array(buffers[0]));
    }
    return of.scores.get(key);
  }

  // the score as it is shown: on the method's own scale, and Phi where Phi - 1 was mixed
  function scoreOf(row, scores = shown.scores) {
    const { scale, rule } = methods[state.method];
    if (!rule) return scores[row];
    const end = rule === "mix" && [0, 1].includes(state.lambda) ? state.lambda : null; // where one side is mixed in alone
    const alone = !query.sides[1] ? 0 : !query.sides[0] ? 1 : end;
    const value = alone === null ? scores[row] : scaled(scale)[alone][row];
    return scale === "cdf" ? 1 + value : value;
  }

  function allowed(scores) {
    const cls = state.cls && facts.classes.indexOf(state.cls);
    if (state.cls === "" && state.min === "") return null;
    return (row) => (state.cls === "" || classes[position(row)] === cls) && (state.min === "" || scoreOf(row, scores) >= +state.min);
  }

  function percentile(side, row) {
    if (query.percentiles) return query.percentiles[side * query.positions.length + row];
    const s = query.sides[side];
    const sorted = (query.sorted[side] ??= s.slice().sort());
    return (100 * countBefore(sorted, (other) => other < s[row])) / Math.max(sorted.length - 1, 1);
  }

  // -- drawing --

  function controls() {
    if (state.text !== read) { // not while somebody types on
      stop("words");
      ui.words.value = read = state.text;
    }
    ui.slider.value = state.lambda;
    put(ui.slider, "aria-valuetext", `lambda ${state.lambda.toFixed(2)}`);
    say(ui.lambda, `λ ${state.lambda.toFixed(2)}`);
    ui.method.value = state.method;
    ui.top.value = state.top;
    ui.cls.value = state.cls;
    ui.min.value = state.min;
    ui.slider.disabled = !methods[state.method].hasLambda;
    ui.back.disabled = !past.length;
    ui.forward.disabled = !future.length;
    slots(ui.pictures, state.images,
      () => { const b = button("", "", () => go({ images: state.images.filter((i) => i !== b.id_) })); b.append(make("img", {})); return b; },
      (b, id) => { b.id_ = id; show(b.firstChild, id); put(b, "title", `${called(id)}: take it away`); put(b, "aria-label", `take away ${called(id)}`); });
  }

  async function draw(event) {
    if (answered !== asked) return controls(); // the answer that is under way will be drawn as things then are
    const turn = ++drawing;
    const since = event?.timeStamp || performance.now();
    controls();
    if (!query.image && !query.text) {
      shown = { rows: [], scores: new Float64Array(0), top: 0 };
    } else {
      const scores = await scoresAt(state.lambda);
      if (turn !== drawing) return;
      shown = scores ? { rows: best(scores, state.top, allowed(scores)), scores } : { rows: [], scores: new Float64Array(0) };
    }
    await pictures(shown.rows.map(position));
    await Promise.all(shown.rows.map((row) => face(position(row)).ready));
    if (turn !== drawing) return;
    drawScatter(); // before the hits, or to ask for its colours would have the page laid out twice
    drawHits();
    drawNotes();
    requestAnimationFrame(() => {
      if (turn !== drawing) return;
      root.dataset.drawn = permalink();
      if (link) history.replaceState(null, "", "#" + root.dataset.drawn); // the address of what is on the screen
      root.dispatchEvent(new CustomEvent("drawn", { detail: performance.now() - since, bubbles: true }));
    });
    later("extras", 60, drawExtras);
  }

  const judgement = (row) => {
    if (!query.relevant) return null;
    return query.relevantRows.has(position(row)) ? "relevant" : query.unknownRows.has(position(row)) ? "unjudged" : "other";
  };

  function drawHits() {
    slots(ui.hits, shown.rows, hit, (li, row, k) => {
      const i = position(row), parts = li.parts, { file, class: cls } = face(i);
      const kind = judgement(row), verdict = query.marks[i] || "";
      li.row = row;
      put(li, "class", ["hit", kind || "", verdict && `marked-${verdict}`].filter(Boolean).join(" "));
      const img = face(i).img ?? make("img");
      if (parts.open.firstChild !== img) parts.open.replaceChildren(img, parts.badge);
      put(img, "alt", called(i));
      put(parts.open, "aria-label", `${k + 1}: ${called(i)}${kind ? ", " + kind : ""}; search from it`);
      put(parts.open, "title", file);
      say(parts.badge, kind === "relevant" ? "✓" : kind === "unjudged" ? "?" : "");
      say(parts.rank, `${k + 1}`);
      say(parts.cls, cls);
      say(parts.name, baseName(file));
      say(parts.score, scoreOf(row).toFixed(4));
      query.sides.forEach((s, side) => {
        const [cosine, share] = parts.sides[side];
        say(cosine, s ? s[row].toFixed(3) : "–");
        say(share, s ? `${percentile(side, row).toFixed(1)} %` : "–");
      });
      for (const [which, node] of [["right", parts.right], ["wrong", parts.wrong]]) {
        put(node, "aria-pressed", verdict === which);
        put(node, "aria-label", `mark ${baseName(file)} ${which}`);
        node.hidden = !markable();
      }
      put(parts.join, "aria-label", `add ${baseName(file)} to the query`);
    });
    const n = state.cls ? classes.filter((c) => c === facts.classes.indexOf(state.cls)).length : facts.n;
    const right = query.relevant && shown.rows.filter((row) => judgement(row) === "relevant").length;
    const asked = query.image || query.text;
    say(ui.count, !asked ? "Choose a picture, type words, or both." :
      `${number(shown.rows.length)} of ${number(n)} images` + (query.relevant ? `, ${right} relevant` : ""));
    const judged = query.relevant && shown.rows.filter((row) => judgement(row) !== "unjudged");
    const at = [5, 10, 20].filter((k) => query.relevant && k <= judged.length);
    const complete = facts.whole && query.relevant && shown.scores.length;
    say(ui.metrics, !query.relevant ? (asked ? "unjudged: no benchmark asks this" : "") :
      [`${query.attribute}, ${query.relevant.length} relevant`,
        complete ? `AP ${(100 * averagePrecision(shown.scores, query.relevant, query.unknownRows)).toFixed(1)}` : "",
        ...(state.cls || state.min !== "" ? [] : at.map((k) =>
          `P@${k} ${((100 * judged.slice(0, k).filter((row) => judgement(row) === "relevant").length) / k).toFixed(0)}`)),
      ].filter(Boolean).join(" · "));
  }

  const markable = () => state.images.length === 1 && typeof state.images[0] === "number";

  function hit() {
    const badge = make("span", { class: "badge", "aria-hidden": "true" });
    const li = make("li", { onmouseenter: () => highlight(li.row), onmouseleave: () => highlight(null), onfocusin: () => highlight(li.row) });
    const value = () => make("td", {});
    const sides = [[value(), value()], [value(), value()]];
    const [rank, cls, name, score] = ["rank", "cls", "name", "score"].map((c) => make("span", { class: c }));
    const open = make("button", { type: "button", class: "open", onclick: (e) => pictureChosen(e, position(li.row)) }, badge);
    const right = button("✓", "", () => mark(li.row, "right")), wrong = button("✗", "", () => mark(li.row, "wrong"));
    const join = button("+", "", () => go({ images: [...state.images.filter((i) => i !== position(li.row)), position(li.row)] }));
    li.parts = { badge, open, rank, cls, name, score, sides, right, wrong, join };
    const row = (head, cells) => make("tr", {}, make("th", { scope: "row" }, head), ...cells);
    li.append(open, make("div", { class: "head" }, rank, cls, score), name,
      make("table", { title: "cosine similarity, and the share of the archive that is below it" }, row("picture", sides[0]), row("words", sides[1])),
      make("div", { class: "verdicts" }, right, wrong, join));
    return li;
  }

  async function mark(row, verdict) {
    if (answered !== asked) return; // the hits shown are no answer to what is asked by now
    const i = position(row), of = query, { words, without } = parted(state.text);
    const now = of.marks[i] === verdict ? "" : verdict;
    const [answer] = await ask({ ask: "mark", image: state.images[0], words, without, answer: i, verdict: now });
    if (refused(answer)) return;
    of.marks[i] = now;
    if (of === query) drawHits();
  }

  function drawNotes() {
    const notes = [];
    if (query.text && query.image && methods[state.method].rule && state.lambda > 0 && shown.rows.length) {
      const plain = best(scaled(methods[state.method].scale)[0], state.top, allowed(shown.scores));
      if (state.min === "" && plain.join() === shown.rows.join()) notes.push("The words move nothing here: these are the hits of the picture alone.");
    }
    if (query.strange?.length) notes.push(`This encoder never learned: ${query.strange.join(", ")}.`);
    if (query.positions) notes.push(`${number(query.positions.length)} candidates of ${number(facts.n)} images were sent.`);
    say(ui.note, notes.join(" "));
  }

  // -- scatter: z of the picture across, z of the words up --

  const PAD = 34;

  function axes() {
    const z = query.sides.map((s, side) => s && ((row) => SCALES.z(query.moments[side])(s[row])));
    const range = query.moments.map(([mean, std, least, greatest]) => mean === undefined ? [0, 1] : [(least - mean) / (std || 1) - 0.2, (greatest - mean) / (std || 1) + 0.2]);
    const { width, height } = ui.scatter;
    const x = (v) => PAD + ((v - range[0][0]) / (range[0][1] - range[0][0])) * (width - PAD - 8);
    const y = (v) => height - PAD - ((v - range[1][0]) / (range[1][1] - range[1][0])) * (height - PAD - 8);
    return { z, range, x, y };
  }

  function drawScatter(over = null) {
    const canvas = ui.scatter, context = canvas.getContext("2d");
    const style = getComputedStyle(root), color = (name) => style.getPropertyValue(name).trim();
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!query.image || !query.text) {
      context.fillStyle = color("--soft");
      context.font = "18px sans-serif";
      context.fillText("A picture and words together draw the archive here.", 40, canvas.height / 2);
      return;
    }
    const { z, range, x, y } = (query.axes ??= axes());
    const look = color("--dot") + color("--ink");
    if (query.cloud?.look !== look) { // the archive is drawn once a query
      const cloud = new OffscreenCanvas(canvas.width, canvas.height), c = cloud.getContext("2d");
      c.fillStyle = color("--dot");
      const size = query.sides[0].length > 5000 ? 2 : 4;
      const rows = query.sides[0].length;
      for (let row = 0; row < rows; row++) c.fillRect(x(z[0](row)) - size / 2, y(z[1](row)) - size / 2, size, size);
      c.fillStyle = color("--right");
      for (const i of query.positions ? [] : query.relevantRows) c.fillRect(x(z[0](i)) - 3, y(z[1](i)) - 3, 6, 6);
      c.fillStyle = c.strokeStyle = color("--soft");
      c.font = "15px sans-serif";
      c.textAlign = "center";
      for (let v = Math.ceil(range[0][0]); v <= range[0][1]; v++) c.fillText(v, x(v), canvas.height - 14);
      for (let v = Math.ceil(range[1][0]); v <= range[1][1]; v++) c.fillText(v, 14, y(v) + 5);
      query.cloud = { look, bitmap: cloud };
    }
    context.drawImage(query.cloud.bitmap, 0, 0);
    const line = isoLine(range);
    if (line) {
      context.strokeStyle = color("--accent");
      context.lineWidth = 2.5;
      context.beginPath();
      line.forEach(([h, v]) => (v === null ? null : context.lineTo(x(h), y(v))));
      context.stroke();
    }
    context.lineWidth = 2;
    for (const row of shown.rows) {
      context.beginPath();
      context.arc(x(z[0](row)), y(z[1](row)), row === over ? 11 : 6, 0, 7);
      context.fillStyle = row === over ? color("--accent") : "transparent";
      context.fill();
      context.strokeStyle = color("--accent");
      context.stroke();
    }
    put(canvas, "aria-label", `scatter of ${number(query.sides[0].length)} images, ${shown.rows.length} hits marked, lambda ${state.lambda.toFixed(2)}`);
  }

  // where the score equals that of the last hit, as points (z of the picture, z of the words)
  function isoLine(range) {
    const method = methods[state.method];
    if (!method.rule || !shown.rows.length) return null;
    const wanted = scoreOf(shown.rows.at(-1)) - (method.scale === "cdf" ? 1 : 0);
    const [a, b] = query.moments.map((m, side) => {
      const scale = onScale(method.scale, side);
      return (z) => scale(m[0] + z * m[1]);
    });
    const score = (h, v) => MIXES[method.rule](a(h), b(v), state.lambda);
    const points = [];
    // along the direction in which the score rises most: up, or across
    const across = method.rule === "mix" && state.lambda < 0.5;
    const [along, solved] = across ? [range[1], range[0]] : range;
    for (let k = 0; k <= 120; k++) {
      const fixed = along[0] + (k / 120) * (along[1] - along[0]);
      const at = (v) => (across ? score(v, fixed) : score(fixed, v));
      let [low, high] = solved;
      if (at(low) > wanted || at(high) < wanted) continue;
      for (let step = 0; step < 14; step++) { // to a part of a pixel
        const middle = (low + high) / 2;
        if (at(middle) < wanted) low = middle;
        else high = middle;
      }
      points.push(across ? [high, fixed] : [fixed, high]);
    }
    return points;
  }

  function highlight(row) {
    for (const li of ui.hits.children) li.classList.toggle("over", li.row === row);
    for (const polygon of ui.map.querySelectorAll(".place")) polygon.classList.toggle("over", polygon.row === row);
    if (query?.image && query?.text) drawScatter(row);
  }

  async function pointAt(event, clicked) {
    if (!query?.axes) return;
    const box = ui.scatter.getBoundingClientRect(), { z, x, y } = query.axes;
    const h = ((event.clientX - box.left) / box.width) * ui.scatter.width, v = ((event.clientY - box.top) / box.height) * ui.scatter.height;
    let near = null, least = 144;
    for (let row = 0; row < query.sides[0].length; row++) {
      const distance = (x(z[0](row)) - h) ** 2 + (y(z[1](row)) - v) ** 2;
      if (distance < least) [near, least] = [row, distance];
    }
    highlight(near);
    if (near === null) return say(ui.pointed, "");
    await pictures([position(near)]);
    say(ui.pointed, `${called(position(near))}; a click searches from it`);
    if (clicked) await go({ images: [position(near)] }, event);
  }

  // -- what may come a little later: strip, curve, map --

  async function drawExtras() {
    const turn = drawing;
    if (!query.image || !query.text || !methods[state.method].hasLambda) ui.strip.replaceChildren();
    else {
      const columns = [];
      for (const lambda of STRIP) {
        const scores = await scoresAt(lambda);
        if (!scores || turn !== drawing) return;
        columns.push([lambda, best(scores, 5, allowed(scores)).map(position)]);
      }
      await pictures(columns.flatMap(([, rows]) => rows));
      if (turn !== drawing) return;
      slots(ui.strip, columns,
        () => { const b = make("button", { type: "button", onclick: (e) => change({ lambda: b.lambda }, e) }, make("span", {}), make("span", { class: "faces" })); return b; },
        (b, [lambda, rows]) => {
          b.lambda = lambda;
          say(b.firstChild, `λ ${lambda}`);
          put(b, "aria-label", `lambda ${lambda}`);
          put(b, "aria-current", lambda === state.lambda ? "true" : null);
          slots(b.lastChild, rows, () => make("img", {}), (img, i) => {
            show(img, i);
            img.classList.toggle("relevant", query.relevantRows.has(i));
          });
        });
    }
    await drawCurve(turn);
    await drawMap();
  }

  async function drawCurve(turn) {
    const can = query.relevant?.length && facts.whole && query.image && query.text && methods[state.method].hasLambda && methods[state.method].rule;
    ui.curveFigure.hidden = !can;
    if (!can) return;
    query.curves ??= {};
    if (!query.curves[state.method]) {
      const values = [];
      for (const lambda of LAMBDAS) {
        values.push(100 * averagePrecision(await scoresAt(lambda), query.relevant, query.unknownRows));
        await new Promise((done) => setTimeout(done)); // the slider comes first
        if (turn !== drawing) return;
      }
      query.curves[state.method] = values;
    }
    const values = query.curves[state.method];
    const x = (lambda) => 34 + lambda * 276, y = (ap) => 150 - (ap / 100) * 138;
    const now = 100 * averagePrecision(await scoresAt(state.lambda), query.relevant, query.unknownRows);
    const label = (at, top, text, anchor = "middle") => make("text", { x: at, y: top, "text-anchor": anchor }, String(text));
    ui.curve.replaceChildren(
      ...[0, 50, 100].flatMap((ap) => [make("line", { x1: 34, x2: 310, y1: y(ap), y2: y(ap), class: "grid" }), label(28, y(ap) + 4, ap, "end")]),
      ...[0, 0.5, 1].map((lambda) => label(x(lambda), 168, lambda)),
      make("path", { d: values.map((ap, k) => `${k ? "L" : "M"}${x(LAMBDAS[k])},${y(ap)}`).join(""), class: "curve" }),
      make("line", { x1: x(state.lambda), x2: x(state.lambda), y1: 12, y2: 150, class: "now" }),
      make("circle", { cx: x(state.lambda), cy: y(now), r: 5, class: "now" }),
    );
    const top = values.indexOf(Math.max(...values));
    const text = `AP of this query against lambda: ${now.toFixed(1)} at ${state.lambda.toFixed(2)}, best ${values[top].toFixed(1)} at ${LAMBDAS[top].toFixed(2)}`;
    say(ui.curveText, text);
    put(ui.curve, "aria-label", text);
  }

  // the hits' pictures on the ground, over a mosaic of the tiles around them
  async function drawMap() {
    const rows = shown.rows.filter((row) => face(position(row)).footprint);
    ui.mapFigure.hidden = !rows.length;
    if (!rows.length) return;
    const corners = rows.flatMap((row) => face(position(row)).footprint);
    const [west, east] = [Math.min(...corners.map((c) => c[0])), Math.max(...corners.map((c) => c[0]))];
    const [south, north] = [Math.min(...corners.map((c) => c[1])), Math.max(...corners.map((c) => c[1]))];
    const pad = 0.04 * Math.max(east - west, north - south), scale = 600 / (east - west + 2 * pad);
    const px = ([h, v]) => [(h - west + pad) * scale, (north + pad - v) * scale];
    put(ui.map, "viewBox", `0 0 600 ${Math.max((north - south + 2 * pad) * scale, 60)}`);
    ui.map.replaceChildren(...[...cache.values()].filter((known) => known.footprint).map(({ footprint, src }) => {
      const points = footprint.map(px), h = points.map((p) => p[0]), v = points.map((p) => p[1]);
      const [left, top] = [Math.min(...h), Math.min(...v)];
      return make("image", { href: src, x: left, y: top, width: Math.max(...h) - left, height: Math.max(...v) - top, preserveAspectRatio: "none", class: "tile" });
    }), ...rows.map((row, k) => {
      const points = face(position(row)).footprint.map(px);
      const polygon = make("polygon", { points: points.join(" "), class: "place", onmouseenter: () => highlight(row), onmouseleave: () => highlight(null), onclick: (e) => pictureChosen(e, position(row)) });
      polygon.row = row;
      const middle = [0, 1].map((axis) => points.slice(0, -1).reduce((sum, p) => sum + p[axis], 0) / (points.length - 1));
      return make("g", {}, polygon, make("text", { x: middle[0], y: middle[1], "text-anchor": "middle" }, `${k + 1}`));
    }));
    put(ui.map, "aria-label", `map of ${rows.length} hits`);
  }

  // thumbnails of what the slider will show, before it is moved
  async function prefetch() {
    const turn = drawing, method = methods[state.method];
    if (!method.hasLambda || !method.rule || !query.image || !query.text) return;
    const near = [...LAMBDAS].sort((a, b) => Math.abs(a - state.lambda) - Math.abs(b - state.lambda));
    for (const lambda of near) {
      if (turn !== drawing) return;
      const scores = await scoresAt(lambda);
      if (turn !== drawing) return;
      await pictures(best(scores, state.top, allowed(scores)).map(position));
    }
  }

  // -- keeping --

  function permalink() {
    const files = state.images.filter((i) => typeof i === "number").map((i) => ["image", face(i).file]);
    return new URLSearchParams([...files, ["words", state.text], ["lambda", state.lambda], ["method", state.method],
      ...(state.top !== 20 ? [["top", state.top]] : []), ...(state.cls ? [["class", state.cls]] : []),
      ...(state.min !== "" ? [["min", state.min]] : [])]).toString();
  }

  async function open(hash) {
    const turn = ++opened;
    asked++; // nothing is drawn until the files are found; what is changed meanwhile is kept
    drawing++;
    const asks = new URLSearchParams(hash.replace(/^#/, ""));
    const files = asks.getAll("image");
    const lambda = asks.has("lambda") ? +asks.get("lambda") : state.lambda, images = [];
    state = {
      ...state, images, text: asks.get("words") ?? "", lambda: clamp(Number.isFinite(lambda) ? lambda : 0.5, 0, 1),
      method: methods[asks.get("method")] ? asks.get("method") : state.method, top: clamp(+asks.get("top") || 20, 1, 200),
      cls: facts.classes.includes(asks.get("class")) ? asks.get("class") : "",
      min: Number.isFinite(parseFloat(asks.get("min"))) ? parseFloat(asks.get("min")) : "",
    };
    controls();
    const [answer] = files.length ? await ask({ ask: "find", files }) : [{ positions: [] }];
    if (turn !== opened) return;
    if (!answer.error && state.images === images) state = { ...state, images: answer.positions };
    await renew();
    refused(answer);
  }

  async function copyLink() {
    try {
      await navigator.clipboard.writeText(location.href);
      say(ui.note, "The link is on the clipboard" + (state.images.some((i) => typeof i === "string") ? ", without your own picture." : "."));
    } catch {
      say(ui.note, `The link: ${location.href}`);
    }
  }

  const heading = () => `${state.images.map(called).join(" + ") || "no picture"}${state.text ? " + " + state.text : ""}, ${state.method}` +
    (methods[state.method].hasLambda ? `, lambda ${state.lambda.toFixed(2)}` : "");

  const COLUMNS = ["rank", "file", "class", "score", "cosine_picture", "cosine_words", "percentile_picture", "percentile_words", "judged", "mark"];
  const table = () => shown.rows.map((row, k) => [k + 1, face(position(row)).file, face(position(row)).class, scoreOf(row),
    ...query.sides.map((s) => (s ? s[row] : "")), ...query.sides.map((s, side) => (s ? percentile(side, row) : "")),
    judgement(row) || "", query.marks[position(row)] || ""]);

  function saveCsv() {
    if (query) save("hits.csv", "text/csv", lines([COLUMNS, ...table()]));
  }

  async function saveMarks() {
    const [answer] = await ask({ ask: "marks" });
    if (!refused(answer)) save("marks.csv", "text/csv", lines([["image", "text", "answer", "verdict"], ...answer.rows]));
  }

  async function savePng() {
    if (!query) return;
    const across = 5, side = 150, width = across * side + 20, down = Math.ceil(shown.rows.length / across);
    const canvas = make("canvas", { width, height: 60 + down * (side + 24) }), c = canvas.getContext("2d");
    c.fillStyle = "white";
    c.fillRect(0, 0, canvas.width, canvas.height);
    c.fillStyle = "black";
    c.font = "bold 15px sans-serif";
    c.fillText(heading(), 14, 24, width - 28);
    c.font = "13px sans-serif";
    c.fillText(facts.title, 14, 44, width - 28);
    for (const [k, row] of shown.rows.entries()) {
      const left = 10 + (k % across) * side, top = 58 + Math.floor(k / across) * (side + 24);
      const { img } = face(position(row)), kind = judgement(row);
      if (kind === "relevant") (c.fillStyle = "#1a7f37"), c.fillRect(left, top, side - 6, side - 6);
      if (img) c.drawImage(img, left + 4, top + 4, side - 14, side - 14);
      c.fillStyle = "black";
      c.fillText(`${k + 1} ${kind === "relevant" ? "✓ " : ""}${baseName(face(position(row)).file)}`, left + 4, top + side + 8, side - 14);
    }
    canvas.toBlob((blob) => save("hits.png", "image/png", blob));
  }

  async function saveHtml() {
    if (!query) return;
    const page = document.implementation.createHTMLDocument(heading());
    page.documentElement.lang = "en";
    const add = (parent, tag, text = "", attributes = {}) => {
      const node = page.createElement(tag);
      node.textContent = text;
      for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
      return parent.appendChild(node);
    };
    add(page.head, "meta", "", { charset: "utf-8" });
    add(page.head, "style", "body{font:15px sans-serif;margin:2em;color-scheme:light dark} td,th{padding:.2em .6em;text-align:left} img{width:96px;height:96px} .relevant img{outline:4px solid #1a7f37}");
    add(page.body, "h1", heading());
    add(page.body, "p", facts.title);
    for (const id of state.images) add(page.body, "img", "", { src: dataUrl(face(id).bytes), alt: called(id) });
    const body = add(page.body, "table");
    const head = add(body, "tr");
    ["", ...COLUMNS].forEach((name) => add(head, "th", name));
    table().forEach((values, k) => {
      const row = add(body, "tr", "", judgement(shown.rows[k]) === "relevant" ? { class: "relevant" } : {});
      const id = position(shown.rows[k]);
      add(add(row, "td"), "img", "", { src: face(id).src, alt: called(id) });
      values.forEach((value) => add(row, "td", typeof value === "number" && !Number.isInteger(value) ? value.toFixed(4) : String(value)));
    });
    save("hits.html", "text/html", "<!doctype html>\n" + page.documentElement.outerHTML);
  }

  // -- begin --

  const follow = () => open(location.hash);
  if (link) addEventListener("hashchange", follow);
  if (link && location.hash.length > 1) await open(location.hash);
  else if (start.image !== undefined) await go({ images: [start.image], text: start.words || "", lambda: start.lambda ?? 0.5 });
  else await renew();
  past = [];
  controls();
  browse(0); // the rest may come when the hits are there
  return () => removeEventListener("hashchange", follow);
}

function dataUrl(jpeg) {
  const bytes = new Uint8Array(jpeg);
  let text = "";
  for (let at = 0; at < bytes.length; at += 4096) text += String.fromCharCode(...bytes.subarray(at, at + 4096));
  return `data:image/jpeg;base64,${btoa(text)}`;
}

// ---- host: anywidget, in JupyterLab ----

async function render({ model, el }) {
  let last = 0;
  const waiting = new Map();
  const plain = (buffer) => (buffer.buffer ? buffer.buffer.slice(buffer.byteOffset, buffer.byteOffset + buffer.byteLength) : buffer);
  const answered = (message, buffers) => {
    waiting.get(message.id)?.([message, buffers.map(plain)]);
    waiting.delete(message.id);
  };
  const ask = (question, buffers = []) => new Promise((done) => {
    const id = `${Math.random()} ${++last}`; // every view of the widget hears every answer
    waiting.set(id, done);
    model.send({ ...question, id }, undefined, buffers);
  });
  model.on("msg:custom", answered);
  const inLab = document.querySelector(".jp-LabShell, .jp-NotebookShell"); // whose address is not ours
  const end = await mount(el, ask, { link: !inLab, start: model.get("start") });
  return () => {
    model.off("msg:custom", answered);
    end();
  };
}

export default { render };
