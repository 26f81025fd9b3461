"""What is right, exercise by exercise: worked out by the library from the run at hand, never stored.

`exercise_03_1(c)` gives the truth of exercise 03.1 from the context `c`; where it can, it takes another way than the
solution in the notebook.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from scipy.special import ndtr
from scipy.stats import rankdata

from rscir_lib import analysis
from rscir_lib.apps.labelling import cohens_kappa, propose
from rscir_lib.apps.teaching.context import ExerciseContext, Truth, average_precision
from rscir_lib.evaluation import BASELINES, evaluate, summarize, top_lists
from rscir_lib.methods import Basic
from rscir_lib.methods.pairwise import TwoSimilarities
from rscir_lib.runs import finished_runs, from_root, read_rows
from rscir_lib.search import top_k
from rscir_lib.similarity.scales import zscore


def exercise_01_1(c: ExerciseContext) -> Truth:
    n = c.labelled().n_relevant
    which = "those are the queries; asked is how many relevant images they have"
    distinct = "that is how many queries share this number; asked is the number itself"
    counts = [(n == n.max()).sum(), (n == n.min()).sum()]
    return Truth([n.max(), n.min()], "count", {which: [n.argmax(), n.argmin()], distinct: counts})


def exercise_01_2(c: ExerciseContext) -> Truth:
    benchmark = c.labelled()
    bare = 100 * (1 - len(set(benchmark.labels["position"])) / len(benchmark.archive))
    lines = 100 * (1 - len(benchmark.labels) / len(benchmark.archive))
    wrong = {"an image may have several labels: count it once": lines, "those have a label": 100 - bare}
    return Truth(bare, "%", wrong)


def exercise_01_3(c: ExerciseContext) -> Truth:
    def mean(protocol: str) -> pd.Series:
        benchmark = c.labelled(protocol)
        return benchmark.queries.assign(relevant=benchmark.n_relevant).groupby("attribute")["relevant"].mean()

    wrong = {"that is the released protocol, with the class check": mean("released")}
    return Truth(mean("first-release"), "number", wrong)


def exercise_01_4(c: ExerciseContext) -> Truth:
    benchmark = c.labelled()
    cls = np.array(benchmark.archive.classes)[benchmark.labels["position"]]
    parts = [part for _, part in benchmark.labels.groupby(["attribute", cls])]
    made = sum(len(part) * (part["value"].nunique() - 1) for part in parts)
    same = sum(len(part) * part["value"].nunique() for part in parts)
    wrong = {"that is with the merged groups": len(benchmark.queries), "an image is not asked for its own value": same}
    return Truth(made, "count", wrong)


def exercise_02_1(c: ExerciseContext) -> Truth:
    cosines = c.x @ c.texts(c["TEXTS"]).T
    wrong = {"that is the spread of the cosines": cosines.std(axis=0), "that is the best image's": cosines.max(axis=0)}
    return Truth(cosines.mean(axis=0), "cosine", wrong)


def exercise_02_2(c: ExerciseContext) -> Truth:
    classes, nearest = np.array(c.run.archive_with_features.classes), []
    for start in range(0, len(c.x), 1000):
        cosines = c.x[start : start + 1000] @ c.x.T
        cosines[np.arange(len(cosines)), start + np.arange(len(cosines))] = -np.inf
        nearest.append(np.argsort(-cosines, axis=1, kind="stable")[:, :2])
    first, second = 100 * (classes[np.concatenate(nearest)] == classes[:, None]).mean(axis=0)
    wrong = {"the nearest of all is the image itself": 100.0, "off by one: that is the second neighbour": second}
    return Truth(first, "%", wrong)


def exercise_02_3(c: ExerciseContext) -> Truth:
    off = np.abs(c.x - c.x.astype(np.float32).astype(np.float16))
    wrong = {"that is the mean change, not the largest": off.mean(), "that is twice as much": 2 * off.max()}
    return Truth(off.max(), "number", wrong)


def exercise_02_4(c: ExerciseContext) -> Truth:
    words = c.texts(c["TEXTS"])
    centred = [rows - rows.mean(axis=0) for rows in (c.x, words)]
    centroids = [(rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0) for rows in centred]
    before = np.linalg.norm(c.x.mean(axis=0) - words.mean(axis=0))
    wrong = {"normalise again after the mean is gone": 0.0, "that is the gap before anything was subtracted": before}
    return Truth(np.linalg.norm(centroids[0] - centroids[1]), "cosine", wrong)


def exercise_03_1(c: ExerciseContext) -> Truth:
    s_image, s_text, relevant = c.by_hand
    scores = {"image": s_image, "text": s_text, "average": (s_image + s_text) / 2}
    ranks = pd.DataFrame({name: rankdata(-s, "ordinal")[relevant] for name, s in scores.items()})
    return Truth(ranks.min(), "rank", {"those are the last relevant images": ranks.max()})


def exercise_03_2(c: ExerciseContext) -> Truth:
    rows = c.rows(BASELINES, (0.5,), cutoffs=(1, 5)).groupby("method")[["P@1", "P@5"]].mean()
    return Truth(100 * rows["P@1"], "%", {"that is the share among the first five": 100 * rows["P@5"]})


def exercise_03_3(c: ExerciseContext) -> Truth:
    alone = replace(c.run.benchmark, exclude_self=True)
    before = c.rows(["image"], (0.5,))
    given = alone, c.run.features, c.run.encoder.encode_texts
    after = evaluate(*given, ["image"], device=c.run.config.DEVICE, progress=False)
    avg = [summarize(rows)["Avg"].item() for rows in (before, after)]
    wrong = {
        "that is the new Avg, not how much it rose": avg[1],
        "average within each attribute first": 100 * (after["AP"].mean() - before["AP"].mean()),
    }
    return Truth(avg[1] - avg[0], "points", wrong)


def exercise_03_4(c: ExerciseContext) -> Truth:
    avg = summarize(c.rows(["average", "product", "minimum"], (0.5,)))["Avg"].droplevel("lambda")
    others = avg[["product", "minimum"]]
    return Truth(others - avg["average"], "points", {"that is the Avg itself, not the difference": others})


def exercise_04_1(c: ExerciseContext) -> Truth:
    s, of_text, _ = c.by_hand
    z = (s.max() - s.mean()) / s.std()
    other = (of_text.max() - of_text.mean()) / of_text.std()
    raw = [s.max(), ndtr(s.max())]
    wrong = {"that is of the text": [other, ndtr(other)], "that is the similarity, not its z-score": raw}
    return Truth([z, ndtr(z)], "number", wrong)


def exercise_04_2(c: ExerciseContext) -> Truth:
    image, text = (s.std() for s in c.by_hand[:2])
    wrong = {"the other way round: the text is to be multiplied": text / image}
    wrong |= {"that is a share": text / (text + image)}
    return Truth(image / text, "number", wrong)


def exercise_04_3(c: ExerciseContext) -> Truth:
    *similarities, relevant = c.by_hand
    lam = c["LAMBDAS"][0]

    def ap(image: np.ndarray, text: np.ndarray) -> float:
        return average_precision(np.argsort(-((1 - lam) * image + lam * text), kind="stable"), relevant)

    ranks = [rankdata(s, "ordinal") for s in similarities]
    phi = [ndtr((s - s.mean()) / s.std(ddof=1)) for s in similarities]
    wrong = {
        "that is WeiCom, with Phi": ap(*phi),
        "the most similar image must have the greatest number": ap(*(-r for r in ranks)),
        "lambda weighs the text": ap(*ranks[::-1]),
    }
    return Truth(ap(*ranks), "share", wrong)


def exercise_04_4(c: ExerciseContext) -> Truth:
    queries = c.run.benchmark.queries.sample(min(200, len(c.run.benchmark.queries)), random_state=0)
    both = c.x[queries["position"]] @ c.x.T, c.texts(queries["text"].tolist()) @ c.x.T
    lam = c["LAMBDAS"][0]

    def mean_ap(axis: int) -> float:
        z = [(s - s.mean(axis, keepdims=True)) / s.std(axis, keepdims=True) for s in both]
        orders = np.argsort(-((1 - lam) * z[0] + lam * z[1]), axis=1, kind="stable")
        targets = (c.run.benchmark.targets[target] for target in queries["target"])
        return 100 * float(np.mean([*map(average_precision, orders, targets)]))

    right, wrong = mean_ap(1), mean_ap(0)
    return Truth(right - wrong, "points", {"that is the mAP with the mistake, not its cost": wrong})


def _swept(c: ExerciseContext) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of WeiCom at every lambda, and their table by lambda."""
    rows = c.rows(["weicom"], c["LAMBDAS"])
    return rows, summarize(rows).loc["weicom"]


