"""`evaluate` against the slow oracle on random benchmarks, the laws of the methods, and the tables."""

import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import oracle
from helpers import VALUES, examples, make_features, text_encoder, unit, write_benchmark
from rscir_lib.archive import Archive
from rscir_lib.benchmarks.base import Benchmark, ValidationReport
from rscir_lib.benchmarks.patterncom import read_patterncom
from rscir_lib.evaluation import (
    BASELINES,
    COLUMNS,
    chance,
    compare_published,
    evaluate,
    nearest_version,
    published,
    summarize,
    top_lists,
)
from rscir_lib.evaluation.metrics import METRICS, chance_ap, retrieval_metrics
from rscir_lib.features import Features
from rscir_lib.features import features as features_module
from rscir_lib.features.store import columns
from rscir_lib.methods import registry as composition
from rscir_lib.methods.pairwise import TwoSimilarities
from rscir_lib.ranking import ranks as ranking_module
from rscir_lib.search import search, top_k
from rscir_lib.similarity import similarities

CLASSES = ("bridge", "overpass", "harbor", "ferryterminal", "forest", "christmastreefarm", "denseresidential")
METHODS = (
    *BASELINES, "weicom", "linear", "zscore", "minmax", "rrf", "sum", "product", "product-clamped", "minimum",
)  # fmt: skip


@st.composite
def benchmarks(draw):
    """Classes with merges, duplicate and conflicting rows, unlabelled images, equal features, few or many positives."""
    classes = draw(st.lists(st.sampled_from(CLASSES), min_size=2, max_size=24))
    number = st.integers(0, len(classes) - 1)
    rows = draw(
        st.lists(
            st.tuples(number, st.sampled_from(["density", "context", "existence"]), st.sampled_from(VALUES)),
            min_size=1,
            max_size=40,
        )
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    feats = unit(rng.normal(size=(len(classes), 6)) + draw(st.sampled_from([0.0, 3.0])))
    for copy, original in draw(st.lists(st.tuples(number, number), max_size=6)):
        feats[copy] = feats[original]
    return classes, rows, feats


@examples(150)
@given(case=benchmarks(), protocol=st.sampled_from(["released", "first-release"]), lam=st.sampled_from([0, 0.37, 1]))
def test_agrees_with_the_oracle(tmp_path_factory, case, protocol, lam):
    classes, rows, feats = case
    root = tmp_path_factory.mktemp("benchmark")
    names = write_benchmark(root, classes, rows)
    benchmark = read_patterncom(root, protocol=protocol)
    assume(len(benchmark.queries))
    found = evaluate(
        benchmark, make_features(benchmark.archive, feats), text_encoder(6), METHODS, [lam], progress=False
    )
    expected = [
        (attribute, image, text, method, len(relevant), *(result[metric] for metric in METRICS))
        for attribute in {a for _, a, _ in rows}
        for image, text, relevant in oracle.composed_queries(root, attribute, protocol)
        for method in METHODS
        for result in [oracle.evaluate_query(feats, names, image, text_encoder(6)([text])[0], relevant, method, lam)]
    ]
    keys = ["attribute", "image", "text", "method", "n_relevant"]
    expected = pd.DataFrame(expected, columns=[*keys, *METRICS]).sort_values([*keys, *METRICS], ignore_index=True)
    found = found[[*keys, *METRICS]].sort_values([*keys, *METRICS], ignore_index=True)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, rtol=0, atol=1e-9)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """300 images, three attributes, 16-dimensional random features."""
    rng = np.random.default_rng(0)
    classes = rng.choice(CLASSES, 300)
    rows = [
        (i, attribute, rng.choice(VALUES))
        for attribute in ("density", "context", "existence")
        for i in rng.choice(300, 120, replace=False)
    ]
    root = tmp_path_factory.mktemp("benchmark")
    write_benchmark(root, classes, rows)
    benchmark = read_patterncom(root)
    return benchmark, make_features(benchmark.archive, unit(rng.normal(size=(300, 16))))


def run(case, **options):
    benchmark, features = case
    return evaluate(benchmark, features, text_encoder(16), progress=False, **options)


