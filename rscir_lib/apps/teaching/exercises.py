"""What is right, exercise by exercise: worked out by the library from the run at hand, never stored.

Each function is the truth of one exercise of the notebooks (`course.Checks` calls it with itself); it takes another
way than the solution in the notebook where there is one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from scipy.special import ndtr
from scipy.stats import rankdata

from rscir_lib.analysis import statistics
from rscir_lib.apps.explorer.session import JUDGED
from rscir_lib.apps.labelling import cohens_kappa, propose
from rscir_lib.benchmarks.base import read_benchmark
from rscir_lib.evaluation import BASELINES, evaluate, summarize, top_lists
from rscir_lib.methods import Basic
from rscir_lib.methods.pairwise import TwoSimilarities
from rscir_lib.runs import finished_runs, from_root, read_rows
from rscir_lib.search import top_k
from rscir_lib.similarity.scales import zscore

if TYPE_CHECKING:
    from rscir_lib.apps.teaching.course import Checks


@dataclass(frozen=True)
class Truth:
    """The right answer: a text, a number, several numbers, or a Series of them by name.

    unit: a key of `course.TOLERANCES`. mistakes: what to say -> the wrong answer to say it of, beside the unit's own.
    """

    value: object
    unit: str
    mistakes: dict[str, object] = field(default_factory=dict)


EXERCISES: dict[str, Callable[["Checks"], Truth]] = {}


def _exercise(number: str) -> Callable:
    return lambda truth: EXERCISES.setdefault(number, truth)


def _ap(order: np.ndarray, relevant: np.ndarray) -> float:
    ranks = np.flatnonzero(np.isin(order, relevant)) + 1
    return float((np.arange(1, len(ranks) + 1) / ranks).mean()) if len(ranks) else 0.0


def _first_rank(scores: np.ndarray, relevant: np.ndarray) -> int:
    return int(rankdata(-scores, "ordinal")[relevant].min())


# --- 01: labels and queries. The images need no features yet


def _labelled(c: "Checks", protocol: str = ""):
    return read_benchmark(c.run.root, c.run.listing, protocol or c.run.parameters["PROTOCOL"])


@_exercise("01.1")
def _(c: "Checks") -> Truth:
    n = _labelled(c).n_relevant
    which = "those are the queries; asked is how many relevant images they have"
    distinct = "that is how many queries share this number; asked is the number itself"
    counts = [(n == n.max()).sum(), (n == n.min()).sum()]
    return Truth([n.max(), n.min()], "count", {which: [n.argmax(), n.argmin()], distinct: counts})


@_exercise("01.2")
def _(c: "Checks") -> Truth:
    benchmark = _labelled(c)
    bare = 100 * (1 - len(set(benchmark.labels["position"])) / len(benchmark.archive))
    lines = 100 * (1 - len(benchmark.labels) / len(benchmark.archive))
    return Truth(
        bare, "%", {"an image may have several labels: count it once": lines, "those have a label": 100 - bare}
    )


@_exercise("01.3")
def _(c: "Checks") -> Truth:
    def mean(protocol: str) -> pd.Series:
        benchmark = _labelled(c, protocol)
        sizes = benchmark.queries["target"].map([len(target) for target in benchmark.targets].__getitem__)
        return sizes.groupby(benchmark.queries["attribute"]).mean()

    return Truth(
        mean("first-release"), "number", {"that is the released protocol, with the class check": mean("released")}
    )


@_exercise("01.4")
def _(c: "Checks") -> Truth:
    benchmark = _labelled(c)
    cls = np.array(benchmark.archive.classes)[benchmark.labels["position"]]
    parts = [part for _, part in benchmark.labels.groupby(["attribute", cls])]
    made = sum(len(part) * (part["value"].nunique() - 1) for part in parts)
    same = sum(len(part) * part["value"].nunique() for part in parts)
    told = {"that is with the merged groups": len(benchmark.queries), "an image is not asked for its own value": same}
    return Truth(made, "count", told)


# --- 02: features


@_exercise("02.1")
def _(c: "Checks") -> Truth:
    cosines = c.x @ c.texts(c["TEXTS"]).T
    told = {"that is the spread of the cosines": cosines.std(axis=0), "that is the best image's": cosines.max(axis=0)}
    return Truth(cosines.mean(axis=0), "cosine", told)


@_exercise("02.2")
def _(c: "Checks") -> Truth:
    classes, nearest = np.array(c.run.archive.classes), []
    for start in range(0, len(c.x), 1000):
        cosines = c.x[start : start + 1000] @ c.x.T
        cosines[np.arange(len(cosines)), start + np.arange(len(cosines))] = -np.inf
        nearest.append(np.argsort(-cosines, axis=1, kind="stable")[:, :2])
    first, second = 100 * (classes[np.concatenate(nearest)] == classes[:, None]).mean(axis=0)
    told = {"the nearest of all is the image itself": 100.0, "off by one: that is the second neighbour": second}
    return Truth(first, "%", told)


@_exercise("02.3")
def _(c: "Checks") -> Truth:
    off = np.abs(c.x - c.x.astype(np.float32).astype(np.float16))
    told = {"that is the mean change, not the largest": off.mean(), "that is twice as much": 2 * off.max()}
    return Truth(off.max(), "number", told)


@_exercise("02.4")
def _(c: "Checks") -> Truth:
    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    words = c.texts(c["TEXTS"])
    centroids = [unit(rows - rows.mean(axis=0)).mean(axis=0) for rows in (c.x, words)]
    before = np.linalg.norm(c.x.mean(axis=0) - words.mean(axis=0))
    told = {"normalise again after the mean is gone": 0.0, "that is the gap before anything was subtracted": before}
    return Truth(np.linalg.norm(centroids[0] - centroids[1]), "cosine", told)


# --- 03: baselines


@_exercise("03.1")
def _(c: "Checks") -> Truth:
    s_image, s_text, relevant = c.by_hand
    scores = {"image": s_image, "text": s_text, "average": (s_image + s_text) / 2}
    last = {name: int(rankdata(-s, "ordinal")[relevant].max()) for name, s in scores.items()}
    first = pd.Series({name: _first_rank(s, relevant) for name, s in scores.items()})
    return Truth(first, "rank", {"those are the last relevant images": pd.Series(last)})


@_exercise("03.2")
def _(c: "Checks") -> Truth:
    rows = c.rows(BASELINES, (0.5,), cutoffs=(1, 5)).groupby("method")[["P@1", "P@5"]].mean()
    return Truth(100 * rows["P@1"], "%", {"that is the share among the first five": 100 * rows["P@5"]})


@_exercise("03.3")
def _(c: "Checks") -> Truth:
    alone = replace(c.benchmark, exclude_self=True)
    before = c.rows(["image"], (0.5,))
    after = evaluate(alone, c.run.features, c.encode, ["image"], device=c.device, progress=False)
    avg = [summarize(rows)["Avg"].item() for rows in (before, after)]
    told = {
        "that is the new Avg, not how much it rose": avg[1],
        "average within each attribute first": 100 * (after["AP"].mean() - before["AP"].mean()),
    }
    return Truth(avg[1] - avg[0], "points", told)


@_exercise("03.4")
def _(c: "Checks") -> Truth:
    avg = summarize(c.rows(["average", "product", "minimum"], (0.5,)))["Avg"].droplevel("lambda")
    others = avg[["product", "minimum"]]
    return Truth(others - avg["average"], "points", {"that is the Avg itself, not the difference": others})


# --- 04: WeiCom


@_exercise("04.1")
def _(c: "Checks") -> Truth:
    s, of_text, _ = c.by_hand
    z = (s.max() - s.mean()) / s.std()
    other = (of_text.max() - of_text.mean()) / of_text.std()
    told = {
        "that is of the text": [other, ndtr(other)],
        "that is the similarity, not its z-score": [s.max(), ndtr(s.max())],
    }
    return Truth([z, ndtr(z)], "number", told)


@_exercise("04.2")
def _(c: "Checks") -> Truth:
    image, text = (s.std() for s in c.by_hand[:2])
    told = {"the other way round: the text is to be multiplied": text / image, "that is a share": text / (text + image)}
    return Truth(image / text, "number", told)


@_exercise("04.3")
def _(c: "Checks") -> Truth:
    *similarities, relevant = c.by_hand
    lam = c["LAMBDAS"][0]

    def ap(image: np.ndarray, text: np.ndarray) -> float:
        return _ap(np.argsort(-((1 - lam) * image + lam * text), kind="stable"), relevant)

    ranks = [rankdata(s, "ordinal") for s in similarities]
    phi = [ndtr((s - s.mean()) / s.std(ddof=1)) for s in similarities]
    told = {
        "that is WeiCom, with Phi": ap(*phi),
        "the most similar image must have the greatest number": ap(*(-r for r in ranks)),
        "lambda weighs the text": ap(*ranks[::-1]),
    }
    return Truth(ap(*ranks), "share", told)


@_exercise("04.4")
def _(c: "Checks") -> Truth:
    queries = c.benchmark.queries.sample(min(200, len(c.benchmark.queries)), random_state=0)
    both = c.x[queries["position"]] @ c.x.T, c.texts(queries["text"].tolist()) @ c.x.T
    lam = c["LAMBDAS"][0]

    def mean_ap(axis: int) -> float:
        z = [(s - s.mean(axis, keepdims=True)) / s.std(axis, keepdims=True) for s in both]
        orders = np.argsort(-((1 - lam) * z[0] + lam * z[1]), axis=1, kind="stable")
        aps = [_ap(order, c.benchmark.targets[t]) for order, t in zip(orders, queries["target"], strict=True)]
        return 100 * float(np.mean(aps))

    right, wrong = mean_ap(1), mean_ap(0)
    return Truth(right - wrong, "points", {"that is the mAP with the mistake, not its cost": wrong})


# --- 05: lambda


def _swept(c: "Checks") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of WeiCom at every lambda, and their table by lambda."""
    rows = c.rows(["weicom"], c["LAMBDAS"])
    return rows, summarize(rows).loc["weicom"]


