"""Tables of mean average precision, from the rows of `evaluate`."""

import numpy as np
import pandas as pd

from rscir_lib.benchmarks.base import Benchmark
from rscir_lib.evaluation.metrics import chance_ap


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
