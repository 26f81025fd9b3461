"""Intervals and tests: each function against a slow or a hand-made answer."""

import itertools
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from analysis_rows import made_up

from rscir_lib.analysis import (
    against_average,
    bootstrap_difference,
    bootstrap_mean,
    compare_methods,
    compare_runs,
    holm,
    intervals,
    methods_table,
    randomisation_test,
    rows_of,
)
from rscir_lib.evaluation import summarize


def test_interval_of_a_case_that_can_be_written_down():
    """Two images, APs 0 and 1, one text: half of the resamples hold both, a quarter each one of them twice."""
    a = made_up([("x", "one", "t", 0.0), ("x", "two", "t", 1.0)])
    found = bootstrap_mean(a, "images", samples=4000)
    assert found.to_dict() == {"Avg": 50.0, "low": 0.0, "high": 100.0}
    alike = bootstrap_mean(a.assign(AP=0.25), "images")
    assert alike.to_dict() == {"Avg": 25.0, "low": 25.0, "high": 25.0}


def test_intervals_have_the_width_of_the_normal_approximation():
    """Many independent images: 1.96 standard errors. Texts as many, all images alike: the same over texts."""
    rng = np.random.default_rng(0)
    ap = rng.uniform(size=400)
    error = 100 * 1.96 * ap.std() / np.sqrt(400)
    by_image = made_up([("x", f"i{i}", "t", value) for i, value in enumerate(ap)])
    by_text = by_image.assign(image=by_image["text"], text=by_image["image"])
    for table, over in ((by_image, "images"), (by_text, "texts")):
        mean, low, high = bootstrap_mean(table, over, samples=4000)
        assert (mean, high - mean, mean - low) == pytest.approx((100 * ap.mean(), error, error), rel=0.08)
    crossed = made_up([("x", f"i{i}", f"t{j}", ap[20 * i + j]) for i in range(20) for j in range(20)])
    widths = {over: bootstrap_mean(crossed, over)["high"] - bootstrap_mean(crossed, over)["low"] for over in
              ("images", "texts", "both")}  # fmt: skip
    assert widths["both"] > max(widths["images"], widths["texts"])


@pytest.mark.parametrize("over", ["images", "texts", "both"])
def test_resampling_is_by_image_and_text_as_the_slow_way_does_it(rows, over):
    """One resample after the other: a query counts as often as its image, times as often as its text was drawn."""
    a, b = rows_of(rows, "image"), rows_of(rows, "text")
    rng, means = np.random.default_rng(1), []
    parts = [
        (part["image"].tolist(), part["text"].tolist(), (a["AP"] - b["AP"]).loc[part.index].tolist())
        for _, part in a.groupby("attribute")
    ]
    for _ in range(300):
        of_attributes = []
        for images, texts, differences in parts:
            often = []
            for column, names in (("images", images), ("texts", texts)):
                there = sorted(set(names))
                resample = over in (column, "both")
                often.append(Counter(rng.choice(there, len(there)) if resample else there))
            weights = [often[0][image] * often[1][text] for image, text in zip(images, texts, strict=True)]
            of_attributes.append(np.average(differences, weights=weights))
        means.append(100 * np.mean(of_attributes))
    slow = np.percentile(means, [2.5, 97.5])
    found = bootstrap_difference(a, b, over)
    table = summarize(rows)["Avg"].droplevel("lambda")
    assert found["difference"] == pytest.approx(table["image"] - table["text"])
    assert found[["low", "high"]].to_numpy() == pytest.approx(slow, abs=0.2 * (slow[1] - slow[0]))


def test_a_single_case_has_no_interval():
    a = made_up([("x", "one", "t", 0.2), ("x", "one", "u", 0.4), ("y", "one", "t", 0.2), ("y", "two", "u", 0.4)])
    for over in ("images", "both"):
        found = bootstrap_mean(a, over)
        assert found["Avg"] == pytest.approx(30)
        assert found[["low", "high"]].isna().all()
    assert bootstrap_mean(a, "texts").notna().all()


def test_what_does_not_pair_is_refused(rows):
    image, text = rows_of(rows, "image"), rows_of(rows, "text")
    with pytest.raises(ValueError, match="same queries"):
        bootstrap_difference(image, text.iloc[1:])
    with pytest.raises(ValueError, match="over 'words' is unknown; choose images, texts, both"):
        bootstrap_difference(image, text, "words")
    with pytest.raises(ValueError, match=r"expected one row a query; there are .*weicom 0\.4"):
        rows_of(rows, "weicom")


def exact_p(images):
    """Every way to swap."""
    observed = abs(sum(images))
    swaps = [abs(sum(sign * x for sign, x in zip(signs, images, strict=True)))
             for signs in itertools.product([1, -1], repeat=len(images))]  # fmt: skip
    return np.mean([swapped >= observed - 1e-12 for swapped in swaps])


def test_randomisation_test_against_every_swap():
    differences = [0.3, 0.1, -0.05, 0.2, 0.15, 0.02, -0.1]
    a = made_up([("x", f"i{i}", "t", 0.4 + d) for i, d in enumerate(differences)])
    found = randomisation_test(a, a.assign(AP=0.4), samples=20_000)
    assert found == pytest.approx(exact_p(differences), abs=0.01)


