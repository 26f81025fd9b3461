"""The published tables, and how far ours are from them."""

import numpy as np
import pandas as pd

from rscir_lib.storage.project import DATA

PUBLISHED = DATA / "published" / "patterncom_map.csv"


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