@_exercise("05.1")
def _(c: "Checks") -> Truth:
    avg = _swept(c)[1]["Avg"]

    near = [lam for lam, value in avg.items() if value >= avg.max() - 1]
    low, high = min(near), max(near)
    told = {
        "lambda weighs the text, not the image": [1 - high, 1 - low],
        "those are mAP, not lambdas": [avg[low], avg[high]],
        "that is the whole of LAMBDAS": [min(avg.index), max(avg.index)],
    }
    return Truth([low, high], "lambda", told)


@_exercise("05.2")
def _(c: "Checks") -> Truth:
    rows, table = _swept(c)
    by_value = 100 * rows.groupby(["attribute", "text", "lambda"])["AP"].mean().unstack()
    best = by_value.max(axis=1)
    gain = best - by_value[table["Avg"].idxmax()]
    told = {
        "that value does best, but gains less": best.idxmax()[1],
        "that value gains least": gain.idxmin()[1],
        "that is over the image alone": (best - by_value.iloc[:, 0]).idxmax()[1],
    }
    return Truth(gain.idxmax()[1], "name", told)


@_exercise("05.3")
def _(c: "Checks") -> Truth:
    rows, _ = _swept(c)
    images = rows["image"][~rows.index.duplicated()].drop_duplicates()
    half = rows["image"].isin(images.sample(frac=0.5, random_state=0))
    seen, unseen = (summarize(rows[part]).loc["weicom", "Avg"] for part in (half, ~half))
    told = {
        "that is the half that lambda was chosen on": seen.max(),
        "that lambda was chosen on the queries it is judged on": unseen.max(),
        "the lambda is wanted only to look up the mAP": seen.idxmax(),
    }
    return Truth(unseen[seen.idxmax()], "%", told)


