// Host: a page without a server. It answers the questions of session.py itself, from data.js and thumbnails/*.js.

function overFiles(data) {
  const { facts, files, classIndex, dim, queries, targets } = data;
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
  const feats = new Float32Array(bytes(data.feats)), wordFeats = new Float32Array(bytes(data.wordFeats));
  const words = new Map(facts.words.map((word, k) => [word.toLowerCase(), k]));
  const refuse = (message) => { throw new Error(message); };

  const unit = (v) => {
    const length = Math.hypot(...v);
    return length < 1e-6 ? refuse("nothing is left of these words without the others") : v.map((x) => x / length);
  };
  const row = (matrix, i) => Float64Array.from(matrix.subarray(i * dim, (i + 1) * dim));
  const dot = (a, b) => a.reduce((sum, x, k) => sum + x * b[k], 0);

  function word(text) {
    if (!words.has(text.toLowerCase())) refuse(`This page has no encoder: it knows the words it suggests, and "${text}" is not among them.`);
    return row(wordFeats, words.get(text.toLowerCase()));
  }

  function textOf(some, without) {
    if (!some && !without) return null;
    if (!without) return word(some);
    const b = word(without);
    if (!some) return b.map((x) => -x);
    const a = word(some), along = dot(a, b);
    return unit(a.map((x, k) => x - along * b[k]));
  }

  function imageOf(images) {
    if (!images.length) return null;
    if (images.length === 1) return row(feats, images[0]);
    const mean = new Float64Array(dim);
    for (const i of images) row(feats, i).forEach((x, k) => (mean[k] += x / images.length));
    return unit(mean);
  }

  function similarities(v) {
    const out = new Float64Array(v ? files.length : 0);
    for (let i = 0; i < out.length; i++) {
      let sum = 0;
      for (let k = 0, at = i * dim; k < dim; k++) sum += feats[at + k] * v[k];
      out[i] = sum;
    }
    return out;
  }

  function moments(s) {
    if (!s.length) return [];
    let mean = 0, square = 0, least = Infinity, greatest = -Infinity;
    for (const x of s) (mean += x / s.length), (least = Math.min(least, x)), (greatest = Math.max(greatest, x));
    for (const x of s) square += (x - mean) ** 2;
    return [mean, Math.sqrt(square / Math.max(s.length - 1, 1)), least, greatest];
  }

  // thumbnails come as scripts, some together; what a person marked stays in this browser
  const loading = new Map();
  data.thumbnails = (number, some) => loading.get(number).done(some);
  function thumbnails(number) {
    if (!loading.has(number)) {
      const entry = {};
      entry.promise = new Promise((done, failed) => {
        entry.done = done;
        document.head.append(make("script", { src: `thumbnails/${number}.js`, onerror: () => failed(new Error(`thumbnails/${number}.js is missing`)) }));
      });
      loading.set(number, entry);
    }
    return loading.get(number).promise;
  }

  const shelf = `rscir marks ${facts.title}`;
  const marks = () => { try { return JSON.parse(localStorage.getItem(shelf)) || []; } catch { return []; } };
  const full = ({ words: some = "", without = "" }) => (without ? `${some} - ${without}`.trim() : some);

  const answers = {
    hello: () => [facts, [Uint16Array.from(classIndex).buffer]],
    async images({ positions }) {
      const some = await Promise.all(positions.map((i) => thumbnails(Math.floor(i / data.together))));
      const about = (i) => ({ file: files[i], class: facts.classes[classIndex[i]], footprint: data.footprints?.[i] ?? null });
      return [{ images: positions.map(about) }, some.map((list, k) => bytes(list[positions[k] % data.together]))];
    },
    browse({ cls, name, page, seed }) {
      const wanted = cls ? facts.classes.indexOf(cls) : -1;
      const found = files.map((_, i) => i).filter((i) =>
        (wanted < 0 || classIndex[i] === wanted) && files[i].toLowerCase().includes(name.toLowerCase()));
      if (seed !== undefined) {
        let state = seed; // a shuffle that the same seed repeats
        const next = () => (state = (state * 1664525 + 1013904223) % 4294967296) / 4294967296;
        for (let k = found.length - 1; k > 0; k--) {
          const other = Math.floor(next() * (k + 1));
          [found[k], found[other]] = [found[other], found[k]];
        }
      }
      const at = clamp(page, 0, Math.floor(Math.max(found.length - 1, 0) / 24));
      return [{ total: found.length, page: at, positions: found.slice(at * 24, at * 24 + 24) }, []];
    },
    find({ files: wanted }) {
      const positions = wanted.map((file) => files.indexOf(file));
      const absent = positions.indexOf(-1);
      if (absent >= 0) refuse(`${facts.title} has no image "${wanted[absent]}"`);
      return [{ positions }, []];
    },
    query(question) {
      const sides = [imageOf(question.images), textOf(question.words, question.without)].map(similarities);
      const facts_ = { image: sides[0].length > 0, text: sides[1].length > 0, moments: sides.map(moments),
        relevant: null, unknown: [], attribute: "", marks: {} };
      if (question.images.length === 1) {
        const text = full(question), [image] = question.images;
        const query = queries.find((q) => q[0] === image && q[1] === text);
        if (query) Object.assign(facts_, { relevant: targets[query[3]], unknown: query[4], attribute: query[2] });
        for (const [file, said, answer, verdict] of marks())
          if (file === files[image] && said === text) facts_.marks[files.indexOf(answer)] = verdict;
      }
      return [facts_, sides.map((s) => s.buffer)];
    },
    benchmark({ which, attribute, nth }) {
      let some = queries.filter((q) => !attribute || q[2] === attribute);
      let query = some[Math.floor(Math.random() * some.length)];
      if (which !== "random") {
        some = some.filter((q) => q[5] !== null).sort((a, b) => (which === "best" ? b[5] - a[5] : a[5] - b[5]));
        query = some[nth % some.length];
      }
      return query ? [{ image: query[0], words: query[1], attribute: query[2] }, []] : refuse("there is no such query");
    },
    mark(question) {
      const line = [files[question.image], full(question), files[question.answer]];
      const others = marks().filter((mark) => mark.slice(0, 3).join("\n") !== line.join("\n"));
      if (question.verdict) others.push([...line, question.verdict]);
      localStorage.setItem(shelf, JSON.stringify(others));
      return [{}, []];
    },
    marks: () => [{ rows: marks() }, []],
  };

  return async ({ ask, ...question }) => {
    try {
      return await answers[ask](question);
    } catch (error) {
      return [{ error: error.message }, []];
    }
  };
}

const place = document.getElementById("explorer");
const [firstQuery] = RSCIR.queries;
const beginning = firstQuery ? { image: firstQuery[0], words: firstQuery[1] } : { image: 0, words: "" };
mount(place, overFiles(RSCIR), { link: true, start: beginning }).catch((error) => {
  console.error(error);
  place.textContent = `The explorer could not start: ${error.message}`;
});
