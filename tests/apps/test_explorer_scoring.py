"""What the browser computes, against what Python does: the same scores, orders and ranks, at any lambda."""

import json
import shutil
import subprocess

import numpy as np
import pytest
import torch
from scipy.special import ndtr

import oracle
from rscir_lib.apps.explorer.page import HERE, joined
from rscir_lib.apps.explorer.session import browser_rule
from rscir_lib.evaluation.metrics import retrieval_metrics
from rscir_lib.methods.registry import METHODS
from rscir_lib.similarity import best_first
from rscir_lib.similarity.scales import clamped, minmax, reciprocal_rank

LAMBDAS = (0, 1e-300, 0.05, 0.3, 0.5, 0.7, 1 - 2**-53, 1)
KNOWN = [name for name in METHODS if browser_rule(name)[1] and name not in ("image", "text")]

pytestmark = pytest.mark.skipif(
    not shutil.which("node"), reason="no node on the PATH to run the browser's scripts with"
)


def run_node(script, driver, given, tmp_path):
    """What a driver, written behind the joined modules of a script, makes of `given`."""
    (tmp_path / "given.json").write_text(json.dumps(given))
    code = f"""{joined(script)}
    import {{ readFileSync }} from "node:fs";
    const given = JSON.parse(readFileSync({json.dumps(str(tmp_path / "given.json"))}, "utf8"));
    {driver}"""
    command = ["node", "--input-type=module"]
    answer = subprocess.run(command, input=code, capture_output=True, text=True, timeout=120, check=False)
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout)


