"""How sure a difference between methods is: bootstrap intervals, randomisation tests, correction for many tests.

All functions take rows of `evaluate`. Differences are in points of mAP, mAP in per cent.
"""

import itertools
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import pandas as pd

from rscir_lib.evaluation.summary import summarize

ENDS = [0.025, 0.975]  # quantiles: of a 95 % interval
OVER = ("images", "texts", "both")  # what a bootstrap can resample
SWAPS_AT_A_TIME = 500  # of the randomisation test: 500 float64 for each query image; more only take more memory


def rows_of(rows: pd.DataFrame, method: str, lam: float | None = None) -> pd.DataFrame:
    """The rows of one method, and of one lambda where it has several. Raises ValueError unless that is one a query."""
    part = rows[rows["method"] == method]
    if lam is not None:
        part = part[np.isclose(part["lambda"], lam)]
    if part.empty or part.index.duplicated().any():
        known = ", ".join(f"{m} {x:g}" for m, x in rows[["method", "lambda"]].drop_duplicates().to_numpy())
        raise ValueError(f"method {method!r}, lambda {lam}: expected one row a query; there are {known}")
    return part


def paired(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Columns attribute, image, text, and `difference`: AP of `a` minus AP of `b`, in points. Raises ValueError unless
    both hold the same queries in the same order."""
    if not a.index.equals(b.index):
        raise ValueError("a and b must hold the same queries in the same order, one method and lambda each")
    return a[["attribute", "image", "text"]].assign(difference=100 * (a["AP"] - b["AP"]))


def bootstrap_difference(
    a: pd.DataFrame, b: pd.DataFrame, over: str = "both", samples: int = 2000, seed: int = 0
) -> pd.Series:
    """Avg mAP of `a` minus that of `b`, with the 95 % interval of a paired bootstrap.

    Within each attribute a resample draws query images with all their texts, texts with all their images, or both; with
    both, a query counts as often as its image was drawn times how often its text was (the pigeonhole bootstrap of Owen
    2007, which is conservative).

    Args:
        a, b: Rows of one method and lambda each, over the same queries.
        over: "images" (would other pictures say the same?), "texts" (would other words?) or "both".
        samples, seed: The number of resamples, and the seed that draws them.

    Returns:
        difference, low, high, in points. With a single image (or text) to draw from in an attribute, low and high are
        NaN: one case has no interval.
    """
    if over not in OVER:
        raise ValueError(f"over {over!r} is unknown; choose {', '.join(OVER)}")
    table = paired(a, b)
    mean = float(table.groupby("attribute", sort=False)["difference"].mean().mean())
    low, high = _resampled(table, over, samples, seed)["Avg"].quantile(ENDS)
    return pd.Series({"difference": mean, "low": low, "high": high})


def _resampled(table: pd.DataFrame, over: str, samples: int, seed: int) -> pd.DataFrame:
    """Means of `difference` by attribute, and Avg, a row per resample; all NaN where there is one case to draw."""
    rng, means = np.random.default_rng(seed), {}
    for attribute, part in table.groupby("attribute", sort=False):
        cells = part.pivot_table(index="image", columns="text", values="difference", aggfunc=["sum", "size"])
        total, size = (cells[name].fillna(0).to_numpy() for name in ("sum", "size"))  # images x texts
        counts, single = [], False
        for name, cases in zip(("images", "texts"), size.shape, strict=True):
            resample = over in (name, "both")
            single |= resample and cases < 2
            chances = np.full(cases, 1 / cases)
            counts.append(rng.multinomial(cases, chances, samples) if resample else np.ones((samples, cases)))
        total, size = (((counts[0] @ cell) * counts[1]).sum(axis=1) for cell in (total, size))
        # a resample can hold no query, where no query has both its image and its text drawn
        usable = np.zeros_like(size, bool) if single else size > 0
        means[attribute] = np.divide(total, size, out=np.full(samples, np.nan), where=usable)
    return pd.DataFrame(means).assign(Avg=np.mean(list(means.values()), axis=0))


def bootstrap_mean(rows: pd.DataFrame, over: str = "both", samples: int = 2000, seed: int = 0) -> pd.Series:
    """Avg, low, high: the Avg mAP of one method with its 95 % interval, drawn as in `bootstrap_difference`."""
    return bootstrap_difference(rows, rows.assign(AP=0.0), over, samples, seed).rename({"difference": "Avg"})


def intervals(rows: pd.DataFrame, samples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """The 95 % interval of every cell of `summarize(rows)`: tables of its shape under the keys "low" and "high"."""
    table, parts = summarize(rows), rows.groupby(["method", "lambda"], dropna=False, sort=False)
    tables = [_resampled(paired(part, part.assign(AP=0.0)), "both", samples, seed) for _, part in parts]
    ends = (pd.DataFrame([means.quantile(end) for means in tables]).rename(columns=str.capitalize) for end in ENDS)
    return pd.concat([end[table.columns].set_axis(table.index) for end in ends], keys=["low", "high"])


def best_lambda(rows: pd.DataFrame, method: str) -> float:
    """The lambda with the method's best Avg in `rows`; NaN for a method without one."""
    return cast(float, summarize(rows).loc[method]["Avg"].idxmax())


def against_average(rows: pd.DataFrame, method: str = "weicom") -> pd.DataFrame:
    """A method at its best `lambda` in `rows` minus Text & Image, in points of Avg: a row per part of `OVER`."""
    lam = best_lambda(rows, method)
    a, b = rows_of(rows, method, lam), rows_of(rows, "average")
    differences = {over: bootstrap_difference(a, b, over) for over in OVER}
    return pd.DataFrame(differences).T.assign(**{"lambda": lam}).rename_axis("resampled")


def randomisation_test(a: pd.DataFrame, b: pd.DataFrame, samples: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of `a` and `b` having the same Avg mAP: the paired randomisation test (Smucker et al. 2007).

    If the methods were alike, exchanging their scores for any query image would change nothing systematically. (All
    texts of an image are exchanged at once, since they are not independent.) The p-value is the share of random
    exchanges whose difference is at least the observed one, which counts as one of them.
    """
    table, rng = paired(a, b), np.random.default_rng(seed)
    weight = 1 / table.groupby("attribute")["difference"].transform("size")  # every attribute counts the same
    images = (table["difference"] * weight).groupby(table["image"], sort=False).sum().to_numpy()
    as_far = 0
    for start in range(0, samples, SWAPS_AT_A_TIME):
        signs = rng.choice([-1.0, 1.0], (min(SWAPS_AT_A_TIME, samples - start), len(images)))
        as_far += int((np.abs(signs @ images) >= abs(images.sum()) - 1e-9).sum())  # in points: a tie despite rounding
    return (1 + as_far) / (samples + 1)


def holm(p_values: Mapping[Any, float]) -> pd.Series:
    """p-values corrected for their number (Holm 1979): the chance that any below 0.05 is a false alarm is 5 %."""
    p = pd.Series(p_values, dtype=float).sort_values()
    return (p * np.arange(len(p), 0, -1)).cummax().clip(upper=1).reindex(list(p_values))


def compare_methods(chosen: Mapping[str, pd.DataFrame], against: str, seed: int = 0) -> pd.DataFrame:
    """Each method minus `against`: points of Avg, 95 % interval, p-value after Holm, and whether it is below 0.05.

    `chosen` has rows of one method each by name, over the same queries.
    """
    others = [name for name in chosen if name != against]
    differences = {name: bootstrap_difference(chosen[name], chosen[against], seed=seed) for name in others}
    p = holm({name: randomisation_test(chosen[name], chosen[against], seed=seed) for name in others})
    return pd.DataFrame(differences).T.assign(p=p, significant=p < 0.05)


def compare_runs(runs: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Every run minus every run before it with the same queries: points of Avg, 95 % interval, p-value after Holm.

    `runs` has rows of one method each by name; queries are the same where attribute, image and text are. The index is
    (run, less): the second is subtracted from the first.
    """
    keys = ["attribute", "image", "text"]
    tables = {name: rows.set_index(keys, drop=False).rename_axis([None] * 3) for name, rows in runs.items()}
    tables = {name: table.sort_index() for name, table in tables.items()}
    pairs = [(b, a) for a, b in itertools.combinations(tables, 2) if tables[a].index.equals(tables[b].index)]
    differences = [bootstrap_difference(tables[b], tables[a]) for b, a in pairs]
    index = pd.MultiIndex.from_tuples(pairs, names=["run", "less"]) if pairs else None
    p = holm({pair: randomisation_test(tables[pair[0]], tables[pair[1]]) for pair in pairs})
    return pd.DataFrame(differences, index, ["difference", "low", "high"]).assign(p=p.to_numpy())


def methods_table(means: pd.DataFrame, sure: pd.DataFrame, costs: pd.DataFrame, choices: pd.DataFrame) -> pd.DataFrame:
    """Methods x attributes as text, the best first; a star marks a p below 0.05. All four tables are by method.

    Args:
        means: mAP in per cent, a column per attribute, `Avg`, and `lambda` in words.
        sure: `Avg`, its `low` and `high`; `difference`, `low of difference`, `high of difference` and `p` against one
            of the methods, for which they are NaN.
        costs: `ms a query`.
        choices: Avg by how lambda was chosen otherwise, a column each; NaN for a method without one.
    """

    def in_words(names: list[str], form: str) -> list[str]:
        return [
            f"{value:{form}} (" + ("no interval)" if np.isnan(low) else f"{low:{form}} to {high:{form}})")
            for value, low, high in sure[names].to_numpy(float)
        ]

    means = means.sort_values("Avg", ascending=False)
    sure, costs, choices = (table.reindex(means.index) for table in (sure, costs, choices))
    (against,) = sure.index[sure["difference"].isna()]
    less = in_words(["difference", "low of difference", "high of difference"], "+.1f")
    table = means.drop(columns=["lambda", "Avg"]).map("{:.1f}".format)
    table.insert(0, "lambda", means["lambda"])
    table["Avg (95 % interval)"] = in_words(["Avg", "low", "high"], ".1f")
    starred = np.array(less) + np.where(sure["p"] < 0.05, " *", "")
    table[f"less {against}"] = np.where(sure.index == against, "", starred)
    for way in choices.columns.drop("honest", errors="ignore"):  # that one is Avg itself
        table[f"Avg at {way}"] = choices[way].map("{:.1f}".format, na_action="ignore").fillna("")
    return table.assign(**{"ms a query": costs["ms a query"].map("{:.2f}".format)}).rename_axis("method")
