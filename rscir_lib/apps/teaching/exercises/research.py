"""Truths of the exercises in notebooks 09 to 11, research."""

import numpy as np
import pandas as pd
import torch

from rscir_lib import analysis
from rscir_lib.apps.teaching.context import ExerciseContext, Truth
from rscir_lib.evaluation import summarize, top_lists
from rscir_lib.methods import Basic
from rscir_lib.methods.pairwise import TwoSimilarities
from rscir_lib.runs import finished_runs, from_root, read_rows
from rscir_lib.similarity.scales import zscore


def _avg(rows: pd.DataFrame) -> float:
    return 100 * rows.groupby("attribute")["AP"].mean().mean()


def _chosen(c: ExerciseContext) -> dict[str, pd.DataFrame]:
    """The rows that notebook 9 saved, by method."""
    return analysis.of_choice(read_rows(c.run.folder / "tables" / "09_rows.csv"), "honest")


def exercise_09_1(c: ExerciseContext) -> Truth:
    chosen = _chosen(c)
    count = analysis.compare_methods(chosen, "average")["significant"].sum()
    wrong = {"those do not differ": len(chosen) - 1 - count, "those are all that it is compared with": len(chosen) - 1}
    return Truth(count, "count", wrong)


def exercise_09_2(c: ExerciseContext) -> Truth:
    one, two = (c.rows([name], (0.5,))["AP"] for name in ("product", "product-clamped"))
    differ = ((one - two).abs() > 1e-9).sum()
    return Truth(differ, "count", {"those are equal": len(one) - differ, "that is a share": 100 * differ / len(one)})


def exercise_09_3(c: ExerciseContext) -> Truth:
    rows = c.rows([c["AGAINST"]], c["LAMBDAS"])
    half, _ = analysis.choose_lambda(rows, c["AGAINST"], analysis.folds(c.benchmark, "half"))
    avg = summarize(rows)["Avg"]
    wrong = {"that lambda was chosen on the queries it is judged on": avg.max(), "that is the worst lambda": avg.min()}
    return Truth(_avg(half), "%", wrong)


def exercise_09_4(c: ExerciseContext) -> Truth:
    steps = ["centre", "project", "expand", "normalise", "harris"]
    avg = pd.Series(
        {step: summarize(c.rows([Basic(**{step: False}, name=step)], (0.5,)))["Avg"].item() for step in steps}
    )
    least, middle = avg.idxmax(), avg.sort_values().index[1]
    return Truth(avg.idxmin(), "name", {"that one costs least": least, "another costs more": middle})


def exercise_09_5(c: ExerciseContext) -> Truth:
    methods = [
        TwoSimilarities("of z-scores", lambda image, text, lam: torch.maximum(image, text), zscore),
        TwoSimilarities("of similarities", lambda image, text, lam: torch.maximum(image, text)),
        TwoSimilarities("smaller", lambda image, text, lam: torch.minimum(image, text), zscore),
    ]
    right, raw, wrong = summarize(c.rows(methods, (0.5,)))["Avg"]
    return Truth(right, "%", {"put both on one scale first": raw, "that is the smaller of the two": wrong})


def exercise_10_1(c: ExerciseContext) -> Truth:
    image, text, mixed = _image_text_mixed(c)
    both, none = [], []
    for solved in (0.3, 0.7):
        alone, by_mix = (image["AP"] >= solved) | (text["AP"] >= solved), mixed["AP"] >= solved
        both.append(_avg(mixed.assign(AP=by_mix & ~alone)))
        none.append(_avg(mixed.assign(AP=~by_mix & ~alone)))
    return Truth(both, "%", {"those are solved by nobody": none})


def _image_text_mixed(c: ExerciseContext) -> list[pd.DataFrame]:
    rows = c.rows(["image", "text", c["METHOD"]], c["LAMBDAS"])
    return [analysis.choose_lambda(rows, m, analysis.folds(c.benchmark))[0] for m in ("image", "text", c["METHOD"])]


def exercise_10_2(c: ExerciseContext) -> Truth:
    lam = _image_text_mixed(c)[2]["lambda"].fillna(0.5).mode()[0]
    args = c.benchmark, c.run.features, c.run.encoder.encode_texts, c["METHOD"], lam, c["TOP"], c.run.config.DEVICE
    own = top_lists(*args, progress=False) == c.benchmark.queries["position"].to_numpy()[:, None]
    wrong = {
        "that is the share of the answers, not of the queries": 100 * own.mean(),
        "at rank 1 alone": 100 * own[:, 0].mean(),
    }
    return Truth(100 * own.any(axis=1).mean(), "%", wrong)


def exercise_10_3(c: ExerciseContext) -> Truth:
    rows = c.rows([c["METHOD"]], c["LAMBDAS"])
    halves = (analysis.folds(c.benchmark, "half", seed) for seed in range(10))
    chosen = [analysis.choose_lambda(rows, c["METHOD"], half)[0] for half in halves]
    tries = [_avg(part) for part in chosen]
    wrong = {"that is the worst of the lambdas": summarize(rows)["Avg"].min(), "that is their sum": sum(tries)}
    return Truth(np.mean(tries), "%", wrong)


def _of_runs(c: ExerciseContext, method: str) -> dict[str, pd.DataFrame]:
    """The rows of one method in every run that notebook 11 compares."""
    tables = finished_runs(from_root(c["RUNS_FOLDER"]) or c.run.folder.parent)["rows"]
    runs = {name: analysis.of_choice(read_rows(path), c["CHOICE"]) for name, path in tables.items()}
    return {name: methods[method] for name, methods in runs.items() if c["METHOD"] in methods}


def exercise_11_1(c: ExerciseContext) -> Truth:
    def avg(method: str) -> pd.Series:
        return pd.Series({name: _avg(rows) for name, rows in _of_runs(c, method).items()}, dtype=float)

    return Truth(avg("text"), "%", {f"that is {c['METHOD']}": avg(c["METHOD"])})


def exercise_11_2(c: ExerciseContext) -> Truth:
    intervals = {name: analysis.bootstrap_mean(rows) for name, rows in _of_runs(c, c["METHOD"]).items()}
    width = pd.Series({name: ends["high"] - ends["low"] for name, ends in intervals.items()}, dtype=float)
    return Truth(width, "points", {"that is half of it: from the middle to an end": width / 2})