def test_contract(case):
    rows = run(case, methods=["image", "text", "average", "weicom"], lambdas=[0.3, 0.5])
    assert list(rows.columns) == COLUMNS
    assert len(rows) == 5 * len(case[0].queries)
    assert rows.loc[rows["method"] != "weicom", "lambda"].isna().all()
    assert sorted(rows.loc[rows["method"] == "weicom", "lambda"].unique()) == [0.3, 0.5]
    assert rows[list(METRICS)].stack().between(0, 1).all()
    table = summarize(rows)
    assert list(table.columns) == ["Context", "Density", "Existence", "Avg"]
    assert table.index.names == ["method", "lambda"]
    assert list(table.index.get_level_values("method")) == ["image", "text", "average", "weicom", "weicom"]
    by_hand = 100 * rows.query("method == 'image' and attribute == 'density'")["AP"].mean()
    assert table.loc["image", "Density"].item() == pytest.approx(by_hand)
    assert table["Avg"].to_numpy() == pytest.approx(table[["Context", "Density", "Existence"]].mean(axis=1).to_numpy())


def test_lambda_0_is_image_and_1_is_text(case):
    rows = run(case, methods=["image", "text", "weicom", "zscore", "linear"], lambdas=[0, 1])
    by = {key: group[list(METRICS)] for key, group in rows.groupby(["method", "lambda"], dropna=False)}
    image, text = (next(v for (m, _), v in by.items() if m == name) for name in ("image", "text"))
    for method in ("weicom", "zscore", "linear"):
        pd.testing.assert_frame_equal(by[method, 0.0], image)
        pd.testing.assert_frame_equal(by[method, 1.0], text)


@pytest.mark.slow
def test_chunks_and_feature_order_change_nothing(case, monkeypatch):
    benchmark, features = case
    rows = run(case, lambdas=[0.4])
    monkeypatch.setitem(ranking_module.SIMILARITIES, "cpu", 7 * 300)
    pd.testing.assert_frame_equal(run(case, lambdas=[0.4]), rows)
    shuffled = np.random.default_rng(1).permutation(300)
    permuted = Features.from_arrays(
        features.feats[shuffled],
        tuple(features.files[i] for i in shuffled),
        tuple(features.classes[i] for i in shuffled),
        {},
    )
    pd.testing.assert_frame_equal(run((benchmark, permuted), lambdas=[0.4]), rows)


def test_some_of_the_queries_have_the_rows_they_have_among_all(case):
    """In another order, with an index that is not 0, 1, 2, ..."""
    benchmark, features = case
    queries = benchmark.queries.sample(40, random_state=1)
    rows = run(case, lambdas=[0.4])
    some = run((replace(benchmark, queries=queries), features), lambdas=[0.4])
    assert some.index.tolist() == [*queries.index] * 4
    for method, of_method in some.groupby("method"):
        expected = rows[rows["method"] == method].loc[queries.index]
        pd.testing.assert_frame_equal(of_method, expected)


@pytest.mark.parametrize("backend", ["numba", "torch"])
def test_backends_change_no_metric(case, backend):
    pd.testing.assert_frame_equal(run(case, lambdas=[0.4, 1], backend=backend), run(case, lambdas=[0.4, 1]))
    with pytest.raises(ValueError, match="backend 'cobol' is unknown: choose auto, numba, torch, triton"):
        run(case, backend="cobol")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
def test_a_gpu_changes_nothing(case):
    rows = run(case, lambdas=[0.4], device="cpu")
    for backend in ("auto", "torch", "triton"):
        pd.testing.assert_frame_equal(run(case, lambdas=[0.4], device="cuda", backend=backend), rows)


def test_an_added_method_is_known_to_every_process(case, monkeypatch):
    monkeypatch.setitem(composition.METHODS, "mine", TwoSimilarities("mine", lambda image, text, lam: image + text))
    monkeypatch.setitem(ranking_module.SIMILARITIES, "cpu", 7 * 300)
    rows = run(case, methods=["sum", "mine"])
    mine, expected = (rows.query("method == @name")[list(METRICS)] for name in ("mine", "sum"))
    pd.testing.assert_frame_equal(mine, expected)


def test_what_is_not_finite_is_named(case, monkeypatch):
    benchmark, features = case
    feats = features.feats.copy()
    feats[7, 3] = np.nan
    with pytest.raises(ValueError, match=rf"not finite .*first row 7 \({benchmark.archive.files[7]}"):
        run((benchmark, make_features(benchmark.archive, feats)))
    for value in (np.nan, np.inf, -np.inf):
        monkeypatch.setitem(
            composition.METHODS, "mine", TwoSimilarities("mine", lambda image, text, lam, value=value: image + value)
        )
        with pytest.raises(ValueError, match="method 'mine' gives scores that are not finite"):
            run(case, methods=["mine"])