def exercise_05_1(c: ExerciseContext) -> Truth:
    avg = _swept(c)[1]["Avg"]
    near = [lam for lam, value in avg.items() if value >= avg.max() - 1]
    low, high = min(near), max(near)
    wrong = {
        "lambda weighs the text, not the image": [1 - high, 1 - low],
        "those are mAP, not lambdas": [avg[low], avg[high]],
        "that is the whole of LAMBDAS": [min(avg.index), max(avg.index)],
    }
    return Truth([low, high], "lambda", wrong)


def exercise_05_2(c: ExerciseContext) -> Truth:
    rows, table = _swept(c)
    by_value = 100 * rows.groupby(["attribute", "text", "lambda"])["AP"].mean().unstack()
    best = by_value.max(axis=1)
    gain = best - by_value[table["Avg"].idxmax()]
    wrong = {
        "that value does best, but gains less": best.idxmax()[1],
        "that value gains least": gain.idxmin()[1],
        "that is over the image alone": (best - by_value.iloc[:, 0]).idxmax()[1],
    }
    return Truth(gain.idxmax()[1], "name", wrong)


def exercise_05_3(c: ExerciseContext) -> Truth:
    rows, _ = _swept(c)
    images = rows["image"][~rows.index.duplicated()].drop_duplicates()
    half = rows["image"].isin(images.sample(frac=0.5, random_state=0))
    seen, unseen = (summarize(rows[part]).loc["weicom", "Avg"] for part in (half, ~half))
    wrong = {
        "that is the half that lambda was chosen on": seen.max(),
        "that lambda was chosen on the queries it is judged on": unseen.max(),
        "the lambda is wanted only to look up the mAP": seen.idxmax(),
    }
    return Truth(unseen[seen.idxmax()], "%", wrong)


