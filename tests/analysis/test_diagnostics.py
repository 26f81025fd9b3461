"""What stands behind a mean: by hand, and against the slow oracle."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from analysis_rows import made_up, rows_for

import oracle
from helpers import text_encoder, write_benchmark
from rscir_lib.analysis import (
    KINDS,
    failure_kinds,
    judged_alone,
    judged_share,
    precision_ceiling,
    rows_of,
    shortcut_audit,
    wordings,
)
from rscir_lib.archive import Archive
from rscir_lib.benchmarks.base import Benchmark, ValidationReport, no_labels
from rscir_lib.benchmarks.patterncom import read_patterncom
from rscir_lib.evaluation import summarize, top_lists
from rscir_lib.evaluation.metrics import METRICS, r_precision


def test_shortcut_audit_by_hand():
    image, text, mixed = (
        made_up([("x", f"i{i}", "t", ap) for i, ap in enumerate(aps)])
        for aps in ([0.9, 0.9, 0.1, 0.1, 0.2], [0.8, 0.0, 0.7, 0.3, 0.2], [0.9, 0.9, 0.2, 0.8, 0.1])
    )
    shares, label = shortcut_audit(image, text, mixed)
    assert label.tolist() == ["either alone", "image alone", "text alone", "needs both", "unsolved"]
    assert shares.loc["x"].drop("gain").tolist() == [0.2] * 5
    assert shares.loc["x", "gain"] == pytest.approx(58 - 44)


@pytest.mark.slow
def test_shares_sum_to_one(case, rows):
    shares, _ = shortcut_audit(rows_of(rows, "image"), rows_of(rows, "text"), rows_of(rows, "weicom", 0.4))
    assert shares.drop(columns="gain").sum(axis=1).to_numpy() == pytest.approx(1)
    assert shares.index.tolist() == ["density", "existence", "Avg"]
    table = summarize(rows)
    better = np.maximum(table.loc["image"].iloc[0], table.loc["text"].iloc[0])
    expected = (table.loc["weicom"].loc[0.4] - better)[["Density", "Existence"]].mean()
    assert shares.loc["Avg", "gain"] == pytest.approx(expected)


@pytest.fixture
def tiny(tmp_path):
    """Six images; asked of bridge000 (red): two. bridge003 has no label; one forest is two, one has another value."""
    labelled = [(0, "density", "red"), (1, "density", "two"), (2, "density", "red"), (4, "density", "two"),
                (5, "density", "oval")]  # fmt: skip
    write_benchmark(tmp_path, ["bridge"] * 4 + ["forest"] * 2, labelled)
    benchmark = read_patterncom(tmp_path)
    asked = benchmark.queries[(benchmark.queries["image"] == "bridge000.jpg") & (benchmark.queries["text"] == "two")]
    return Benchmark(
        benchmark.archive, benchmark.protocol, asked, benchmark.targets, benchmark.labels, ValidationReport().table()
    )


def test_failure_kinds_by_hand(tiny):
    found = failure_kinds(tiny, np.array([[0, 1, 2, 3, 4, 5]]))
    expected = ["the query image", "relevant", "right class, wrong value", "unlabelled", "right value, wrong class",
                "other"]  # fmt: skip
    for position, kind in enumerate(expected):
        one = failure_kinds(tiny, np.array([[position, -1]])).loc["density"]
        assert one.to_dict() == {k: float(k == kind) for k in KINDS}
    assert found.loc["density"].to_dict() == pytest.approx(dict.fromkeys(KINDS, 1 / 6))
    assert found.loc["Avg"].to_dict() == pytest.approx(dict.fromkeys(KINDS, 1 / 6))


def test_without_labels_no_kind_is_made_up(tiny):
    """Nobody said what the other images show: neither are they of another class or value, nor were they judged."""
    bare = replace(tiny, labels=no_labels())
    found = failure_kinds(bare, np.array([[0, 1, 2, 3, -1]])).loc["density"]
    assert found.to_dict() == {"relevant": 0.25, "the query image": 0.25, "other": 0.5}
    for asked in (judged_alone, lambda benchmark: judged_share(benchmark, np.array([[0]]))):
        with pytest.raises(ValueError, match="no labels that say which images were judged"):
            asked(bare)


def test_several_labels_an_image():
    """Cars and trees of the same image: asked for cars, an image without cars is wrong whatever it says of trees."""
    archive = Archive("/nowhere", ("a.png", "b.png", "c.png"), ("port", "port", "road"))
    said = [("a", 0, "port", "no cars"), ("b", 1, "port", "cars"), ("b", 1, "port", "no trees"),
            ("c", 2, "road", "cars"), ("c", 2, "road", "trees")]  # fmt: skip
    labels = pd.DataFrame([("existence", f"{n}.png", g, v, p) for n, p, g, v in said],
                          columns=["attribute", "image", "group", "value", "position"])  # fmt: skip
    queries = pd.DataFrame(
        [("existence", "port", "a.png", "no cars", "cars", 0, 0)],
        columns=["attribute", "group", "image", "value", "text", "position", "target"],
    )
    benchmark = Benchmark(archive, "mine", queries, (np.array([1]),), labels, ValidationReport().table())
    found = failure_kinds(benchmark, np.array([[1, 2, 0]])).loc["existence"]
    assert found[found > 0].to_dict() == pytest.approx(
        {"relevant": 1 / 3, "right value, wrong class": 1 / 3, "the query image": 1 / 3}
    )


def test_condensed_lists_against_the_oracle(case):
    """Images without a label of the attribute are taken out of the list, one by one, before it is judged."""
    benchmark, features = case
    condensed = judged_alone(benchmark)
    found = rows_for((condensed, features), ["weicom"], [0.3])
    judged = {a: set(part["position"]) for a, part in benchmark.labels.groupby("attribute")}
    for number in benchmark.queries.index[::17]:
        query = benchmark.queries.loc[number]
        left_out = set(range(len(benchmark.archive))) - judged[query["attribute"]]
        text = text_encoder(8)([query["text"]])[0]
        order = oracle.ranking(features.feats, features.feats[query["position"]], text, "weicom", 0.3, left_out)
        expected = oracle.metrics(order, set(benchmark.targets[query["target"]].tolist()))
        assert found.loc[number, list(METRICS)].to_dict() == pytest.approx(expected)
    assert (found["n_unknown"] == 30).all()
    lower = rows_for(case, ["weicom"], [0.3])
    assert (found["AP"] >= lower["AP"] - 1e-12).all()
    with pytest.raises(ValueError, match="tells unknown images from negative ones already"):
        judged_alone(condensed)


def test_judged_share(case):
    benchmark, features = case
    lists = top_lists(benchmark, features, text_encoder(8), "weicom", 0.3, 90, "cpu", progress=False)
    assert judged_share(benchmark, lists).to_numpy() == pytest.approx([60 / 90] * 3)
    condensed = judged_alone(benchmark)
    lists = top_lists(condensed, features, text_encoder(8), "weicom", 0.3, 90, "cpu", progress=False)
    assert judged_share(condensed, lists).tolist() == [1, 1, 1]


def test_a_perfect_ranking_reaches_the_ceiling_of_precision(case):
    benchmark, _ = case
    perfect = benchmark.queries.assign(**{
        f"P@{k}": [np.mean([i < n for i in range(k)]) for n in benchmark.n_relevant] for k in (5, 20)
    })  # fmt: skip
    expected = perfect.groupby("attribute", sort=False)[["P@5", "P@20"]].mean()
    found = precision_ceiling(benchmark, (5, 20))
    assert found.loc[expected.index].to_numpy() == pytest.approx(expected.to_numpy())
    assert found.loc["Avg"].to_numpy() == pytest.approx(expected.mean().to_numpy())
    ranks = [np.arange(1, n + 1) for n in benchmark.n_relevant]
    assert all(r_precision(of) == 1 for of in ranks)


def test_wordings(case):
    benchmark, _ = case
    asked = {name: other.queries for name, other in wordings(benchmark, {"red": "reddish"}).items()}
    query = benchmark.queries.index[benchmark.queries["text"] == "red"][0]
    group = benchmark.queries.loc[query, "group"]
    assert {name: queries.loc[query, "text"] for name, queries in asked.items()} == {
        "value": "red",
        "value, class": f"red, {group}",
        "class, value": f"{group}, red",
        "an aerial image, value": "an aerial image, red",
        "a satellite photo of something value": "a satellite photo of something red",
        "synonym": "reddish",
    }
    pd.testing.assert_frame_equal(asked["value"], benchmark.queries)
    assert "synonym" not in wordings(benchmark, {"purple": "violet"})
