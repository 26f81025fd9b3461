"""A lambda chosen honestly: on other folds alone, and what each choice is worth."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from analysis_rows import made_up
from hypothesis import given
from hypothesis import strategies as st

from helpers import examples, unit
from rscir_lib.analysis import balanced_lambda, choose_lambda, choose_lambdas, folds, lambda_choices, rows_of


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
    found = lambda_choices(table, SimpleNamespace(queries=queries), "mine", 0.3, samples=5)["Avg"]
    best = found["best on these queries (flatters)"]
    assert found["each query's best (ceiling)"] >= best - 1e-9
    assert found["chosen on other attributes"] <= best + 1e-9
    assert found["without labels"] <= best + 1e-9
    assert "chosen on other classes" not in found  # there is one


def test_balanced_lambda():
    """At this lambda the two parts of the sum vary alike: (1 - lambda) s_v = lambda s_t."""
    rng = np.random.default_rng(0)
    x = unit(rng.normal(size=(500, 6)))
    t = unit(rng.normal(size=(5, 6)))
    x[:, 0] += 1
    lam = balanced_lambda(x, t, "linear")
    image, text = (np.mean([np.std(x @ v, ddof=1) for v in asked]) for asked in (x, t))
    assert image > 1.2 * text
    assert (1 - lam) * image == pytest.approx(lam * text)
    assert balanced_lambda(x, t, "weicom") == balanced_lambda(x, t, "zscore") == 0.5