def exercise_05_4(c: ExerciseContext) -> Truth:
    avg = summarize(c.rows(["minmax", "rrf"], c["LAMBDAS"]))["Avg"].unstack("lambda")
    return Truth(avg.max(axis=1), "%", {"that is at the first lambda, not at the best": avg.iloc[:, 0]})


def exercise_06_1(c: ExerciseContext) -> Truth:
    question = from_root(c["QUERY_IMAGE"]) or c["POSITION"], c["QUERY_TEXT"]
    picture, words = (set(c.search(*question, lam, top=c["TOP"]).table["file"]) for lam in (0, 1))
    wrong = {"those are in one list or the other": len(picture | words), "those differ": len(picture - words)}
    return Truth(len(picture & words), "count", wrong)


def exercise_06_2(c: ExerciseContext) -> Truth:
    ap = 100 * c.rows(["weicom"], (c["LAMBDA"],)).set_index("attribute")["AP"]
    mean, median = ap.groupby(level=0).mean(), ap.groupby(level=0).median()
    return Truth(mean - median, "points", {"that is the mean alone": mean, "that is the median alone": median})


def exercise_06_3(c: ExerciseContext) -> Truth:
    rows = c.rows(["weicom"], (c["LAMBDA"],))
    worst = rows[rows["n_relevant"] >= min(3, rows["n_relevant"].max())].groupby("attribute")["AP"].idxmin()
    classes, labels, other, right = np.array(c.run.benchmark.archive.classes), c.run.benchmark.labels, 0, 0
    for query in c.run.benchmark.queries.loc[worst].itertuples():
        hits = c.search(query.position, query.text, c["LAMBDA"], top=6).table["position"]
        own = labels[(labels["attribute"] == query.attribute) & (labels["group"] == query.group)]["position"]
        other += (~np.isin(classes[hits], classes[own])).sum()
        right += np.isin(hits, c.run.benchmark.targets[query.target]).sum()
    wrong = {
        "those are of the query's class": 6 * len(worst) - other,
        "those are right, in the wrong class or not": right,
    }
    return Truth(other, "count", wrong)


