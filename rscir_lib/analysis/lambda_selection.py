"""How to choose lambda honestly, and what a choice is worth. mAP in per cent."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from rscir_lib.analysis.significance import best_lambda, bootstrap_mean, rows_of
from rscir_lib.benchmarks.base import Benchmark
from rscir_lib.evaluation import summarize


def folds(benchmark: Benchmark, by: str = "", seed: int = 0) -> pd.Series:
    """The fold of each query, for choosing on the other folds. The index is that of `benchmark.queries`.

    `by` is "attribute", "group" (class), or "half" of the query images, drawn at random; "" is the attribute where
    there are several, else the half.
    """
    queries = benchmark.queries
    by = by or ("attribute" if queries["attribute"].nunique() > 1 else "half")
    if by not in ("attribute", "group", "half"):
        raise ValueError(f"by {by!r} is unknown; choose attribute, group or half")
    if by != "half":
        return queries[by]
    images = queries["image"].drop_duplicates().sample(frac=1, random_state=seed)
    return queries["image"].map(pd.Series(np.arange(len(images)) % 2, images.to_numpy()))


def choose_lambda(rows: pd.DataFrame, method: str, folds: pd.Series) -> tuple[pd.DataFrame, pd.Series]:
    """Rows of `method` in which each fold has the lambda with the best Avg on all other folds.

    Returns:
        The rows, one per query, in the order of `rows`; and the lambda of each fold, NaN for a method without one.

    Raises:
        ValueError: All queries are in one fold, which leaves none to choose lambda on.
    """
    rows = rows[rows["method"] == method]
    fold = folds.reindex(rows.index)
    if rows.empty or fold.nunique() < 2:
        raise ValueError(f"{method}: choosing lambda needs its rows and two folds or more, found {fold.nunique()}")
    chosen, parts = {}, []
    for name in fold.unique():
        inside = (fold == name).to_numpy()
        chosen[name] = best_lambda(rows[~inside], method)
        parts.append(rows[inside & np.isclose(rows["lambda"], chosen[name], equal_nan=True)])
    return pd.concat(parts).loc[rows.index.unique()], pd.Series(chosen, name="lambda").rename_axis("fold")


def choose_lambdas(rows: pd.DataFrame, folds: pd.Series) -> tuple[dict[str, pd.DataFrame], pd.Series]:
    """`choose_lambda` for every method in `rows`: its rows by name, and by name the lambdas in words ("0.4, 0.6")."""
    choices = {name: choose_lambda(rows, name, folds) for name in rows["method"].unique()}
    words = {name: lambdas_in_words(lambdas) for name, (_, lambdas) in choices.items()}
    return {name: part for name, (part, _) in choices.items()}, pd.Series(words, name="lambda")


def summarize_chosen(chosen: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """mAP of rows by name, whatever lambda each query has: one row per name, one column per attribute, and Avg."""
    tables = {name: summarize(part.assign(**{"lambda": np.nan})).iloc[0] for name, part in chosen.items()}
    return pd.DataFrame(tables).T


def one_lambda(rows: pd.DataFrame, lam: float) -> dict[str, pd.DataFrame]:
    """One row per query for each method, by name; where a method has several lambdas, those of the nearest to `lam`."""
    parts = {str(name): part for name, part in rows.groupby("method", sort=False)}
    for name, part in parts.items():
        if part.index.duplicated().any():
            parts[name] = rows_of(part, name, part["lambda"].iloc[(part["lambda"] - lam).abs().argmin()])
    return parts


def lambdas_in_words(lambdas: Iterable[float]) -> str:
    """Distinct lambdas, ascending: "0.4, 0.6"; "" for a method that has none."""
    return ", ".join(f"{lam:g}" for lam in sorted(set(lambdas)) if lam == lam)


def balanced_lambda(feats: np.ndarray, text_feats: np.ndarray, method: str, sample: int = 1000, seed: int = 0) -> float:
    """The lambda at which image and text vary the mixed score equally, from the archive alone, without labels.

    Phi and z-scores give both similarities the same spread: 0.5. For `linear` it is s_v / (s_v + s_t), the mean
    standard deviations of the similarities of the archive's features (N, d) to a `sample` of themselves and to the
    texts' features (T, d), all of unit length.
    """
    if method != "linear":
        return 0.5
    rng = np.random.default_rng(seed)
    queries = feats[rng.choice(len(feats), min(sample, len(feats)), replace=False)]
    image, text = (float(np.std(feats @ side.T, axis=0, ddof=1).mean()) for side in (queries, text_feats))
    return image / (image + text)


def lambda_choices(
    rows: pd.DataFrame, benchmark: Benchmark, method: str, without_labels: float, seed: int = 0, samples: int = 2000
) -> pd.DataFrame:
    """The mAP of `method` by how its lambda was chosen, a row for each way, with the 95 % interval of Avg.

    The ways: the best lambda of each query, which nobody can know (the ceiling); the best on the queries that are
    judged, which flatters; the best on the other half, classes and attributes; and the lambda `without_labels`, or the
    nearest to it in `rows`. `samples` is the number of resamples behind an interval.
    """
    own = rows[rows["method"] == method]
    ceiling = own.sort_values("AP", kind="stable").groupby(level=0).tail(1).loc[own.index.unique()]
    best = best_lambda(own, method)
    near = own["lambda"].iloc[(own["lambda"] - without_labels).abs().argmin()]
    ways = {
        "each query's best (ceiling)": (ceiling, "any"),
        "best on these queries (flatters)": (rows_of(rows, method, best), f"{best:g}"),
    }
    for by, name in (("half", "images"), ("group", "classes"), ("attribute", "attributes")):
        split = folds(benchmark, by, seed)
        if split.nunique() > 1:
            part, chosen = choose_lambda(rows, method, split)
            ways[f"chosen on other {name}"] = (part, lambdas_in_words(chosen))
    ways["without labels"] = (rows_of(rows, method, near), f"{near:g}")
    table = summarize_chosen({name: part for name, (part, _) in ways.items()})
    ends = {name: bootstrap_mean(part, samples=samples, seed=seed) for name, (part, _) in ways.items()}
    table["lambda"] = [lam for _, lam in ways.values()]
    return table.join(pd.DataFrame(ends).T[["low", "high"]]).rename_axis("chosen")