def test_the_texts_of_an_image_are_swapped_together():
    """Two images with forty texts each are two cases, not eighty: p can't fall below a half."""
    a = made_up([("x", f"i{i}", f"t{j}", 0.9) for i in range(2) for j in range(40)])
    assert randomisation_test(a, a.assign(AP=0.1)) == pytest.approx(0.5, abs=0.03)


@pytest.mark.slow
def test_alike_methods_give_any_p_value_equally_often():
    rng = np.random.default_rng(0)
    a = made_up([("x", f"i{i}", "t", 0.0) for i in range(40)])
    noise = rng.normal(size=(200, 40))
    found = [randomisation_test(a.assign(AP=values), a, samples=400, seed=i) for i, values in enumerate(noise)]
    assert np.histogram(found, bins=4, range=(0, 1))[0] == pytest.approx([50] * 4, abs=22)


def test_holm_by_hand():
    found = holm({"a": 0.04, "b": 0.01, "c": 0.03, "d": 0.5})
    assert found.to_dict() == pytest.approx({"a": 0.09, "b": 0.04, "c": 0.09, "d": 0.5})
    assert holm({"a": 0.7, "b": 0.8}).tolist() == [1, 1]


@pytest.mark.slow
def test_compare_methods(rows):
    chosen = {name: rows_of(rows, name) for name in ("image", "text", "average")}
    chosen["again"] = chosen["average"].assign(method="again")
    found = compare_methods(chosen, "average")
    assert found.index.tolist() == ["image", "text", "again"]
    assert found.loc["again", ["difference", "p", "significant"]].tolist() == [0, 1, False]
    assert found.loc["image", "difference"] == bootstrap_difference(chosen["image"], chosen["average"])["difference"]
    best = against_average(rows)
    table = summarize(rows)["Avg"]
    assert best["difference"].to_numpy() == pytest.approx(table["weicom"].max() - table["average"].item())
    assert best.index.tolist() == ["images", "texts", "both"]
    assert (best["lambda"] == table["weicom"].idxmax()).all()


@pytest.mark.slow
def test_the_interval_of_every_cell(rows):
    """Avg's is that of `bootstrap_mean`; an attribute's that of its rows alone; a single image has none."""
    found, table = intervals(rows, samples=2000), summarize(rows)
    assert found.loc["low"].index.equals(table.index)
    assert found.columns.equals(table.columns)
    for name, lam in (("image", None), ("weicom", 0.4)):
        one = rows_of(rows, name, lam)
        (place,) = [i for i, (m, x) in enumerate(table.index) if m == name and (lam is None or x == lam)]
        expected = bootstrap_mean(one)
        density = bootstrap_mean(one[one["attribute"] == "density"])  # the first: the same draws
        for end in ("low", "high"):
            assert found.loc[end].iloc[place][["Density", "Avg"]].tolist() == [density[end], expected[end]]
    alone = made_up([("x", "one", "t", 0.2), ("x", "one", "u", 0.4), ("y", "one", "t", 0.2), ("y", "two", "u", 0.4)])
    assert intervals(alone).isna().to_numpy().tolist() == [[True, False, True]] * 2


def test_runs_are_compared_where_they_share_queries(rows):
    image, text = rows_of(rows, "image"), rows_of(rows, "text")
    shuffled = text.sample(frac=1, random_state=0).reset_index(drop=True).rename_axis("query")
    found = compare_runs({"a": image, "b": shuffled, "c": image.iloc[1:], "d": text.iloc[1:]})
    assert found.index.tolist() == [("b", "a"), ("d", "c")]
    table = summarize(rows)["Avg"].droplevel("lambda")
    assert found.loc[("b", "a"), "difference"] == pytest.approx(table["text"] - table["image"])
    assert found["low"].lt(found["difference"]).all()
    assert found["p"].between(0, 1).all()
    assert compare_runs({"a": image, "c": image.iloc[1:]}).empty


def test_the_methods_table_says_what_was_worked_out():
    means = pd.DataFrame({"Color": [40, 60.04], "Avg": [40, 60.04], "lambda": ["", "0.4, 0.6"]}, ["text", "weicom"])
    sure = pd.DataFrame(
        {
            "Avg": [40, 60.04], "low": [np.nan, 55], "high": [np.nan, 65.26], "difference": [-20.04, np.nan],
            "low of difference": [-25.0, np.nan], "high of difference": [3.0, np.nan], "p": [0.0499, np.nan],
        },
        means.index,
    )  # fmt: skip
    costs = pd.DataFrame({"ms a query": [0.5, 12.346]}, means.index)
    choices = pd.DataFrame({"0.5": [np.nan, 43.26], "honest": [np.nan, 60], "best": [np.nan, 61]}, means.index)
    found = methods_table(means, sure, costs, choices)
    assert found.loc["weicom"].tolist() == ["0.4, 0.6", "60.0", "60.0 (55.0 to 65.3)", "", "43.3", "61.0", "12.35"]
    assert found.loc["text"].tolist() == ["", "40.0", "40.0 (no interval)", "-20.0 (-25.0 to +3.0) *", "", "", "0.50"]
    assert found.columns[-3:].tolist() == ["Avg at 0.5", "Avg at best", "ms a query"]
    assert found.index.tolist() == ["weicom", "text"]
    assert "*" not in methods_table(means, sure.assign(p=0.05), costs, choices).to_string()
