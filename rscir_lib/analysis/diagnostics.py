"""What stands behind a mean: who solves the queries, what wrong answers are, what was judged, what words change."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import pandas as pd

from rscir_lib.analysis.significance import paired
from rscir_lib.benchmarks.base import Benchmark

# of an answer: "relevant" where it is; else the first of the others that holds
KINDS = ("relevant", "the query image", "right class, wrong value", "right value, wrong class", "unlabelled", "other")
# other forms of a query's text, from its value and its class
WORDINGS = {
    "value": "{value}",
    "value, class": "{value}, {cls}",
    "class, value": "{cls}, {value}",
    "an aerial image, value": "an aerial image, {value}",
    "a satellite photo of something value": "a satellite photo of something {value}",
}


def _with_avg(table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, table.mean().to_frame("Avg").T]).rename_axis("attribute")


def shortcut_audit(
    image: pd.DataFrame, text: pd.DataFrame, mixed: pd.DataFrame, solved: float = 0.5
) -> tuple[pd.DataFrame, pd.Series]:
    """How much of a benchmark one modality solves alone.

    Args:
        image, text, mixed: Rows of one method each, over the same queries.
        solved: The AP from which a query counts as solved.

    Returns:
        Per attribute and for Avg, their mean: the share of queries that either modality solves alone, only the text,
        only the image, only the mix ("needs both"), or none ("unsolved"); and the gain of the mix over the better
        single modality, in points of mAP. And the label of each query.
    """
    paired(image, mixed), paired(text, mixed)
    by_image, by_text, by_mix = (part["AP"] >= solved for part in (image, text, mixed))
    names, attribute = ["either alone", "text alone", "image alone", "needs both", "unsolved"], mixed["attribute"]
    labels = np.select([by_image & by_text, by_text, by_image, by_mix], names[:4], names[4])
    label = pd.Series(labels, mixed.index, name="label")
    shares = pd.crosstab(attribute, label, normalize="index").reindex(columns=names, fill_value=0.0)
    by_image, by_text, by_mix = (100 * part["AP"].groupby(attribute).mean() for part in (image, text, mixed))
    shares["gain"] = by_mix - np.maximum(by_image, by_text)
    shares.columns.name = None
    return _with_avg(shares.reindex(attribute.unique())), label


def failure_kinds(benchmark: Benchmark, lists: np.ndarray) -> pd.DataFrame:
    """What the first k answers are: shares of the `KINDS` (columns), a row per attribute, and Avg.

    Class and value are those of the attribute's labels; where classes were merged, a class is the query's group.
    *unlabelled* is an image of the query's class without a label of this attribute, *other* one of another class
    without the value. Where the benchmark has no labels, *other* is all that neither is relevant nor the query image,
    and no column tells more. `lists` are the (Q, k) archive positions of `top_lists`, -1 for none.
    """
    queries, labels = benchmark.queries.reset_index(drop=True), benchmark.labels
    classes = np.array(benchmark.archive.classes, dtype=object)
    table = pd.DataFrame(0.0, queries["attribute"].unique(), list(KINDS))
    for key, rows in queries.groupby(["attribute", "group", "text", "target"]).groups.items():
        attribute, group, text, target = cast(tuple[str, str, str, int], key)
        labelled = labels[labels["attribute"] == attribute]
        own = labelled.loc[labelled["group"] == group, "position"]
        kind = np.full(len(classes), "other", dtype=object)
        kind[np.isin(classes, classes[own])] = "unlabelled"
        kind[labelled.loc[labelled["value"] == text, "position"]] = "right value, wrong class"
        kind[own] = "right class, wrong value"
        kind[benchmark.targets[target]] = "relevant"
        answers = lists[rows]
        kinds = kind[answers]
        itself = answers == queries.loc[rows, "position"].to_numpy()[:, None]
        kinds[itself & (kinds != "relevant")] = "the query image"
        table.loc[attribute] += pd.Series(kinds[answers >= 0]).value_counts().reindex(KINDS, fill_value=0)
    table = table[["relevant", "the query image", "other"]] if labels.empty else table
    return _with_avg(table.div(table.sum(axis=1), axis=0))


def _labels(benchmark: Benchmark) -> pd.DataFrame:
    if benchmark.labels.empty:
        raise ValueError(f"{benchmark.protocol}: this benchmark has no labels that say which images were judged")
    return benchmark.labels


def judged_share(benchmark: Benchmark, lists: np.ndarray) -> pd.Series:
    """judged@k: the share of the first k answers that have a label of the query's attribute, per attribute and Avg.

    `lists` are the (Q, k) archive positions of `top_lists`, -1 for none. ValueError where there are no labels.
    """
    labels, shares = _labels(benchmark), {}
    for name, part in benchmark.queries.reset_index(drop=True).groupby("attribute", sort=False):
        answers = lists[part.index]
        shares[name] = np.isin(answers[answers >= 0], labels.loc[labels["attribute"] == name, "position"]).mean()
    return pd.Series(shares | {"Avg": np.mean(list(shares.values()))}, name="judged").rename_axis("attribute")


def judged_alone(benchmark: Benchmark) -> Benchmark:
    """The same queries on condensed lists: an image without a label of the query's attribute is unknown, not negative.

    `evaluate` then gives the condensed-list AP (Sakai 2007), an upper bound where the protocol's is a lower one. Raises
    ValueError where the benchmark has unknown images already, or no labels.
    """
    if benchmark.unknowns:
        raise ValueError(f"{benchmark.protocol}: this benchmark tells unknown images from negative ones already")
    attributes, labels = list(benchmark.queries["attribute"].unique()), _labels(benchmark)
    everything = np.arange(len(benchmark.archive))
    unlabelled = [np.setdiff1d(everything, labels.loc[labels["attribute"] == a, "position"]) for a in attributes]
    queries = benchmark.queries.assign(unknown=benchmark.queries["attribute"].map(attributes.index))
    return replace(benchmark, queries=queries, unknowns=tuple(unlabelled))


def precision_ceiling(benchmark: Benchmark, cutoffs: Sequence[int] = (5, 10, 15, 20)) -> pd.DataFrame:
    """The P@k, in [0, 1], of a perfect ranking: a query with three answers can't pass 3 / k. Per attribute and Avg."""
    best = pd.DataFrame({f"P@{k}": np.minimum(benchmark.n_relevant, k) / k for k in cutoffs}, benchmark.queries.index)
    return _with_avg(best.groupby(benchmark.queries["attribute"], sort=False).mean())


def wordings(benchmark: Benchmark, synonyms: Mapping[str, str]) -> dict[str, Benchmark]:
    """The same queries in other words, by the name of the wording: `WORDINGS`, and "synonym".

    `synonyms` maps values to other words for them; "synonym" is left out where no query asks for any of these values.
    """
    queries = benchmark.queries
    texts = {
        name: [form.format(value=text, cls=cls) for text, cls in zip(queries["text"], queries["group"], strict=True)]
        for name, form in WORDINGS.items()
    }
    if set(synonyms) & set(queries["text"]):
        texts["synonym"] = queries["text"].replace(dict(synonyms)).tolist()
    return {name: replace(benchmark, queries=queries.assign(text=words)) for name, words in texts.items()}