@_exercise("05.4")
def _(c: "Checks") -> Truth:
    avg = summarize(c.rows(["minmax", "rrf"], c["LAMBDAS"]))["Avg"].unstack("lambda")
    return Truth(avg.max(axis=1), "%", {"that is at the first lambda, not at the best": avg.iloc[:, 0]})


# --- 06: galleries


@_exercise("06.1")
def _(c: "Checks") -> Truth:
    question = from_root(c["QUERY_IMAGE"]) or c["POSITION"], c["QUERY_TEXT"]
    picture, words = (set(c.ask(*question, lam, top=c["TOP"]).table["file"]) for lam in (0, 1))
    told = {"those are in one list or the other": len(picture | words), "those differ": len(picture - words)}
    return Truth(len(picture & words), "count", told)


@_exercise("06.2")
def _(c: "Checks") -> Truth:
    ap = 100 * c.rows(["weicom"], (c["WEIGHT"],)).set_index("attribute")["AP"]
    mean, median = (getattr(ap.groupby(level=0), of)() for of in ("mean", "median"))
    return Truth(mean - median, "points", {"that is the mean alone": mean, "that is the median alone": median})


@_exercise("06.3")
def _(c: "Checks") -> Truth:
    rows = c.rows(["weicom"], (c["WEIGHT"],))
    worst = rows[rows["n_relevant"] >= min(3, rows["n_relevant"].max())].groupby("attribute")["AP"].idxmin()
    classes, labels, other, right = np.array(c.benchmark.archive.classes), c.benchmark.labels, 0, 0
    for query in c.benchmark.queries.loc[worst].itertuples():
        hits = c.ask(query.position, query.text, c["WEIGHT"], top=6).table["position"]
        own = labels[(labels["attribute"] == query.attribute) & (labels["group"] == query.group)]["position"]
        other += (~np.isin(classes[hits], classes[own])).sum()
        right += np.isin(hits, c.benchmark.targets[query.target]).sum()
    told = {
        "those are of the query's class": 6 * len(worst) - other,
        "those are right, in the wrong class or not": right,
    }
    return Truth(other, "count", told)


