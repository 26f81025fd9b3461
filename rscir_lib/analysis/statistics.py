"""How far a number can be trusted: intervals, tests, a lambda chosen honestly, and what stands behind a mean.

Everything here takes rows of `evaluate`, or the lists of `top_lists`, and returns a table. Numbers are mAP in per cent
or points of it, shares in [0, 1] where they are called shares.
"""

import ctypes
import itertools
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from rscir_lib.benchmarks.base import Benchmark
from rscir_lib.evaluation import summarize
from rscir_lib.features import Features
from rscir_lib.methods.base import EncodeTexts, Method
from rscir_lib.methods.registry import get_method
from rscir_lib.similarity.moments import Database
from rscir_lib.storage.atomic import write_text

OVER = ("images", "texts", "both")
KINDS = ("relevant", "the query image", "right class, wrong value", "right value, wrong class", "unlabelled", "other")
SWAPS_AT_A_TIME = 500  # so that no archive's images are too many


def rows_of(rows: pd.DataFrame, method: str, lam: float | None = None) -> pd.DataFrame:
    """The rows of one method, and of one lambda where it has several. Raises ValueError when there are none."""
    found = rows[rows["method"] == method]
    if lam is not None:
        found = found[np.isclose(found["lambda"], lam)]
    if found.empty or found.index.duplicated().any():
        there = ", ".join(f"{m} {x:g}" for m, x in rows[["method", "lambda"]].drop_duplicates().to_numpy())
        raise ValueError(f"method {method!r}, lambda {lam}: expected one row a query; there are {there}")
    return found


# --- intervals and tests