def exercise_06_4(c: ExerciseContext) -> Truth:
    queries = c.run.benchmark.queries
    answered = queries[c.run.benchmark.n_relevant > 0]
    one = answered.groupby("attribute").sample(1, random_state=c["SEED"]).iloc[0]
    asked, had = c.texts([one["text"], one["value"]])
    texts = asked, (asked - had) / np.linalg.norm(asked - had), (had - asked) / np.linalg.norm(asked - had)
    orders = [top_k(c.search.gallery, c.x[one["position"]], text, c["LAMBDA"], len(c.x))[0] for text in texts]
    ranks = [int(np.isin(order, c.run.benchmark.targets[one["target"]]).argmax()) + 1 for order in orders]
    return Truth(ranks[:2], "rank", {"subtract what the image has from what is asked": [ranks[0], ranks[2]]})


def exercise_07_1(c: ExerciseContext) -> Truth:
    ap = c.rows(["weicom"], (c["LAMBDA"],))["AP"].to_numpy()[c["QUERIES"]]
    perfect = ap > 0.9999  # 1, less the rounding of a mean of many precisions
    wrong = {"that is a share; asked is how many": 100 * perfect.mean(), "those are not perfect": (~perfect).sum()}
    return Truth(perfect.sum(), "count", wrong)


def exercise_07_2(c: ExerciseContext) -> Truth:
    def first(method: str, lam: float) -> set[str]:
        return set(c.search(c["POSITION"], c["QUERY_TEXT"], lam, method, top=10).table["file"])

    wanted = first("weicom", c["LAMBDA"])
    common = [len(wanted & first("linear", step / 20)) for step in range(21)]
    wrong = {"that is the same lambda for both": common[round(20 * c["LAMBDA"])], "the least of them": min(common)}
    return Truth(max(common), "count", wrong)


def exercise_08_1(c: ExerciseContext) -> Truth:
    labels = c.run.benchmark.labels
    known = labels[(labels["attribute"] == c["CHECK"]) & labels["value"].isin(c["VALUES"])]
    if known.empty:
        raise ValueError(f"CHECK={c['CHECK']!r}: no labels of that name with any of the values {c['VALUES']}")
    proposed = propose(c.x, c.run.encoder.encode_texts, {value: value for value in c["VALUES"]})
    said = known["position"].map(proposed.set_index("position")["proposed"])
    agree, by_chance = (said == known["value"]).mean(), 1 / len(c["VALUES"])
    uniform = "chance is not the same for all values: it depends on how often each is said"
    wrong = {"that is the agreement, chance included": agree, uniform: (agree - by_chance) / (1 - by_chance)}
    return Truth(cohens_kappa(said.tolist(), known["value"].tolist()), "share", wrong)


def exercise_08_2(c: ExerciseContext) -> Truth:
    named = {value: value for value in c["VALUES"]}, {"smooth": "smooth", "striped": "striped"}
    margins = [propose(c.x, c.run.encoder.encode_texts, prompts)["margin"] for prompts in named]
    wrong = {"those are means": [m.mean() for m in margins], "those are the largest": [m.max() for m in margins]}
    return Truth([m.median() for m in margins], "number", wrong)


def _avg(rows: pd.DataFrame) -> float:
    return 100 * rows.groupby("attribute")["AP"].mean().mean()


def exercise_09_1(c: ExerciseContext) -> Truth:
    chosen = analysis.of_choice(read_rows(c.run.folder / "tables" / "09_rows.csv"), "honest")
    count = analysis.compare_methods(chosen, "average")["significant"].sum()
    wrong = {"those do not differ": len(chosen) - 1 - count, "those are all that it is compared with": len(chosen) - 1}
    return Truth(count, "count", wrong)


def exercise_09_2(c: ExerciseContext) -> Truth:
    one, two = (c.rows([name], (0.5,))["AP"] for name in ("product", "product-clamped"))
    differ = ((one - two).abs() > 1e-9).sum()
    return Truth(differ, "count", {"those are equal": len(one) - differ, "that is a share": 100 * differ / len(one)})


