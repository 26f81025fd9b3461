"""WHUCom: the same on every machine, and what its tables rest on."""

import hashlib

import numpy as np
import pytest
from lambdas import bundle

from rscir_lib.benchmarks import read_benchmark, whucom
from rscir_lib.encoders import load_encoder, unknown_words
from rscir_lib.evaluation import evaluate, summarize
from rscir_lib.features import read_features
from rscir_lib.storage.project import DATA

TABLES = whucom.BUNDLES
DRAWN = {
    "collages": "5c984c67f3026e99",
    "lookalikes": "cedbff035e1cfb8d",
}


@pytest.fixture(scope="module", params=["collages", "lookalikes"])
def task(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("whucom") / request.param
    whucom.draw_whucom(root, request.param, {"clip": TABLES["clip"]}, TABLES["remoteclip"])
    benchmark = read_benchmark(root)
    return benchmark, read_features(root / "clip.npz", benchmark.archive), load_encoder(TABLES["clip"].parent)


@pytest.mark.slow
def test_every_machine_draws_the_same(task):
    benchmark, *_ = task
    root = benchmark.archive.root
    assert hashlib.sha256((root / "labels.csv").read_bytes()).hexdigest()[:16] == DRAWN[root.name]


def test_a_table_is_what_its_readme_says():
    readme = (DATA / "whucom" / "README.md").read_text(encoding="utf-8")
    for table in TABLES.values():
        assert hashlib.sha256(table.read_bytes()).hexdigest() in readme


def test_the_tables_are_made_from_the_published_features(whu_root, tmp_path):
    bundle(whu_root / "CLIP_ViT-L-14.npz", tmp_path)
    with np.load(tmp_path / "features.npz") as made, np.load(TABLES["clip"]) as bundled:
        assert made.files == bundled.files
        assert all(np.array_equal(made[name], bundled[name]) for name in made.files)


@pytest.mark.slow
def test_who_asks_is_ranked_nowhere_and_answers_nothing(task):
    benchmark, *_ = task
    assert len(benchmark.queries) == 19 * 18 * whucom.ASKED
    assert (benchmark.queries.groupby(["group", "text"]).size() == whucom.ASKED).all()
    asking = set(benchmark.queries["position"])
    assert len(asking) == 19 * whucom.ASKING
    assert asking == set(benchmark.unknowns[0])
    assert not any(asking & set(target) for target in benchmark.targets)


@pytest.mark.slow
def test_what_answers(task):
    benchmark, features, _ = task
    names, classes = np.array(benchmark.archive.names), np.array(benchmark.archive.classes)
    query = benchmark.queries.query("group == 'beach' and text == 'football field'").iloc[0]
    answers = benchmark.targets[query["target"]]
    if benchmark.archive.root.name == "collages":
        assert sorted(names[answers]) == [f"beach+footballfield{n}.png" for n in range(1, 7)]
        feats = features.feats.astype(np.float64)
        beaches, fields = (feats[[i for i in np.flatnonzero(classes == cls) if i not in benchmark.unknowns[0]]]
                           for cls in ("beach", "footballfield"))  # fmt: skip
        sums = (beaches[:, None] + fields).reshape(-1, features.dim)
        sums /= np.linalg.norm(sums, axis=1, keepdims=True)
        np.testing.assert_allclose((feats[answers] @ sums.T).max(axis=1), 1, atol=1e-6)
    else:
        assert set(classes[answers]) == {"footballfield"}
        assert len(answers) == (np.sum(classes == "footballfield") - whucom.ASKING) // 5


@pytest.mark.slow
def test_the_table_of_text_and_image(task):
    """By hand, query by query: similarities, z-scores, CDFs, and AP over what is ranked."""
    from scipy.stats import norm

    benchmark, features, encoder = task
    few = benchmark.queries.iloc[::40]
    x, ranked = features.feats.astype(np.float64), np.ones(len(features), bool)
    ranked[benchmark.unknowns[0]] = False

    def ap(score, query):
        order = np.flatnonzero(ranked)[np.argsort(-score[ranked], kind="stable")]
        ranks = np.flatnonzero(np.isin(order, benchmark.targets[query.target])) + 1
        return (np.arange(1, len(ranks) + 1) / ranks).mean()

    expected = []
    for query in few.itertuples():
        sides = x @ x[query.position], x @ encoder.encode_texts([query.text])[0].astype(np.float64)
        z = [(s - s.mean()) / s.std(ddof=1) for s in sides]
        expected.append((ap(sum(sides), query), ap(sum(map(norm.cdf, z)), query)))
    rows = evaluate(benchmark, features, encoder.encode_texts, ["average", "weicom"], progress=False)
    found = [rows[rows["method"] == name].loc[few.index, "AP"] for name in ("average", "weicom")]
    np.testing.assert_allclose(np.array(found).T, expected, atol=1e-9)
    average, weicom = summarize(rows)["Avg"]
    assert weicom > 2 * average  # what the paper has a CDF for


@pytest.mark.slow
def test_hits_are_names(task):
    benchmark, *_ = task
    card = benchmark.archive.read(0)
    assert card.size == (96, 96)
    assert np.ptp(np.asarray(card)) > 0


def test_an_encoder_that_is_a_table():
    encoder = load_encoder(TABLES["clip"].parent)
    with np.load(TABLES["clip"]) as table:
        stored = dict(zip(table["phrases"].tolist(), table["texts"].astype(np.float64), strict=True))
    np.testing.assert_allclose(encoder.encode_texts(["a dark satellite image of a park"])[0],
                               stored["a dark satellite image of a park"], atol=1e-3)  # fmt: skip
    bare, beside, parking = encoder.encode_texts(["park", "a dense park", "parking"])
    assert np.array_equal(bare, beside)
    assert not np.array_equal(bare, parking)
    dark = np.mean([row for phrase, row in stored.items() if phrase.startswith("a dark ")], axis=0)
    np.testing.assert_allclose(encoder.encode_texts(["a dark satellite image of a"])[0], dark / np.linalg.norm(dark),
                               atol=1e-6)  # fmt: skip
    assert unknown_words(encoder, "a dense park") == ["a", "dense"]
    assert unknown_words(encoder, "a dark satellite image of a") == []
    with pytest.raises(ValueError, match="encodes no image"):
        encoder.encode_images(None)