def _paired(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    if not a.index.equals(b.index):
        raise ValueError("a and b must hold the same queries in the same order, one method and lambda each")
    return a[["attribute", "image", "text"]].assign(difference=100 * (a["AP"] - b["AP"]))


def bootstrap_difference(
    a: pd.DataFrame, b: pd.DataFrame, over: str = "both", samples: int = 2000, seed: int = 0
) -> pd.Series:
    """Avg mAP of `a` less that of `b`, in points, with the 95 % interval of a paired bootstrap.

    a, b: rows of `evaluate` for one method (and lambda) each, over the same queries. Within each attribute, query
    images are resampled with all their texts (over="images": would other pictures say the same?), texts with all their
    images ("texts": would other words?), or both, a query counting as often as its image times its text was drawn
    (Owen 2007, the pigeonhole bootstrap, which is conservative).

    Returns difference, low, high; where an attribute has a single image (or text) to draw from, low and high are NaN:
    one case has no interval, not one of width zero.
    """
    if over not in OVER:
        raise ValueError(f"over {over!r} is unknown; choose {', '.join(OVER)}")
    table = _paired(a, b)
    mean = float(table.groupby("attribute", sort=False)["difference"].mean().mean())
    low, high = _interval(np.mean(list(_resampled(table, over, samples, seed).values()), axis=0))
    return pd.Series({"difference": mean, "low": low, "high": high})


def _resampled(table: pd.DataFrame, over: str, samples: int, seed: int) -> dict[str, np.ndarray]:
    """Means (samples,) of `difference` in bootstrap samples, by attribute; all NaN where there is one case to draw."""
    rng, found = np.random.default_rng(seed), {}
    for attribute, part in table.groupby("attribute", sort=False):
        cells = part.pivot_table(index="image", columns="text", values="difference", aggfunc=["sum", "size"])
        total, size = (cells[what].fillna(0).to_numpy() for what in ("sum", "size"))  # images x texts
        drawn, alone = [], False
        for asked, cases in zip(("images", "texts"), size.shape, strict=True):
            resample = over in (asked, "both")
            alone |= resample and cases < 2
            chances = np.full(cases, 1 / cases)
            drawn.append(rng.multinomial(cases, chances, samples) if resample else np.ones((samples, cases)))
        images, texts = drawn
        total, size = (((images @ cell) * texts).sum(axis=1) for cell in (total, size))
        # nothing is left where no query's image and text were both drawn
        drawn_some = np.zeros_like(size, bool) if alone else size > 0
        found[attribute] = np.divide(total, size, out=np.full(samples, np.nan), where=drawn_some)
    return found


def _interval(means: np.ndarray) -> tuple[float, float]:
    """The 2.5 and 97.5 % quantiles of what is a number; NaN where nothing is."""
    means = means[~np.isnan(means)]
    low, high = np.percentile(means, [2.5, 97.5]) if len(means) else (np.nan, np.nan)
    return float(low), float(high)


def bootstrap_mean(rows: pd.DataFrame, over: str = "both", samples: int = 2000, seed: int = 0) -> pd.Series:
    """Avg mAP of rows of one method with its 95 % interval, as `bootstrap_difference` against nothing."""
    return bootstrap_difference(rows, rows.assign(AP=0.0), over, samples, seed).rename({"difference": "Avg"})


def intervals(rows: pd.DataFrame, over: str = "both", samples: int = 1000, seed: int = 0) -> pd.DataFrame:
    """The 95 % interval of every cell of `summarize(rows)`: tables of its shape under the keys "low" and "high"."""
    table = summarize(rows)
    low, high = table.copy(), table.copy()
    groups = rows.groupby(["method", "lambda"], dropna=False, sort=False)
    for row, (_, part) in enumerate(groups):
        resampled = _resampled(_paired(part, part.assign(AP=0.0)), over, samples, seed)
        means = {name.capitalize(): of for name, of in resampled.items()}
        for name, of in (means | {"Avg": np.mean(list(means.values()), axis=0)}).items():
            cell = row, table.columns.get_loc(name)
            low.iloc[cell], high.iloc[cell] = _interval(of)
    return pd.concat({"low": low, "high": high})


def against_average(rows: pd.DataFrame, method: str = "weicom", lam: float | None = None) -> pd.DataFrame:
    """A method less Text & Image, in points of Avg, with the intervals over images, texts and both (rows).

    lam: its best in `rows` without one; the lambda is a column of the table.
    """
    if lam is None:
        lam = summarize(rows).loc[method]["Avg"].idxmax()
    a, b = rows_of(rows, method, lam), rows_of(rows, "average")
    found = {over: bootstrap_difference(a, b, over) for over in OVER}
    return pd.DataFrame(found).T.assign(**{"lambda": lam}).rename_axis("resampled")


def randomisation_test(a: pd.DataFrame, b: pd.DataFrame, samples: int = 10_000, seed: int = 0) -> float:
    """Two-sided p-value of `a` and `b` having the same Avg mAP: the paired randomisation test (Smucker et al. 2007).

    Were the two methods alike, each query image might as well have swapped their scores, for all its texts at once,
    since they are not independent. The p-value is the share of such swaps that differ at least as much, the observed
    one counted in.
    """
    table, rng = _paired(a, b), np.random.default_rng(seed)
    weight = 1 / table.groupby("attribute")["difference"].transform("size")  # every attribute counts the same
    images = (table["difference"] * weight).groupby(table["image"], sort=False).sum().to_numpy()
    as_far = 0
    for start in range(0, samples, SWAPS_AT_A_TIME):
        signs = rng.choice([-1.0, 1.0], (min(SWAPS_AT_A_TIME, samples - start), len(images)))
        as_far += int((np.abs(signs @ images) >= abs(images.sum()) - 1e-9).sum())
    return (1 + as_far) / (samples + 1)


def holm(p_values: Mapping[str, float]) -> pd.Series:
    """p-values of several comparisons, corrected so that none of them is too easily called significant (Holm 1979)."""
    p = pd.Series(p_values, dtype=float).sort_values()
    return (p * np.arange(len(p), 0, -1)).cummax().clip(upper=1).reindex(list(p_values))


def compare_methods(
    chosen: Mapping[str, pd.DataFrame], against: str, over: str = "both", samples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Each method less `against`: points of Avg, 95 % interval, p-value after Holm, and whether it is below 0.05.

    chosen: name -> rows of one method each, over the same queries.
    """
    others = [name for name in chosen if name != against]
    intervals = {name: bootstrap_difference(chosen[name], chosen[against], over, samples, seed) for name in others}
    p = holm({name: randomisation_test(chosen[name], chosen[against], seed=seed) for name in others})
    return pd.DataFrame(intervals).T.assign(p=p, significant=p < 0.05)


def compare_runs(runs: Mapping[str, pd.DataFrame], over: str = "both", samples: int = 2000) -> pd.DataFrame:
    """Every run less every run before it with the same queries: points of Avg, 95 % interval, p-value after Holm.

    runs: name -> rows of one method each. Queries are the same where attribute, image and text are. Index (run, less).
    """
    keys = ["attribute", "image", "text"]
    asked = {name: rows.set_index(keys, drop=False).rename_axis([None] * 3).sort_index() for name, rows in runs.items()}
    pairs = [(b, a) for a, b in itertools.combinations(asked, 2) if asked[a].index.equals(asked[b].index)]
    found = {pair: bootstrap_difference(*map(asked.get, pair), over, samples) for pair in pairs}
    index = pd.MultiIndex.from_tuples(pairs, names=["run", "less"]) if pairs else None
    table = pd.DataFrame(list(found.values()), index, ["difference", "low", "high"])
    return table.assign(p=holm({pair: randomisation_test(*map(asked.get, pair)) for pair in pairs}).to_numpy())


# --- lambda


def folds(benchmark: Benchmark, by: str = "", seed: int = 0) -> pd.Series:
    """The fold of each query, for choosing on the other folds: its "attribute", its "group" (class), or the "half" of
    the query images that its image is in, drawn at random; "" is the attribute, where there are several, else the half.
    Index as `benchmark.queries`."""
    by = by or ("attribute" if benchmark.queries["attribute"].nunique() > 1 else "half")
    if by in ("attribute", "group"):
        return benchmark.queries[by]
    if by != "half":
        raise ValueError(f"by {by!r} is unknown; choose attribute, group or half")
    images = benchmark.queries["image"].drop_duplicates().sample(frac=1, random_state=seed)
    half = pd.Series(np.arange(len(images)) % 2, images.to_numpy())
    return benchmark.queries["image"].map(half)


def choose_lambda(rows: pd.DataFrame, method: str, folds: pd.Series) -> tuple[pd.DataFrame, pd.Series]:
    """Rows of `method` as an honest person would get them: for each fold, at the lambda that is best on all others.

    Best is the Avg of the other folds' queries. Returns the rows, one a query, in the order of `rows`, and the lambda
    of each fold. A method without lambda has nothing to choose: its rows, and NaN. Raises ValueError where all queries
    are in one fold: there is nothing else to choose on.
    """
    rows = rows[rows["method"] == method]
    fold = folds.reindex(rows.index)
    if rows.empty or fold.nunique() < 2:
        raise ValueError(f"{method}: choosing lambda needs its rows and two folds or more, found {fold.nunique()}")
    chosen, parts = {}, []
    for name in fold.unique():
        inside = (fold == name).to_numpy()
        chosen[name] = summarize(rows[~inside]).loc[method]["Avg"].idxmax()
        parts.append(rows[inside & np.isclose(rows["lambda"], chosen[name], equal_nan=True)])
    return pd.concat(parts).loc[rows.index.unique()], pd.Series(chosen, name="lambda").rename_axis("fold")


def choose_lambdas(rows: pd.DataFrame, folds: pd.Series) -> tuple[dict[str, pd.DataFrame], pd.Series]:
    """`choose_lambda` for every method in `rows`: its rows by name, and by name the lambdas in words ("0.4, 0.6")."""
    found = {name: choose_lambda(rows, name, folds) for name in rows["method"].unique()}
    told = {name: lambdas_told(lambdas) for name, (_, lambdas) in found.items()}
    return {name: of for name, (of, _) in found.items()}, pd.Series(told, name="lambda")


def summarize_chosen(chosen: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """mAP in per cent of rows by name, whatever lambda each query has: a row a name, a column an attribute, and Avg."""
    tables = {name: summarize(part.assign(**{"lambda": np.nan})).iloc[0] for name, part in chosen.items()}
    return pd.DataFrame(tables).T


def one_lambda(rows: pd.DataFrame, lam: float) -> dict[str, pd.DataFrame]:
    """One row a query for each method, by name: as they stand where a lambda was chosen, else those of the nearest
    lambda to `lam`."""
    found = {}
    for name, part in rows.groupby("method", sort=False):
        if part.index.duplicated().any():
            nearest = part["lambda"].iloc[(part["lambda"] - lam).abs().argmin()]
            part = rows_of(part, name, nearest)
        found[name] = part
    return found


def lambdas_told(lambdas: Iterable[float]) -> str:
    """Distinct lambdas in words, ascending: "0.4, 0.6"; "" for a method that has none."""
    return ", ".join(f"{lam:g}" for lam in sorted(set(lambdas)) if lam == lam)


def balanced_lambda(feats: np.ndarray, text_feats: np.ndarray, method: str, sample: int = 1000, seed: int = 0) -> float:
    """A lambda without labels: the one at which both modalities have an equal say, from the archive alone.

    The say of a modality is its weight times the spread of its scale. Phi and z-scores have one spread for both: 0.5.
    For `linear` it is s_v / (s_v + s_t), with the mean standard deviations of the similarities to archive images
    (a sample) and to the texts. feats (N, d), text_feats (T, d), L2-normalised.
    """
    if method != "linear":
        return 0.5
    rng = np.random.default_rng(seed)
    queries = feats[rng.choice(len(feats), min(sample, len(feats)), replace=False)]
    image, text = (float(np.std(feats @ asked.T, axis=0, ddof=1).mean()) for asked in (queries, text_feats))
    return image / (image + text)


def lambda_choices(
    rows: pd.DataFrame, benchmark: Benchmark, method: str, without_labels: float, seed: int = 0, samples: int = 2000
) -> pd.DataFrame:
    """What a lambda is worth by how it was chosen: mAP in per cent, a column an attribute and Avg, best to worst luck.

    Per-query ceiling (the best lambda of each query, which nobody can know), best on the very queries that are judged
    (which flatters), chosen on other halves, classes and attributes, and `without_labels` (the nearest in `rows`).
    `low` and `high` are the 95 % interval of Avg, of so many `samples`.
    """
    own = rows[rows["method"] == method]
    lambdas = own["lambda"].unique()
    ceiling = own.sort_values("AP", kind="stable").groupby(level=0).tail(1).loc[own.index.unique()]
    best = summarize(own).loc[method]["Avg"].idxmax()
    near = lambdas[np.abs(lambdas - without_labels).argmin()]
    ways = {
        "each query's best (ceiling)": (ceiling, "any"),
        "best on these queries (flatters)": (rows_of(rows, method, best), f"{best:g}"),
    }
    for by, name in (("half", "images"), ("group", "classes"), ("attribute", "attributes")):
        split = folds(benchmark, by, seed)
        if split.nunique() > 1:
            honest, chosen = choose_lambda(rows, method, split)
            ways[f"chosen on other {name}"] = (honest, lambdas_told(chosen))
    ways["without labels"] = (rows_of(rows, method, near), f"{near:g}")
    table = summarize_chosen({name: part for name, (part, _) in ways.items()})
    sure = pd.DataFrame({name: bootstrap_mean(part, samples=samples, seed=seed) for name, (part, _) in ways.items()}).T
    told = {"lambda": [told for _, told in ways.values()]}
    return table.join(sure[["low", "high"]]).assign(**told).rename_axis("chosen")


# --- what stands behind a mean


def shortcut_audit(
    image: pd.DataFrame, text: pd.DataFrame, mixed: pd.DataFrame, solved: float = 0.5
) -> tuple[pd.DataFrame, pd.Series]:
    """How much of a benchmark one modality solves alone. image, text, mixed: rows of one method each, same queries.

    A query is solved where its AP is `solved` or more. Returns, per attribute and for all (Avg, the attributes' mean):
    the share of queries that either modality solves alone, text alone, image alone, only the mix ("needs both"), and
    nobody ("unsolved"), and the gain of the mix over the *better* single modality, in points of mAP; and the label of
    each query.
    """
    _paired(image, mixed), _paired(text, mixed)
    by_image, by_text, by_mix = (part["AP"] >= solved for part in (image, text, mixed))
    label = pd.Series("unsolved", mixed.index, name="label")
    label[by_mix] = "needs both"
    label[by_image] = "image alone"
    label[by_text] = "text alone"
    label[by_image & by_text] = "either alone"
    names = ["either alone", "text alone", "image alone", "needs both", "unsolved"]
    attribute = mixed["attribute"]
    shares = pd.crosstab(attribute, label, normalize="index").reindex(columns=names, fill_value=0.0)
    mean = {name: 100 * part["AP"].groupby(attribute).mean() for name, part in
            (("image", image), ("text", text), ("mixed", mixed))}  # fmt: skip
    shares["gain"] = mean["mixed"] - np.maximum(mean["image"], mean["text"])
    shares.columns.name = None
    return _with_avg(shares.reindex(attribute.unique()).rename_axis("attribute")), label


def failure_kinds(benchmark: Benchmark, lists: np.ndarray) -> pd.DataFrame:
    """What the first k answers are, as shares of them: a row an attribute, and Avg, columns `KINDS`.

    lists: (Q, k) archive positions of `top_lists`, -1 for none. Class and value are those of the attribute's labels,
    and a class is the query's group where classes were merged. *unlabelled* is an image of the query's class that
    nobody labelled for this attribute, *other* one of another class without the value.
    """
    queries, labels = benchmark.queries, benchmark.labels
    classes = np.array(benchmark.archive.classes, dtype=object)
    names = list(KINDS)
    counts = {attribute: np.zeros(len(names)) for attribute in queries["attribute"].unique()}
    asked = queries.reset_index(drop=True)
    for (attribute, group, text, target), of in asked.groupby(["attribute", "group", "text", "target"]).groups.items():
        labelled = labels[labels["attribute"] == attribute]
        own = labelled.loc[labelled["group"] == group, "position"]
        kind = np.full(len(classes), names.index("other"))
        kind[np.isin(classes, classes[own])] = names.index("unlabelled")
        kind[labelled.loc[labelled["value"] == text, "position"]] = names.index("right value, wrong class")
        kind[own] = names.index("right class, wrong value")
        kind[benchmark.targets[target]] = names.index("relevant")
        found = lists[of]
        kinds = kind[found]
        itself = (found == asked.loc[of, "position"].to_numpy()[:, None]) & (kinds != names.index("relevant"))
        kinds[itself] = names.index("the query image")
        counts[attribute] += np.bincount(kinds[found >= 0], minlength=len(names))
    table = pd.DataFrame(counts, names).T
    return _with_avg(table.div(table.sum(axis=1), axis=0).rename_axis("attribute"))


def _with_avg(table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, table.mean().to_frame("Avg").T]).rename_axis(table.index.name)


def judged_share(benchmark: Benchmark, lists: np.ndarray) -> pd.Series:
    """judged@k: the share of the first k answers that have a label of the query's attribute, per attribute and Avg."""
    attribute, shares = benchmark.queries["attribute"].to_numpy(), {}
    for name in dict.fromkeys(attribute):
        judged = np.zeros(len(benchmark.archive), bool)
        judged[benchmark.labels.loc[benchmark.labels["attribute"] == name, "position"]] = True
        found = lists[attribute == name]
        shares[name] = judged[found[found >= 0]].mean()
    return pd.Series(shares | {"Avg": np.mean(list(shares.values()))}, name="judged").rename_axis("attribute")


def judged_alone(benchmark: Benchmark) -> Benchmark:
    """The same queries on condensed lists: an image without a label of the query's attribute is unknown, not negative.

    What `evaluate` gives on it is the condensed-list AP (Sakai 2007), an upper bound where the protocol's is a lower.
    """
    if benchmark.unknowns:
        raise ValueError(f"{benchmark.protocol}: this benchmark tells unknown from negative already")
    if benchmark.labels.empty:
        raise ValueError(
            f"{benchmark.protocol}: this benchmark has answers and no labels: nothing tells who was judged"
        )
    everything = np.arange(len(benchmark.archive))
    attributes = list(benchmark.queries["attribute"].unique())
    labelled = benchmark.labels.groupby("attribute")["position"].unique()
    unlabelled = {a: np.setdiff1d(everything, labelled[a]) for a in attributes}
    index = {attribute: i for i, attribute in enumerate(attributes)}
    queries = benchmark.queries.assign(unknown=benchmark.queries["attribute"].map(index))
    return replace(benchmark, queries=queries, unknowns=tuple(unlabelled[a] for a in attributes))


def precision_ceiling(benchmark: Benchmark, cutoffs: Sequence[int] = (5, 10, 15, 20)) -> pd.DataFrame:
    """The P@k, in [0, 1], of a perfect ranking: a query with three answers can't pass 3 / k. Per attribute and Avg."""
    best = pd.DataFrame({f"P@{k}": np.minimum(benchmark.n_relevant, k) / k for k in cutoffs}, benchmark.queries.index)
    return _with_avg(best.groupby(benchmark.queries["attribute"], sort=False).mean())


def wordings(benchmark: Benchmark, synonyms: Mapping[str, str] | None = None) -> dict[str, Benchmark]:
    """The same questions in other words, by name: bare value, with the class, in templates, and, where `synonyms`
    (value -> another word) has any of the values, with those in their place."""
    forms: dict[str, Callable[[str, str], str]] = {
        "value": lambda value, cls: value,
        "value, class": lambda value, cls: f"{value}, {cls}",
        "class, value": lambda value, cls: f"{cls}, {value}",
        "an aerial image, value": lambda value, cls: f"an aerial image, {value}",
        "a satellite photo of something value": lambda value, cls: f"a satellite photo of something {value}",
    }
    synonyms, queries = synonyms or {}, benchmark.queries
    if set(synonyms) & set(queries["text"]):
        forms["synonym"] = lambda value, cls: synonyms.get(value, value)
    asked = {
        name: [form(value, cls) for value, cls in zip(queries["text"], queries["group"], strict=True)]
        for name, form in forms.items()
    }
    return {name: replace(benchmark, queries=queries.assign(text=texts)) for name, texts in asked.items()}


# --- cost


def cost(
    benchmark: Benchmark,
    features: Features,
    encode_texts: EncodeTexts,
    methods: Sequence[str | Method],
    lam: float = 0.5,
    asked: int = 20,
    seed: int = 0,
) -> pd.DataFrame:
    """What a method costs: seconds to fit it to the archive, then one query at a time: ms a query (the least of
    `asked`, as whatever else the machine does only adds), and MiB, the most memory it took beside what stood there
    already. A row a method.

    The query's own text is encoded before the clock starts; what a method encodes besides counts. MiB is the kernel's
    count, in pages, so that 0 means little; NaN where the system isn't Linux.
    """
    database = Database(features.aligned(benchmark.archive))
    inside = benchmark.queries[benchmark.queries["position"] >= 0]
    queries = inside.sample(min(asked, len(inside)), random_state=seed)
    images = database.feats[queries["position"]].astype(np.float64)
    texts = np.asarray(encode_texts(queries["text"].tolist()), np.float64)
    lines = {}
    for method in map(get_method, methods):
        start = time.perf_counter()
        scorer = method.fit(database, encode_texts)
        fitted, took = time.perf_counter() - start, []
        words = queries["text"].tolist() if getattr(method, "reads_words", False) else None
        scorer(images[:1], texts[:1], lam, *([words[:1]] if words else []))  # what is only done once
        before = _memory(start=True)
        for i in range(len(queries)):
            start = time.perf_counter()
            scorer(images[i : i + 1], texts[i : i + 1], lam, *([words[i : i + 1]] if words else []))
            took.append(time.perf_counter() - start)
        peak = _memory()
        lines[method.name] = {"fit s": fitted, "ms a query": 1000 * min(took), "MiB a query": peak - before}
    return pd.DataFrame(lines).T


def _memory(start: bool = False) -> float:
    """The most memory (MiB) this process has held since the last `start`; NaN where the kernel doesn't tell."""
    try:
        if start:
            ctypes.CDLL(None).malloc_trim(0)  # else what was freed before would be taken again unseen
            Path("/proc/self/clear_refs").write_text("5")
        (peak,) = re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
        return int(peak) / 1024
    except (OSError, AttributeError, ValueError):
        return float("nan")


def methods_table(means: pd.DataFrame, sure: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Methods x attributes in words, the best first, as they are printed.

    means: mAP in per cent, a column an attribute, `Avg` and `lambda` (in words); sure: of Avg `low` and `high`, the
    `difference` from one of the methods (NaN for that one), its `low of difference`, `high of difference` and `p`;
    costs: `ms a query`. Index of all three: the method. A star marks a p below 0.05.
    """

    def told(value: float, low: float, high: float, form: str) -> str:
        return f"{value:{form}} ({f'{low:{form}} to {high:{form}}' if low == low else 'no interval'})"

    (against,) = sure.index[sure["difference"].isna()]
    lines = {}
    for name, row in means.sort_values("Avg", ascending=False).iterrows():
        avg, low, high, difference, *ends, p = sure.loc[
            name, ["Avg", "low", "high", "difference", "low of difference", "high of difference", "p"]
        ]
        lines[name] = {
            "lambda": row["lambda"],
            **{attribute: f"{of:.1f}" for attribute, of in row.drop(["lambda", "Avg"]).items()},
            "Avg (95 % interval)": told(avg, low, high, ".1f"),
            f"less {against}": "" if name == against else told(difference, *ends, "+.1f") + " *" * (p < 0.05),
            "ms a query": f"{costs.loc[name, 'ms a query']:.2f}",
        }
    return pd.DataFrame(lines).T.rename_axis("method")


# --- exchange


def write_trec(
    benchmark: Benchmark, lists: np.ndarray, run: str | Path, qrels: str | Path, name: str = "rscir"
) -> None:
    """Write ranked lists (Q, k) as a TREC run, and the relevant images as qrels, for trec_eval, ranx and their kin.

    Topics are named by the queries' index, documents by the archive's files, blanks in them as %20. Scores are
    k, k - 1, ..., since rank is all that a list says; unknown images are in neither file.
    """
    documents = [file.replace("%", "%25").replace(" ", "%20") for file in benchmark.archive.files]
    lines = [
        f"{topic} Q0 {documents[position]} {rank} {lists.shape[1] - rank + 1} {name}\n"
        for topic, found in zip(benchmark.queries.index, lists, strict=True)
        for rank, position in enumerate(found[found >= 0].tolist(), 1)
    ]
    write_text(run, "".join(lines))
    relevant = [
        f"{topic} 0 {documents[position]} 1\n"
        for topic, target in zip(benchmark.queries.index, benchmark.queries["target"], strict=True)
        for position in benchmark.targets[target].tolist()
    ]
    write_text(qrels, "".join(relevant))