@_exercise("06.4")
def _(c: "Checks") -> Truth:
    queries = c.benchmark.queries
    answered = queries[c.benchmark.n_relevant > 0]
    one = answered.groupby("attribute").sample(1, random_state=c["SEED"]).iloc[0]
    asked, had = c.texts([one["text"], one["value"]])
    texts = asked, (asked - had) / np.linalg.norm(asked - had), (had - asked) / np.linalg.norm(asked - had)
    orders = [top_k(c.ask.database, c.x[one["position"]], text, c["WEIGHT"], len(c.x))[0] for text in texts]
    ranks = [int(np.isin(order, c.benchmark.targets[one["target"]]).argmax()) + 1 for order in orders]
    return Truth(ranks[:2], "rank", {"subtract what the image has from what is asked": [ranks[0], ranks[2]]})


# --- 07 and 08: explorer and labels


@_exercise("07.1")
def _(c: "Checks") -> Truth:
    asked = c.benchmark.queries.reset_index(drop=True)
    asked = asked[asked["position"] >= 0]
    shown = asked.sample(min(JUDGED, len(asked)), random_state=0).index
    ap = c.rows(["weicom"], (c["WEIGHT"],))["AP"].to_numpy()[shown]
    told = {
        "that is a share; asked is how many": 100 * (ap > 0.9999).mean(),
        "those are not perfect": (ap <= 0.9999).sum(),
    }
    return Truth((ap > 0.9999).sum(), "count", told)