def test_an_error_comes_back_from_a_process(case, monkeypatch):
    def fail(image, text, lam):
        raise ValueError("what went wrong")

    monkeypatch.setitem(composition.METHODS, "mine", TwoSimilarities("mine", fail))
    monkeypatch.setitem(ranking_module.SIMILARITIES, "cpu", 7 * 300)
    with pytest.raises(ValueError, match="what went wrong"):
        run(case, methods=["mine"])


def test_summary_rounds_as_the_authors_do(case):
    rows = run(case)
    expected = {}
    for (method, attribute), group in rows.groupby(["method", "attribute"]):
        rounded = [round(100 * ap, 2) for ap in group["AP"]]
        expected[method, attribute] = round(sum(rounded) / len(rounded), 2)
    table = summarize(rows, rounding="authors")
    for (method, _), row in table.iterrows():
        values = [expected[method, a] for a in ("context", "density", "existence")]
        assert list(row) == pytest.approx([*values, round(sum(values) / 3, 2)], abs=1e-9)


def test_summary_per_value_is_the_mean_of_means(case):
    benchmark, _ = case
    rows = run(case, methods=["image"])
    table = summarize(rows, per=benchmark.queries["value"])
    means = rows.assign(value=benchmark.queries["value"]).groupby(["attribute", "value"])["AP"].mean()
    assert table["Density"].item() == pytest.approx(100 * means["density"].mean())
    assert table["Density"].item() != pytest.approx(summarize(rows)["Density"].item())


@pytest.mark.slow
def test_chance_is_what_random_features_give(case):
    benchmark, _ = case
    rng = np.random.default_rng(3)
    tables = [
        summarize(run((benchmark, make_features(benchmark.archive, unit(rng.normal(size=(300, 16)))))))
        for _ in range(5)
    ]
    assert np.mean([t["Avg"].mean() for t in tables]) == pytest.approx(chance(benchmark)["Avg"], rel=0.2)
    assert list(chance(benchmark).index) == ["Context", "Density", "Existence", "Avg"]
    sizes = zip(benchmark.n_relevant, benchmark.n_ranked, strict=True)
    expected = pd.Series([100 * chance_ap(*size) for size in sizes], benchmark.queries.index)
    of_attributes = expected.groupby(benchmark.queries["attribute"]).mean()
    assert chance(benchmark).tolist() == pytest.approx([*of_attributes, of_attributes.mean()])
    turned = replace(benchmark, queries=benchmark.queries.iloc[::-1])
    assert list(chance(turned).index) == ["Existence", "Density", "Context", "Avg"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ["wiecom"]}, "unknown method 'wiecom'; choose from"),
        ({"methods": "weicom"}, "list of method names"),
        ({"lambdas": [1.5]}, r"lambda 1.5 is outside \[0, 1\]"),
        ({"lambdas": []}, "'weicom' needs at least one lambda"),
        ({"device": "tpu"}, "choose auto, cpu, cuda"),
        ({"scheduler": "local", "methods": ["rrf"]}, "'rrf' wants the archive as a whole"),
    ],
)
def test_bad_options(case, options, message):
    with pytest.raises(ValueError, match=message):
        run(case, **options)


def test_nothing_to_ask(tmp_path):
    write_benchmark(tmp_path, ["bridge"] * 3, [(0, "context", "red"), (1, "context", "red")])
    benchmark = read_patterncom(tmp_path)
    with pytest.raises(ValueError, match="no composed query"):
        run((benchmark, make_features(benchmark.archive, np.eye(3, 16, dtype=np.float32))))


@pytest.mark.parametrize(
    ("encode", "message"),
    [
        (lambda texts: np.ones((len(texts), 3)), r"\(3, 16\)|are they of the same encoder"),
        (lambda texts: np.ones((len(texts), 16)), "must L2-normalise: the feature of '.*' has norm 4"),
        (lambda texts: np.full((len(texts), 16), np.nan), "must L2-normalise"),
    ],
)
def test_bad_text_features(case, encode, message):
    with pytest.raises(ValueError, match=message):
        evaluate(*case, encode, progress=False)