def exercise_09_3(c: ExerciseContext) -> Truth:
    rows = c.rows([c["AGAINST"]], c["LAMBDAS"])
    half, _ = analysis.choose_lambda(rows, c["AGAINST"], analysis.folds(c.run.benchmark, "half"))
    avg = summarize(rows)["Avg"]
    wrong = {"that lambda was chosen on the queries it is judged on": avg.max(), "that is the worst lambda": avg.min()}
    return Truth(_avg(half), "%", wrong)


def exercise_09_4(c: ExerciseContext) -> Truth:
    steps = ["centre", "project", "expand", "normalise", "harris"]
    without = [Basic(**{step: False}, name=step) for step in steps]
    avg = summarize(c.rows(without, (0.5,)))["Avg"].droplevel("lambda")
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
    audits = [analysis.shortcut_audit(*_image_text_mixed(c), solved)[0] for solved in (0.3, 0.7)]
    both, none = ([100 * shares.loc["Avg", kind] for shares in audits] for kind in ("needs both", "unsolved"))
    return Truth(both, "%", {"those are solved by nobody": none})


def _image_text_mixed(c: ExerciseContext) -> list[pd.DataFrame]:
    rows = c.rows(["image", "text", c["METHOD"]], c["LAMBDAS"])
    return [analysis.choose_lambda(rows, m, analysis.folds(c.run.benchmark))[0] for m in ("image", "text", c["METHOD"])]


def exercise_10_2(c: ExerciseContext) -> Truth:
    lam = _image_text_mixed(c)[2]["lambda"].fillna(0.5).mode()[0]
    args = c.run.benchmark, c.run.features, c.run.encoder.encode_texts, c["METHOD"], lam, c["TOP"], c.run.config.DEVICE
    own = top_lists(*args, progress=False) == c.run.benchmark.queries["position"].to_numpy()[:, None]
    wrong = {
        "that is the share of the answers, not of the queries": 100 * own.mean(),
        "at rank 1 alone": 100 * own[:, 0].mean(),
    }
    return Truth(100 * own.any(axis=1).mean(), "%", wrong)


def exercise_10_3(c: ExerciseContext) -> Truth:
    rows = c.rows([c["METHOD"]], c["LAMBDAS"])
    halves = (analysis.folds(c.run.benchmark, "half", seed) for seed in range(10))
    tries = [_avg(analysis.choose_lambda(rows, c["METHOD"], half)[0]) for half in halves]
    wrong = {"that is the worst of the lambdas": summarize(rows)["Avg"].min(), "that is their sum": sum(tries)}
    return Truth(np.mean(tries), "%", wrong)


def _of_runs(c: ExerciseContext, method: str, value: Callable[[pd.DataFrame], float]) -> pd.Series:
    """A value of the rows of one method, for every run that notebook 11 compares."""
    tables = finished_runs(from_root(c["RUNS_FOLDER"]) or c.run.folder.parent)["rows"]
    runs = {name: analysis.of_choice(read_rows(path), c["CHOICE"]) for name, path in tables.items()}
    values = {name: value(methods[method]) for name, methods in runs.items() if c["METHOD"] in methods}
    return pd.Series(values, dtype=float)


def exercise_11_1(c: ExerciseContext) -> Truth:
    return Truth(_of_runs(c, "text", _avg), "%", {f"that is {c['METHOD']}": _of_runs(c, c["METHOD"], _avg)})


def exercise_11_2(c: ExerciseContext) -> Truth:
    def width(rows: pd.DataFrame) -> float:
        return np.ptp(analysis.bootstrap_mean(rows)[["low", "high"]])

    widths = _of_runs(c, c["METHOD"], width)
    return Truth(widths, "points", {"that is half of it: from the middle to an end": widths / 2})


EXERCISES: dict[str, Callable[[ExerciseContext], Truth]] = {
    name.removeprefix("exercise_").replace("_", "."): exercise
    for name, exercise in list(globals().items())
    if name.startswith("exercise_")
}