@_exercise("07.2")
def _(c: "Checks") -> Truth:
    def first(method: str, lam: float) -> set[str]:
        return set(c.ask(c["POSITION"], c["QUERY_TEXT"], lam, method, top=10).table["file"])

    wanted = first("weicom", c["WEIGHT"])
    common = [len(wanted & first("linear", step / 20)) for step in range(21)]
    told = {"that is the same lambda for both": common[round(20 * c["WEIGHT"])], "the least of them": min(common)}
    return Truth(max(common), "count", told)


@_exercise("08.1")
def _(c: "Checks") -> Truth:
    labels = c.benchmark.labels
    known = labels[(labels["attribute"] == c["CHECK"]) & labels["value"].isin(c["VALUES"])]
    if known.empty:
        raise ValueError(f"CHECK={c['CHECK']!r}: no labels of that name with any of the values {c['VALUES']}")
    proposed = propose(c.x, c.encode, {value: c["TEMPLATE"].format(value) for value in c["VALUES"]})
    said = known["position"].map(proposed.set_index("position")["proposed"])
    agree, by_chance = (said == known["value"]).mean(), 1 / len(c["VALUES"])
    told = {
        "that is the agreement, chance included": agree,
        "chance is not the same for all values: it depends on how often each is said": (agree - by_chance)
        / (1 - by_chance),
    }
    return Truth(cohens_kappa(said.tolist(), known["value"].tolist()), "share", told)


@_exercise("08.2")
def _(c: "Checks") -> Truth:
    named = {value: c["TEMPLATE"].format(value) for value in c["VALUES"]}, {"smooth": "smooth", "striped": "striped"}
    margins = [propose(c.x, c.encode, prompts)["margin"] for prompts in named]
    told = {"those are means": [m.mean() for m in margins], "those are the largest": [m.max() for m in margins]}
    return Truth([m.median() for m in margins], "number", told)


# --- 09 to 11: research


def _chosen(c: "Checks") -> dict[str, pd.DataFrame]:
    """The rows that notebook 9 saved, by method."""
    rows = read_rows(c.run.folder / "tables" / "09_rows.csv")
    return dict(list(rows.groupby("method", sort=False)))


@_exercise("09.1")
def _(c: "Checks") -> Truth:
    chosen = _chosen(c)
    count = statistics.compare_methods(chosen, "average")["significant"].sum()
    told = {"those do not differ": len(chosen) - 1 - count, "those are all that it is compared with": len(chosen) - 1}
    return Truth(count, "count", told)


@_exercise("09.2")
def _(c: "Checks") -> Truth:
    one, two = (c.rows([name], (0.5,))["AP"] for name in ("product", "product-clamped"))
    differ = ((one - two).abs() > 1e-9).sum()
    return Truth(differ, "count", {"those are equal": len(one) - differ, "that is a share": 100 * differ / len(one)})


@_exercise("09.3")
def _(c: "Checks") -> Truth:
    rows = c.rows([c["AGAINST"]], c["LAMBDAS"])
    half, _ = statistics.choose_lambda(rows, c["AGAINST"], statistics.folds(c.benchmark, "half"))
    avg = summarize(rows)["Avg"]
    told = {"that lambda was chosen on the queries it is judged on": avg.max(), "that is the worst lambda": avg.min()}
    return Truth(100 * half.groupby("attribute")["AP"].mean().mean(), "%", told)


@_exercise("09.4")
def _(c: "Checks") -> Truth:
    steps = ["centre", "project", "expand", "normalise", "harris"]
    avg = pd.Series(
        {step: summarize(c.rows([Basic(**{step: False}, name=step)], (0.5,)))["Avg"].item() for step in steps}
    )
    least, middle = avg.idxmax(), avg.sort_values().index[1]
    return Truth(avg.idxmin(), "name", {"that one costs least": least, "another costs more": middle})