@pytest.mark.parametrize(("length", "refused"), [(1.0005, False), (0.9995, False), (1.002, True), (0.998, True)])
def test_the_length_of_text_features(case, length, refused):
    """Half precision's rounding is let pass, and changes no ranking; the text at fault is named."""

    def encode(texts):
        return text_encoder(16)(texts) * np.where(np.array(texts) == "two", length, 1)[:, None]

    if refused:
        with pytest.raises(ValueError, match=f"the feature of 'two' has norm {length:.4f}"):
            evaluate(*case, encode, progress=False)
    else:
        pd.testing.assert_frame_equal(evaluate(*case, encode, ["text"], progress=False), run(case, methods=["text"]))


def test_published_versions():
    """Each published version, fed back as ours, is found again where it differs from the others."""
    tables = published()
    assert set(tables["version"]) == {"released", "after-class-check", "first-release"}
    for version, rows in tables[tables["encoder"] == "clip"].groupby("version"):
        table = rows.set_index(["method", "lambda"]).drop(columns=["version", "date", "encoder"])
        comparison = compare_published(table, "clip")
        assert len(comparison) == 3 * 5 * 7
        assert (comparison.query("version == @version")["difference"] == 0).all()
        nearest = nearest_version(comparison)
        assert nearest["overall"] == version
        assert list(nearest.index) == [*comparison["attribute"].unique(), "overall"]
        assert set(nearest["Shape"].split(", ")) == {"released", "after-class-check", "first-release"}
    with pytest.raises(ValueError, match="nothing is published for encoder 'demo'"):
        compare_published(table, "demo")


# what a benchmark may ask beyond PatternCom


