"""Tables of mean average precision: from the rows of `evaluate`, by chance, and as published."""

import numpy as np
import pandas as pd

from rscir_lib.benchmarks.base import Benchmark
from rscir_lib.evaluation.metrics import chance_ap
from rscir_lib.storage.project import DATA

PUBLISHED = DATA / "published" / "patterncom_map.csv"


def summarize(rows: pd.DataFrame, per: pd.Series | None = None, rounding: str | None = None) -> pd.DataFrame:
    """mAP in per cent: index (method, lambda), a column an attribute, and Avg, their unweighted mean.

    Without `per`, the mean over an attribute's composed queries: how the published numbers come about. With
    `per=benchmark.queries["value"]`, first over the queries of each attribute value of the query image, then over
    values: what the published text describes. rounding="authors" rounds each query's AP, each mean and Avg to two
    decimals, as the authors' evaluator does.
    """
    if rounding not in (None, "authors"):
        raise ValueError(f"rounding {rounding!r} is unknown; choose None or 'authors'")
    mean = (lambda x: round(sum(x.tolist()) / len(x), 2)) if rounding else "mean"  # Python's: the last digit is theirs
    keys = ["method", "lambda", "attribute"]
    ap = 100 * rows["AP"]
    frame = rows[keys].assign(AP=ap.round(2) if rounding else ap)
    if per is not None:
        frame["per"] = per.reindex(rows.index).to_numpy()
        frame = frame.groupby([*keys, "per"], dropna=False, sort=False)["AP"].mean().reset_index()
    table = frame.groupby(keys, dropna=False, sort=False)["AP"].agg(mean).unstack("attribute", sort=False)
    table.columns = [attribute.capitalize() for attribute in table.columns]
    return table.assign(Avg=table.agg(mean, axis=1))


def chance(benchmark: Benchmark) -> pd.Series:
    """mAP in per cent of a random ranking: expected, per attribute and Avg. What any method has to beat."""
    sizes = list(zip(benchmark.n_relevant.tolist(), benchmark.n_ranked.tolist(), strict=True))
    expected = {size: 100 * chance_ap(*size) for size in set(sizes)}
    ap = pd.Series([expected[size] for size in sizes], benchmark.queries.index)
    by = ap.groupby(benchmark.queries["attribute"], sort=False).mean().rename(str.capitalize)
    return pd.concat([by, pd.Series({"Avg": by.mean()})]).rename("chance")


def with_chance(table: pd.DataFrame, benchmark: Benchmark) -> pd.DataFrame:
    """A table of `summarize` or `analysis.summarize_chosen` with chance as its last row."""
    name = ("chance", np.nan) if table.index.nlevels > 1 else "chance"
    return pd.concat([table, chance(benchmark).to_frame(name).T.rename_axis(table.index.names)])


def published() -> pd.DataFrame:
    """The published mAP tables (per cent): version, date, encoder, method, lambda, then a column an attribute, Avg."""
    return pd.read_csv(PUBLISHED)


def compare_published(table: pd.DataFrame, encoder: str) -> pd.DataFrame:
    """A table of `summarize` beside every published version of the same encoder.

    Returns one row per encoder (whose numbers were published) x version x method x lambda x column: ours, published and
    difference (ours - published), in points of mAP. Raises ValueError when nothing of that encoder was published.
    """
    theirs = published().query("encoder == @encoder").drop(columns="date")
    if theirs.empty:
        known = ", ".join(published()["encoder"].unique())
        raise ValueError(f"nothing is published for encoder {encoder!r}; only {known}")
    keys = ["method", "lambda", "attribute"]
    long = theirs.melt(["encoder", "version", "method", "lambda"], var_name="attribute", value_name="published")
    ours = table.reset_index().melt(["method", "lambda"], var_name="attribute", value_name="ours")
    both = long.merge(ours, on=keys)  # pandas matches NaN lambdas
    return both.assign(difference=both["ours"] - both["published"])


def nearest_version(comparison: pd.DataFrame) -> pd.Series:
    """Per attribute, and `overall` (all attributes, without Avg), the published version with the least mean distance.

    Versions that are equally near are all named.
    """
    distance = comparison.assign(distance=comparison["difference"].abs().round(6))
    by = distance.pivot_table(index="attribute", columns="version", values="distance", sort=False)
    by.loc["overall"] = by.drop(index="Avg").mean()
    return by.apply(lambda row: ", ".join(row.index[np.isclose(row, row.min())]), axis=1).rename("nearest")
