"""A lambda chosen honestly: on other folds alone, and what each choice is worth."""

from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from analysis_rows import made_up, rows_for
from hypothesis import given
from hypothesis import strategies as st

from helpers import examples
from rscir_lib.analysis import (
    bootstrap_mean,
    by_choice,
    choose_lambda,
    choose_lambdas,
    folds,
    lambda_choices,
    lambda_selection,
    of_choice,
    rows_of,
    split_half,
    split_relevant,
)
from rscir_lib.runs import read_rows


@pytest.mark.parametrize("by", ["attribute", "group", "half"])
def test_lambda_is_chosen_on_the_other_folds_alone(case, rows, by):
    benchmark, _ = case
    split = folds(benchmark, by)
    found, chosen = choose_lambda(rows, "weicom", split)
    weicom = rows[rows["method"] == "weicom"]
    for fold, lam in chosen.items():
        others = weicom[(split != fold).reindex(weicom.index)]
        best, highest = None, -1.0
        for candidate in weicom["lambda"].unique():  # the slow way
            aps = others[others["lambda"] == candidate]
            avg = np.mean([aps.loc[aps["attribute"] == a, "AP"].mean() for a in aps["attribute"].unique()])
            best, highest = (candidate, avg) if avg > highest + 1e-12 else (best, highest)
        assert lam == best
        inside = split.index[split == fold]
        expected = weicom[(weicom["lambda"] == lam) & weicom.index.isin(inside)]
        pd.testing.assert_frame_equal(found.loc[inside], expected.loc[inside])
        # what happens inside a fold doesn't change what is chosen for it
        changed = weicom.assign(AP=np.where(weicom.index.isin(inside), weicom["lambda"] == 1.0, weicom["AP"]))
        assert choose_lambda(changed, "weicom", split)[1][fold] == lam
    assert found.index.equals(benchmark.queries.index)


def test_halves_share_no_image(case):
    benchmark, _ = case
    half = folds(benchmark, "half")
    assert half.groupby(benchmark.queries["image"]).nunique().max() == 1
    images = benchmark.queries.assign(half=half).drop_duplicates("image")["half"].value_counts()
    assert abs(images[0] - images[1]) <= 1
    with pytest.raises(ValueError, match="by 'third' is unknown"):
        folds(benchmark, "third")


def test_nothing_to_choose(case, rows):
    benchmark, _ = case
    one = pd.Series("all", benchmark.queries.index)
    with pytest.raises(ValueError, match="two folds or more, found 1"):
        choose_lambda(rows, "weicom", one)
    found, told = choose_lambdas(rows, folds(benchmark, "attribute"))
    assert told[["image", "text", "average"]].tolist() == ["", "", ""]
    pd.testing.assert_frame_equal(found["image"], rows_of(rows, "image"))


@pytest.mark.slow
@examples(25)
@given(st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), min_size=4, max_size=9))
def test_ceiling_best_honest(curves):
    """A law: a lambda chosen without an attribute never beats the one chosen with it, in any attribute's share."""
    attributes = [f"a{i % 3}" for i in range(len(curves))]
    table = pd.concat(
        made_up([(a, f"i{i}", "t", curve[j]) for i, (a, curve) in enumerate(zip(attributes, curves, strict=True))])
        .assign(**{"lambda": j / 4})
        for j in range(4)
    )  # fmt: skip
    queries = pd.DataFrame({"attribute": attributes, "group": "g", "image": [f"i{i}" for i in range(len(curves))]})
    half, benchmark = rows_of(table, "mine", 0.25), SimpleNamespace(queries=queries)
    with patch.object(lambda_selection, "bootstrap_mean", partial(bootstrap_mean, samples=5)):
        found = lambda_choices(table, benchmark, "mine", {"0.25": half})["Avg"]
        few = lambda_choices(table[table["lambda"] > 0.5], benchmark, "mine", {"0.25": half})["Avg"]
    best = found["best on these queries (flatters)"]
    assert found["each query's best (ceiling)"] >= best - 1e-9
    assert found["chosen on other attributes"] <= best + 1e-9
    assert found["0.25"] <= best + 1e-9
    assert "chosen on other classes" not in found  # there is one
    assert few["0.25"] <= few["best on these queries (flatters)"] + 1e-9
    assert few["best on these queries (flatters)"] <= few["each query's best (ceiling)"] + 1e-9


def test_like_is_compared_with_like(case, rows, tmp_path):
    """Each way to choose lambda has one row a query and method; of rows that nobody chose, a lambda is the choice."""
    benchmark, _ = case
    chosen, _ = choose_lambdas(rows, folds(benchmark))
    ways = by_choice(rows, chosen, {"0.4": 0.4, "auto": 0.8})
    assert ways["choice"].unique().tolist() == ["", "0.4", "auto", "honest"]
    for choice, lam in (("0.4", 0.4), ("auto", 0.8), ("honest", None)):
        parts = of_choice(ways, choice)
        assert set(parts) == {"image", "text", "average", "weicom"}
        assert all(part.index.equals(benchmark.queries.index) for part in parts.values())
        expected = chosen["weicom"] if lam is None else rows_of(rows, "weicom", lam)
        pd.testing.assert_frame_equal(parts["weicom"].drop(columns="choice"), expected)
    rows.to_csv(tmp_path / "rows.csv", index_label="query")
    read = read_rows(tmp_path / "rows.csv")
    assert set(of_choice(read, "honest")) == {"image", "text", "average"}  # no lambda of these was chosen
    np.testing.assert_allclose(of_choice(read, "0.4")["weicom"]["AP"], rows_of(rows, "weicom", 0.4)["AP"])


def test_half_of_the_relevant_images_choose_and_the_other_half_judges(case):
    benchmark, features = case
    pair = split_relevant(benchmark)
    for one, other in (pair, pair[::-1]):
        for i, query in one.queries.iterrows():
            own, rest = one.targets[query["target"]], other.targets[other.queries.loc[i, "target"]]
            whole = benchmark.targets[benchmark.queries.loc[i, "target"]]
            assert sorted([*own, *rest]) == whole.tolist()
            assert set(one.unknowns[query["unknown"]]) == set(rest)
    both = [rows_for((half, features), ["weicom"], [0.0, 0.5, 1.0]) for half in pair]
    found = split_half(*both)
    aps = [rows["AP"].to_numpy().reshape(3, -1).T for rows in both]  # queries x lambdas
    attribute = both[0]["attribute"].iloc[: len(aps[0])]

    def avg(ap):
        return 100 * pd.Series(ap).groupby(attribute.to_numpy()).mean().mean()

    each = np.arange(len(aps[0]))
    own = [avg(a[each, b.shape[1] - 1 - b[:, ::-1].argmax(axis=1)]) for a, b in (aps, aps[::-1])]
    assert found["each query's, chosen on the other half"] == pytest.approx(np.mean(own))
    assert found["each query's best"] == pytest.approx(np.mean([avg(a.max(axis=1)) for a in aps]))
    assert found["one lambda for all"] <= found["each query's best"]