def similarities(kind, rng, n=400):
    """Two sides (2, n): without ties, on a coarse grid that ties them at many lambdas, far from the mean, all equal."""
    s = {
        "random": lambda: rng.uniform(-0.2, 0.9, (2, n)),
        "grid": lambda: rng.integers(-2, 6, (2, n)) / 8,
        "far": lambda: np.where(rng.random((2, n)) < 0.01, rng.choice([-1, 1], (2, n)), rng.normal(0, 0.01, (2, n))),
        "flat": lambda: np.stack([rng.uniform(-1, 1, n), np.full(n, 0.25)]),
    }[kind]()
    s[:, n // 2 : n // 2 + 20] = s[:, :20]  # the same images again
    return s


def moments(s):
    return [s.mean(), s.std(ddof=1), s.min(), s.max()]


def python_scores(method, s, lam):
    image, text = torch.from_numpy(s)
    scale = method.scale_at(lam)
    if scale in (clamped, minmax, reciprocal_rank):
        return method.combine(scale(image), scale(text), lam).numpy()
    scaled = [
        scale(side, tuple(map(torch.tensor, moments(row)[:2]))) for side, row in zip((image, text), s, strict=True)
    ]
    return method.combine(*scaled, lam).numpy()


@pytest.mark.parametrize("kind", ["random", "grid", "far", "flat"])
@pytest.mark.slow
def test_scores_orders_and_ranks_are_pythons(kind, tmp_path):
    s = similarities(kind, np.random.default_rng(0))
    rng, n = np.random.default_rng(1), s.shape[1]
    relevant, unknown = np.split(rng.permutation(n)[:90], [30])
    cases = [(name, lam) for name in KNOWN for lam in (LAMBDAS if METHODS[name].has_lambda else LAMBDAS[:1])]
    given = {
        "sides": s.tolist(), "moments": [moments(side) for side in s], "relevant": relevant.tolist(),
        "unknown": unknown.tolist(), "cases": [(*browser_rule(name), lam) for name, lam in cases],
    }  # fmt: skip
    driver = """
    const similarities = given.sides.map((s) => Buffer.from(Float64Array.from(s).buffer).toString("base64"));
    const queries = [[2, "a", "x", 0, -1], [2, "a - b", "y", 1, 0]];
    const facts = { queries, targets: [[0], given.relevant], unknowns: [given.unknown] };
    const query = new Query({ images: [2], words: "a", without: "b" }, { ...given, similarities }, facts);
    if (query.attribute !== "y" || query.relevant.size !== given.relevant.length) throw new Error("another query");
    const out = [];
    for (const [scale, rule, lambda] of given.cases) {
      const scores = await query.scoresAt({ name: "", scale, rule, hasLambda: true }, lambda, () => null);
      const found = ranks(scores, given.relevant, query.unknown);
      const few = best(scores, 7, (row) => row % 3 === 0);
      out.push({ scores: [...scores], order: best(scores, scores.length), found, few, ap: averagePrecision(found) });
    }
    console.log(JSON.stringify(out));"""
    allowed = np.arange(0, n, 3)
    for (name, lam), out in zip(cases, run_node("query.js", driver, given, tmp_path), strict=True):
        scores = python_scores(METHODS[name], s, lam)
        order = best_first(scores, n)
        assert out["scores"] == pytest.approx(scores, rel=1e-14, abs=3e-16), (name, lam)
        assert out["scores"] == pytest.approx(oracle.scores(name, *s.tolist(), lam), rel=1e-9, abs=1e-12), (name, lam)
        assert out["order"] == order.tolist(), (name, lam)
        assert out["few"] == allowed[best_first(scores[allowed], 7)].tolist()
        ranked = [i for i in order if i not in set(unknown)]
        expected = [rank for rank, i in enumerate(ranked, 1) if i in set(relevant)]
        assert out["found"] == expected
        assert out["ap"] == pytest.approx(retrieval_metrics(np.array([expected]))[0, 0], rel=1e-14)


def test_the_normal_tail_is_scipys(tmp_path):
    z = np.concatenate([np.linspace(-9, 9, 2_001), np.linspace(9, 37, 400), [1.5, np.nextafter(1.5, 0)]])
    driver = "console.log(JSON.stringify(given.map(SCALES.upper_tail([0, 1, 0, 0]))));"
    out = np.array(run_node("scoring.js", driver, z.tolist(), tmp_path))
    near = z < 9
    assert out[near] == pytest.approx(-ndtr(-z[near]), rel=2e-14, abs=0)
    assert out == pytest.approx(-ndtr(-z), rel=3e-13, abs=0)  # exp of z * z / 2, which is rounded
    assert (np.diff(out[:2_401]) >= 0).all()


def test_percentiles_and_moments(tmp_path):
    s = np.random.default_rng(2).integers(0, 40, 300) / 64
    driver = """const s = Float64Array.from(given);
    const query = new Query({}, { moments: [[], []], similarities: [s, ""] });
    console.log(JSON.stringify([momentsOf(s), given.map((_, row) => query.percentile(0, row))]));"""
    found, percentiles = run_node("query.js", driver, s.tolist(), tmp_path)
    assert found == pytest.approx(moments(s))
    assert percentiles == pytest.approx([100 * (s < x).sum() / 299 for x in s])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("oval  cars", ("oval cars", "")), ("oval - cars", ("oval", "cars")), ("oval −cars", ("oval", "cars")),
        ("- cars", ("", "cars")), ("snow-covered", ("snow-covered", "")), ("a - b - c", ("a", "b - c")), ("", ("", "")),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_words_behind_a_hyphen_are_left_out(text, parts, tmp_path):
    out = run_node("state.js", "console.log(JSON.stringify(parted(given)));", text, tmp_path)
    assert (out["words"], out["without"]) == parts


def test_a_link_opens_what_it_was_made_of(tmp_path):
    driver = """const facts = { methods: [{ name: "weicom" }, { name: "zscore" }], classes: ["", "beach"],
      files: ["b.jpg", "a&b/7.jpg"] };
    const opened = [given, START].map((state) => fromLink("#" + toLink(state, facts), START, facts));
    opened.push(fromLink("lambda=seven&method=none&class=moon&top=-3&min=low&image=c.jpg", START, facts));
    console.log(JSON.stringify(opened));"""
    start = {"images": [], "text": "", "lambda": 0.5, "method": "weicom", "top": 20, "cls": "", "min": None}
    state = {"images": [1, "a key"], "text": "a=b & - c", "lambda": 0.1, "method": "zscore", "top": 5, "cls": "beach",
             "min": -0.5}  # fmt: skip
    given, first, broken = run_node("state.js", driver, state, tmp_path)
    assert given == {"absent": [], "opened": state | {"images": [1]}}
    assert first == {"absent": [], "opened": start}
    assert broken == {"absent": ["c.jpg"], "opened": start | {"top": 1}}


def test_joined_modules_hold_all_that_they_import():
    """No import is left, and each module is there once."""
    for name in ("widget.js", "page.js", "http.js"):
        script = joined(name)
        assert "\nimport " not in script
        assert script.startswith("//")
        scripts = {path.name: path.read_text().splitlines()[0] for path in HERE.glob("*.js")}
        reached = {other for other, first in scripts.items() if first in script}
        assert reached == scripts.keys() - {"widget.js", "page.js", "http.js"} | {name}
        assert script.count("class Query {") == 1
        subprocess.run(["node", "--check", "--input-type=module", "-"], input=script, text=True, check=True, timeout=60)
    assert joined("widget.js").rstrip().endswith("export default { render };")
    assert "export " not in joined("page.js").replace("saveTable", "")