def open_benchmark(rng, images=40, queries=30, outside=5):
    """Random queries: unknown images, images from outside, and no image ranks itself; and both archives' features."""
    archive = Archive(Path("/nowhere"), tuple(f"{i:03d}.jpg" for i in range(images)), ("",) * images)
    strangers = Archive(Path("/elsewhere"), tuple(f"{i}.jpg" for i in range(outside)), ("",) * outside)
    position = rng.integers(-1, images, queries)
    asked = np.where(position < 0, rng.integers(0, outside, queries), -1)
    pair = np.arange(queries) // 2  # two images that ask for the same
    targets, unknowns = [], []
    for number in range(queries // 2):
        others = rng.permutation(np.setdiff1d(np.arange(images), position[pair == number]))
        targets.append(np.sort(others[: rng.integers(0, 4)]))
        unknowns.append(np.sort(others[4 : 4 + rng.integers(0, 6)]))
    table = pd.DataFrame(
        {
            "attribute": rng.choice(["shape", "size"], queries),
            "group": "any",
            "image": [archive.files[p] if p >= 0 else strangers.files[q] for p, q in zip(position, asked, strict=True)],
            "value": "",
            "text": rng.choice(VALUES, queries // 2)[pair],
            "position": position,
            "target": pair,
            "unknown": np.where(rng.random(queries // 2) < 0.2, -1, np.arange(queries // 2))[pair],
            "query": asked,
        }
    )
    labels = pd.DataFrame(columns=["attribute", "image", "group", "value", "position"]).astype({"position": int})
    benchmark = Benchmark(
        archive,
        "open",
        table,
        tuple(targets),
        labels,
        ValidationReport().table(),
        tuple(unknowns),
        strangers,
        exclude_self=True,
    )
    feats = unit(rng.normal(size=(images + outside, 6)))
    feats[images - 3 : images] = feats[0]
    of = make_features(archive, feats[:images]), make_features(strangers, feats[images:])
    return benchmark, *of


def by_oracle(benchmark, features, strangers, method, lam, cutoffs):
    rows = []
    for query in benchmark.queries.itertuples():
        feat = features.feats[query.position] if query.position >= 0 else strangers.feats[query.query]
        left_out = set(benchmark.unknowns[query.unknown]) if query.unknown >= 0 else set()
        left_out |= {query.position} if query.position >= 0 and benchmark.exclude_self else set()
        ranked = oracle.ranking(features.feats, feat, text_encoder(6)([query.text])[0], method, lam, left_out)
        rows.append(oracle.metrics(ranked, set(benchmark.targets[query.target]), cutoffs))
    return pd.DataFrame(rows, index=benchmark.queries.index)


@examples(30)
@given(
    seed=st.integers(0, 2**32), lam=st.sampled_from([0, 0.4, 1]), held=st.sampled_from([1, 500, 2**22]),
    backend=st.sampled_from(["numba", "torch"]), exclude_self=st.booleans(),
)  # fmt: skip
@pytest.mark.slow
def test_condensed_lists_strangers_and_cutoffs_agree_with_the_oracle(seed, lam, held, backend, exclude_self):
    """Also with queries in batches of one, some and all."""
    benchmark, features, strangers = open_benchmark(np.random.default_rng(seed))
    benchmark = replace(benchmark, exclude_self=exclude_self)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ranking_module.SIMILARITIES, "cpu", held)
        found = evaluate(
            benchmark, features, text_encoder(6), METHODS, [lam], "cpu", False, (1, 7), strangers, return_ranks=True,
            backend=backend,
        )  # fmt: skip
    assert found.columns[5:7].tolist() == ["n_relevant", "n_unknown"]
    for method, rows in found.groupby("method"):
        expected = by_oracle(benchmark, features, strangers, method, lam, (1, 7))
        pd.testing.assert_frame_equal(rows[expected.columns], expected, check_names=False, rtol=0, atol=1e-12)
        assert rows["n_unknown"].tolist() == benchmark.n_unknown.tolist()
        by_ranks = [retrieval_metrics(ranks, (1, 7))[0] for ranks in rows["ranks"]]
        assert rows["AP"].to_numpy() == pytest.approx(by_ranks)


def in_shards(features, number):
    """The same rows, in so many parts."""
    parts = [
        features_module.MemoryShard(features.feats[rows], columns([features.files[i] for i in rows], [""] * len(rows)))
        for rows in np.array_split(np.arange(len(features)), number)
    ]
    return Features(parts)


BY_ROW = [name for name in METHODS if composition.METHODS[name].scope == "row"]


@pytest.mark.slow
@examples(30)
@given(
    seed=st.integers(0, 2**32), lams=st.sampled_from([[0, 0.4, 1], [0.7]]), shards=st.integers(1, 5),
    sizes=st.sampled_from([(2**15, 2**22, 128), (7, 50, 2)]), equal=st.sampled_from([0, 1, 30]),
    backend=st.sampled_from(["numba", "torch"]),
)  # fmt: skip
def test_ranks_of_shards_are_those_of_the_whole(seed, lams, shards, sizes, equal, backend):
    """Whatever the blocks, with images taken out, strangers, equal features and features that hardly differ."""
    rng = np.random.default_rng(seed)
    benchmark, features, strangers = open_benchmark(rng)
    feats = features.feats.copy()
    feats[rng.choice(len(feats), equal)] = feats[1]
    features = make_features(benchmark.archive, feats)
    asked = (benchmark, features, text_encoder(6), METHODS, lams, "cpu", False, (1, 7), strangers, True)
    whole = evaluate(*asked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ranking_module.ROWS, "cpu", sizes[0])
        patch.setitem(ranking_module.SIMILARITIES, "cpu", sizes[1])
        patch.setattr(ranking_module, "TOGETHER", sizes[2])
        patch.setattr(ranking_module, "each", lambda function, items, *where: (function(item) for item in items))
        by_parts = evaluate(benchmark, in_shards(features, shards), *asked[2:], backend=backend)
    assert all(np.array_equal(a, b) for a, b in zip(whole["ranks"], by_parts["ranks"], strict=True))
    pd.testing.assert_frame_equal(whole.drop(columns="ranks"), by_parts.drop(columns="ranks"), check_exact=True)


def test_what_is_too_near_to_tell_is_compared_once_more(monkeypatch):
    """However far apart two roundings may lie: every comparison is then made by exact similarities."""
    benchmark, features, strangers = open_benchmark(np.random.default_rng(3))
    asked = (benchmark, features, text_encoder(6), ["weicom", "minimum"], [0.4], "cpu", False, (1, 7), strangers, True)
    whole = evaluate(*asked)
    monkeypatch.setattr(ranking_module, "rounding", lambda dim: 0.5)
    by_exact = evaluate(*asked)
    assert all(np.array_equal(a, b) for a, b in zip(whole["ranks"], by_exact["ranks"], strict=True))


def test_scores_of_one_job_are_held_at_a_time(case):
    """There may be a hundred jobs, each with scores of millions of images."""
    made = []

    def combine(image, text, lam):
        assert sum(scores() is not None for scores in made) <= 1
        scores = (1 - lam) * image + lam * text
        made.append(weakref.ref(scores))
        return scores

    run(case, methods=[TwoSimilarities("noted", combine, has_lambda=True)], lambdas=np.linspace(0, 1, 9))


def test_a_gpu_that_is_named_holds_all_features(case, monkeypatch):
    benchmark, features = case
    monkeypatch.setattr(features_module, "HELD_BYTES", 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="torch finds 0 CUDA devices"):
        evaluate(benchmark, features, text_encoder(16), progress=False, device="cuda")


def test_features_in_another_order_are_not_ranked_by_shards(case):
    benchmark, features = case
    turned = Features.from_arrays(features.feats[::-1], features.files[::-1], features.classes[::-1])
    with pytest.raises(ValueError, match="in its order, which ranking by shards needs"):
        evaluate(benchmark, turned, text_encoder(16), progress=False, scheduler="local")


@examples(30)
@given(seed=st.integers(0, 2**32), k=st.sampled_from([1, 7, 60]), method=st.sampled_from(METHODS))
def test_top_lists_are_the_head_of_the_ranking(seed, k, method):
    benchmark, features, strangers = open_benchmark(np.random.default_rng(seed))
    lists = top_lists(benchmark, features, text_encoder(6), method, 0.4, k, "cpu", False, strangers)
    for query, found in zip(benchmark.queries.itertuples(), lists, strict=True):
        feat = features.feats[query.position] if query.position >= 0 else strangers.feats[query.query]
        left_out = set(benchmark.unknowns[query.unknown]) if query.unknown >= 0 else set()
        left_out |= {query.position} if query.position >= 0 else set()
        ranked = oracle.ranking(features.feats, feat, text_encoder(6)([query.text])[0], method, 0.4, left_out)
        assert found[found >= 0].tolist() == ranked[:k]
        assert (found[len(ranked) :] == -1).all()


@pytest.mark.slow
def test_top_lists_are_those_of_weicom_unless_told(case):
    benchmark, features = case
    asked = benchmark, features, text_encoder(16)
    assert np.array_equal(top_lists(*asked), top_lists(*asked, "weicom", 0.5, 100))


@pytest.mark.slow
def test_a_bar_shows_how_far_it_is_unless_told(case, capsys):
    benchmark, features = case
    asked = benchmark, features, text_encoder(16)
    for call, methods in ((evaluate, ["image"]), (top_lists, "image")):
        call(*asked, methods)
        assert f"{len(benchmark.queries)}/{len(benchmark.queries)}" in (told := capsys.readouterr().err)
        assert told.startswith("\revaluate: ")
        assert "queries/s" in told
        call(*asked, methods, progress=False)
        assert not capsys.readouterr().err


def test_a_method_of_ones_own_works_everywhere(case):
    """A class, unregistered: in evaluate, summarize and search."""

    class Nearest:
        """The better of the two, as ranked by the query's midpoint."""

        name, has_lambda = "midpoint", True

        def fit(self, features, encode_texts):
            def score(questions, lam):
                return similarities(features.feats, (1 - lam) * questions.query_images + lam * questions.query_texts)

            return score

    rows = run(case, methods=[Nearest(), "linear"], lambdas=[0, 0.3, 1])
    table = summarize(rows)
    assert table.loc["midpoint"].to_numpy() == pytest.approx(table.loc["linear"].to_numpy())
    _, features = case
    encoder = SimpleNamespace(encode_texts=text_encoder(16))
    mine, linear = (search(features, 3, "red", 0.3, method, 10, encoder).table for method in (Nearest(), "linear"))
    assert mine["position"].tolist() == linear["position"].tolist()
    with pytest.raises(ValueError, match="'midpoint' sees more than two similarities: ask `search`"):
        top_k(features.feats, features.feats[3], features.feats[3], 0.3, 10, Nearest())


@pytest.mark.slow
def test_further_methods_are_ranked_by_their_own_scores(case, monkeypatch):
    """In blocks, in several processes, and texts told apart by those who read them."""
    monkeypatch.setitem(ranking_module.SIMILARITIES, "cpu", 7 * 300)
    benchmark, _ = case

    class Words:
        name, has_lambda = "words", False

        def fit(self, features, encode_texts):
            return lambda questions, lam: np.stack(
                [np.roll(np.arange(300.0), VALUES.index(word)) for word in questions.query_words]
            )

    rows = run(case, methods=["slerp", Words()], lambdas=[0, 1])
    image, text = run(case, methods=["image"]), run(case, methods=["text"])
    slerp = rows[rows["method"] == "slerp"]
    assert slerp.loc[slerp["lambda"] == 0, "AP"].tolist() == pytest.approx(image["AP"].tolist())
    assert slerp.loc[slerp["lambda"] == 1, "AP"].tolist() == pytest.approx(text["AP"].tolist())
    words = rows[rows["method"] == "words"]
    for query, found in zip(benchmark.queries.itertuples(), words.itertuples(), strict=True):
        ranked = np.argsort(-np.roll(np.arange(300.0), VALUES.index(query.text)), kind="stable").tolist()
        assert pytest.approx(oracle.metrics(ranked, set(benchmark.targets[query.target]))["AP"]) == found.AP


@pytest.mark.slow
def test_many_texts_take_little_memory():
    """20,000 texts over 30,400 images would be 4.9 GB of similarities at once: here 2,000, in a process of its own."""
    code = """
import resource, numpy as np, pandas as pd
from pathlib import Path
from types import SimpleNamespace
from rscir_lib.archive import Archive
from rscir_lib.benchmarks.base import Benchmark, ValidationReport
from rscir_lib.evaluation import evaluate
from rscir_lib.features import Features

n, texts, d = 30_400, 2_000, 16
rng = np.random.default_rng(0)
unit = lambda x: (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
archive = Archive(Path("/nowhere"), tuple(f"{i}.jpg" for i in range(n)), ("",) * n)
queries = pd.DataFrame({"attribute": "any", "group": "", "image": "", "value": "", "position": np.arange(texts),
                        "text": [f"t{i}" for i in range(texts)], "target": 0})
labels = pd.DataFrame(columns=["attribute", "image", "group", "value", "position"]).astype({"position": int})
benchmark = Benchmark(archive, "", queries, (np.arange(3),), labels, ValidationReport().table())
features = Features.from_arrays(unit(rng.normal(size=(n, d))), archive.files, archive.classes, {})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = evaluate(benchmark, features, lambda t: unit(rng.normal(size=(len(t), d))), ["linear"], [0.5], "cpu", False)
print(len(rows), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rows, mebibytes = done.stdout.split()
    assert int(rows) == 2_000
    assert float(mebibytes) < 600


# laws


def all_metrics(benchmark, feats, lam=0.4, methods=("weicom", "minmax", "zscore", "slerp")):
    return evaluate(
        benchmark, make_features(benchmark.archive, feats), text_encoder(16), methods, [lam], "cpu", False
    )  # fmt: skip


@pytest.mark.slow
@examples(4)
@given(seed=st.integers(0, 2**32))
def test_permuting_the_archive_changes_no_metric(case, seed):
    """Without ties, where order would decide."""
    benchmark, features = case
    order = np.random.default_rng(seed).permutation(len(benchmark.archive))
    where = np.argsort(order)
    moved = replace(
        benchmark,
        archive=benchmark.archive.subset(order),
        queries=benchmark.queries.assign(position=where[benchmark.queries["position"]]),
        labels=benchmark.labels.assign(position=where[benchmark.labels["position"]]),
        targets=tuple(np.sort(where[target]) for target in benchmark.targets),
    )
    pd.testing.assert_frame_equal(
        all_metrics(moved, features.feats[order]), all_metrics(benchmark, features.feats), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("method", ["image", "text", "average", "linear", "slerp", "minimum"])
def test_a_duplicate_of_an_irrelevant_image_never_raises_an_ap(case, method):
    """True where a score doesn't depend on the rest of the archive."""
    benchmark, features = case
    for image in (0, 150):
        archive = Archive(benchmark.archive.root, (*benchmark.archive.files, "z.jpg"), (*benchmark.archive.classes, ""))
        feats = np.vstack([features.feats, features.feats[image : image + 1]])
        grown = all_metrics(replace(benchmark, archive=archive), feats, methods=[method])
        before = all_metrics(benchmark, features.feats, methods=[method])
        irrelevant = [image not in benchmark.targets[target] for target in benchmark.queries["target"]]
        assert (grown["AP"] <= before["AP"] + 1e-12)[irrelevant].all()
