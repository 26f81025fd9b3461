"""How to choose lambda honestly, and what a choice is worth. mAP in per cent."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from rscir_lib.analysis.significance import best_lambda, bootstrap_mean, rows_of
from rscir_lib.benchmarks.base import Benchmark
from rscir_lib.evaluation.summary import summarize


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


def by_choice(rows: pd.DataFrame, chosen: Mapping[str, pd.DataFrame], fixed: Mapping[str, float]) -> pd.DataFrame:
    """One row per query for each method and way to choose its lambda: the ways, in the column `choice`, are those of
    `fixed` lambdas, such as {"0.5": 0.5}, and "honest", of the `chosen` rows; "" for a method without lambda."""
    parts = [rows[rows["lambda"].isna()].assign(choice="")]
    parts += [rows[np.isclose(rows["lambda"], lam)].assign(choice=way) for way, lam in fixed.items()]
    parts += [part.assign(choice="honest") for part in chosen.values() if part["lambda"].notna().all()]
    return pd.concat(parts)


def of_choice(rows: pd.DataFrame, choice: str) -> dict[str, pd.DataFrame]:
    """By method, the rows of `by_choice` of one way, and those without lambda."""
    return {str(name): part for name, part in rows[rows["choice"].isin([choice, ""])].groupby("method", sort=False)}


def split_relevant(benchmark: Benchmark, seed: int = 0) -> tuple[Benchmark, Benchmark]:
    """The same queries twice: a random half of each one's relevant images is relevant, the other half unknown, and the
    other way round. Queries with a single one are left out."""
    rng = np.random.default_rng(seed)
    queries = benchmark.queries[benchmark.n_relevant > 1]
    unknown = queries.get("unknown", pd.Series(-1, queries.index))
    pairs, number = np.unique(np.stack([queries["target"], unknown], axis=1), axis=0, return_inverse=True)
    shuffled = [rng.permutation(benchmark.targets[target]) for target, _ in pairs]
    halves = [[np.sort(images[side::2]) for images in shuffled] for side in (0, 1)]
    before = [benchmark.unknowns[i] if i >= 0 else np.empty(0, np.int64) for _, i in pairs]
    asked = queries.assign(target=number, unknown=number)
    one, other = (
        replace(benchmark, queries=asked, targets=tuple(own), unknowns=tuple(map(np.union1d, before, rest)))
        for own, rest in (halves, halves[::-1])
    )
    return one, other


def split_half(one: pd.DataFrame, other: pd.DataFrame) -> pd.Series:
    """What a lambda of its own is worth to each query: Avg, from rows of one method on both halves (`split_relevant`).

    The best lambda of all queries, each query's best on the *other* half, and each query's best on this half, which is
    partly luck: means of both directions.
    """
    method, results = one["method"].iloc[0], []
    for judged, chosen_on in ((one, other), (other, one)):
        own = best_of_each(chosen_on)["lambda"]
        ways = {
            "one lambda for all": rows_of(judged, method, best_lambda(judged, method)),
            "each query's, chosen on the other half": judged[judged["lambda"] == own.reindex(judged.index)],
            "each query's best": best_of_each(judged),
        }
        results.append(summarize_chosen(ways)["Avg"])
    return (results[0] + results[1]) / 2


def best_of_each(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each query the row with the highest AP, which nobody can know."""
    return rows.sort_values("AP", kind="stable").groupby(level=0).tail(1).loc[rows.index.unique()]


def lambdas_in_words(lambdas: Iterable[float]) -> str:
    """Distinct lambdas, ascending: "0.4, 0.6"; "" for a method that has none."""
    return ", ".join(f"{lam:g}" for lam in sorted(set(lambdas)) if lam == lam)


def lambda_choices(
    rows: pd.DataFrame, benchmark: Benchmark, method: str, others: Mapping[str, pd.DataFrame], seed: int = 0
) -> pd.DataFrame:
    """The mAP of `method` by how its lambda was chosen, a row for each way, with the 95 % interval of Avg.

    The ways: the best lambda of each query, which nobody can know (the ceiling); the best on the queries that are
    judged, which flatters; the best on the other half, classes and attributes; and by name the rows of `others`, whose
    lambdas were chosen otherwise: the first two are the best of these, too.
    """
    own = pd.concat([rows[rows["method"] == method], *others.values()]).rename_axis("query")
    own = own.reset_index().drop_duplicates(["query", "lambda"]).set_index("query")
    best = best_lambda(own, method)
    ways = {
        "each query's best (ceiling)": (best_of_each(own), "any"),
        "best on these queries (flatters)": (rows_of(own, method, best), f"{best:g}"),
    }
    for by, name in (("half", "images"), ("group", "classes"), ("attribute", "attributes")):
        split = folds(benchmark, by, seed)
        if split.nunique() > 1:
            part, chosen = choose_lambda(rows, method, split)
            ways[f"chosen on other {name}"] = (part, lambdas_in_words(chosen))
    ways |= {name: (part, lambdas_in_words(part["lambda"])) for name, part in others.items()}
    table = summarize_chosen({name: part for name, (part, _) in ways.items()})
    ends = {name: bootstrap_mean(part, seed=seed) for name, (part, _) in ways.items()}
    table["lambda"] = [lam for _, lam in ways.values()]
    return table.join(pd.DataFrame(ends).T[["low", "high"]]).rename_axis("chosen")