@_exercise("09.5")
def _(c: "Checks") -> Truth:
    larger, smaller = (
        (lambda image, text, lam: torch.maximum(image, text)),
        (lambda image, text, lam: torch.minimum(image, text)),
    )
    methods = [
        TwoSimilarities("of z-scores", larger, zscore),
        TwoSimilarities("of similarities", larger),
        TwoSimilarities("smaller", smaller, zscore),
    ]
    right, raw, wrong = summarize(c.rows(methods, (0.5,)))["Avg"]
    return Truth(right, "%", {"put both on one scale first": raw, "that is the smaller of the two": wrong})


@_exercise("10.1")
def _(c: "Checks") -> Truth:
    image, text, mixed = _image_text_mixed(c)
    found = {"needs both": [], "unsolved": []}
    for at in (0.3, 0.7):
        alone, both = (image["AP"] >= at) | (text["AP"] >= at), mixed["AP"] >= at
        for name, kind in (("needs both", both & ~alone), ("unsolved", ~both & ~alone)):
            found[name].append(100 * kind.groupby(mixed["attribute"]).mean().mean())
    return Truth(found["needs both"], "%", {"those are solved by nobody": found["unsolved"]})


def _image_text_mixed(c: "Checks") -> list[pd.DataFrame]:
    rows = c.rows(["image", "text", c["METHOD"]], c["LAMBDAS"])
    return [statistics.choose_lambda(rows, m, statistics.folds(c.benchmark))[0] for m in ("image", "text", c["METHOD"])]


@_exercise("10.2")
def _(c: "Checks") -> Truth:
    lam = _image_text_mixed(c)[2]["lambda"].fillna(0.5).mode()[0]
    args = c.benchmark, c.run.features, c.encode, c["METHOD"], lam, c["TOP"], c.device
    own = top_lists(*args, progress=False) == c.benchmark.queries["position"].to_numpy()[:, None]
    told = {
        "that is the share of the answers, not of the queries": 100 * own.mean(),
        "at rank 1 alone": 100 * own[:, 0].mean(),
    }
    return Truth(100 * own.any(axis=1).mean(), "%", told)


@_exercise("10.3")
def _(c: "Checks") -> Truth:
    rows = c.rows([c["METHOD"]], c["LAMBDAS"])
    halves = (statistics.folds(c.benchmark, "half", seed) for seed in range(10))
    chosen = [statistics.choose_lambda(rows, c["METHOD"], half)[0] for half in halves]
    tries = [100 * part.groupby("attribute")["AP"].mean().mean() for part in chosen]
    told = {"that is the worst of the lambdas": summarize(rows)["Avg"].min(), "that is their sum": sum(tries)}
    return Truth(np.mean(tries), "%", told)


def _of_runs(c: "Checks", method: str) -> dict[str, pd.DataFrame]:
    """The rows of one method in every run that notebook 11 compares."""
    there = finished_runs(from_root(c["RUNS_FOLDER"]) or c.run.folder.parent)["rows"]
    of = {name: statistics.one_lambda(read_rows(path), c["WEIGHT"]) for name, path in there.items()}
    return {name: parts[method] for name, parts in of.items() if method in parts}


@_exercise("11.1")
def _(c: "Checks") -> Truth:
    def avg(method: str) -> pd.Series:
        of = _of_runs(c, method)
        return pd.Series(
            {name: 100 * rows.groupby("attribute")["AP"].mean().mean() for name, rows in of.items()}, dtype=float
        )

    return Truth(avg("text"), "%", {f"that is {c['METHOD']}": avg(c["METHOD"])})


@_exercise("11.2")
def _(c: "Checks") -> Truth:
    intervals = {name: statistics.bootstrap_mean(rows) for name, rows in _of_runs(c, c["METHOD"]).items()}
    width = pd.Series({name: of["high"] - of["low"] for name, of in intervals.items()}, dtype=float)
    return Truth(width, "points", {"that is half of it: from the middle to an end": width / 2})
