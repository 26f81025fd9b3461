"""What is asked of an archive: composed queries, each with its relevant images, whatever format they came from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from rscir_lib.archive import Archive
from rscir_lib.benchmarks.image_names import ImageNames

# the attributes of the published tables, in their order; tables put those of other benchmarks behind them
ATTRIBUTES = ("color", "context", "density", "existence", "quantity", "shape")
QUERY_COLUMNS = ["attribute", "group", "image", "value", "text", "position", "target"]
LABEL_COLUMNS = ["attribute", "image", "group", "value", "position"]
WARNING_COLUMNS = ["file", "line", "value", "problem"]


class ValidationReport:
    """Collects what a reader found amiss and could still use, and what it did about it."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int | None, str, str]] = []

    def add(self, file: str, line: int | None, value: str, problem: str) -> None:
        self.rows.append((file, line, value, problem))

    def table(self) -> pd.DataFrame:
        """The rows as `Benchmark.warnings` has them."""
        return pd.DataFrame(self.rows, columns=WARNING_COLUMNS).astype({"line": "Int64"})


def no_labels() -> pd.DataFrame:
    return pd.DataFrame(columns=LABEL_COLUMNS).astype({"position": np.int64})


@dataclass(frozen=True)
class Benchmark:
    """Composed queries over an archive of N images. That they agree with each other is checked when it is made.

    Attributes:
        archive: The N images that are ranked.
        protocol: The name of the rule that says what is relevant.
        queries: One row per composed query, columns attribute, group, image (as `ImageNames` names it), value (the
            image's own), text (the value asked for), position (of the image in the archive), target (index into
            `targets`). Where needed also unknown (index into `unknowns`, -1 for none) and query (position in
            `query_archive` of an image outside the archive, whose own `position` is -1; -1 for the others). The index
            names each query once.
        targets: Sets of relevant images, as ascending archive positions; several queries may share one.
        labels: The labelled rows, columns attribute, image, group, value, position; may be empty.
        warnings: The validation report, columns file, line, value, problem: what a reader tolerated, and how.
        unknowns: Sets of images, as `targets`, that nobody has judged. They are taken out of the ranking of the queries
            that name them (the condensed list), and none is relevant there.
        query_archive: The images of queries that lie outside the archive.
        exclude_self: Whether a query's own image is taken out of its ranking (PatternCom leaves it in, as a negative);
            it is then relevant to none of its queries.
        galleries: Sets of images, as `targets`, each ranked alone; a column `gallery` of the queries says which a query
            is asked of, and what is relevant to it lies there. None where every query is asked of the whole archive.

    Raises:
        ValueError: It names the table, row or set, the value in it, and what is expected.
    """

    archive: Archive
    protocol: str
    queries: pd.DataFrame
    targets: tuple[np.ndarray, ...]
    labels: pd.DataFrame = field(default_factory=no_labels)
    warnings: pd.DataFrame = field(default_factory=lambda: ValidationReport().table())
    unknowns: tuple[np.ndarray, ...] = ()
    query_archive: Archive | None = None
    exclude_self: bool = False
    galleries: tuple[np.ndarray, ...] = ()

    def __post_init__(self) -> None:
        asked = [*QUERY_COLUMNS, *["gallery"] * bool(self.galleries)]
        for name, columns in (("queries", asked), ("labels", LABEL_COLUMNS), ("warnings", WARNING_COLUMNS)):
            if missing := [column for column in columns if column not in getattr(self, name)]:
                raise ValueError(f"{name}: no column {missing[0]!r}; it needs {', '.join(columns)}")
        if (twice := self.queries.index.duplicated()).any():
            raise ValueError(f"queries: two rows of index {self.queries.index[twice].tolist()[0]!r}; give each its own")
        size, outside = len(self.archive), len(self.query_archive) if self.query_archive is not None else 0
        for name in ("targets", "unknowns", "galleries"):
            for i, positions in enumerate(getattr(self, name)):
                check_positions(f"{name}[{i}]", positions, size)
        _check_range("labels", self.labels, "position", 0, size)
        ranges = {"position": (-1 if outside else 0, size), "target": (0, len(self.targets)), "query": (-1, outside)}
        ranges |= {"unknown": (-1, len(self.unknowns))}
        ranges |= {"gallery": (0, len(self.galleries))} if self.galleries else {}
        for column in ranges.keys() & {*self.queries}:
            _check_range("queries", self.queries, column, *ranges[column])
        self._check_queries()

    def _check_queries(self) -> None:
        """Each query has words and an image, and what is relevant to it is neither unknown nor beyond its gallery."""
        refuse, position = partial(_refuse, "queries", self.queries), self.queries["position"].to_numpy()
        misplaced = (position < 0) == (self._optional("query") < 0)
        refuse("position", misplaced, "either an archive position, or -1 and a `query`")
        for column in ("attribute", "text"):
            blank = [not (isinstance(value, str) and value.strip()) for value in self.queries[column]]
            refuse(column, blank, "a word")
        sets = {column: self._optional(column) for column in ("target", "unknown", "gallery")}
        if self.exclude_self:
            own = _is_member(self.targets, sets["target"], position)
            refuse("image", own, "an image that is not its own answer, as exclude_self is set")
        if self.galleries:
            strange = (position >= 0) & ~_is_member(self.galleries, sets["gallery"], position)
            refuse("image", strange, "an image of the query's gallery, or one outside the archive")
        for target, unknown, gallery in pd.DataFrame(sets).drop_duplicates().itertuples(index=False):
            relevant, files = self.targets[target], self.archive.files
            if unknown >= 0 and (both := np.intersect1d(relevant, self.unknowns[unknown])).size:
                also = f"{files[both[0]]} is relevant too (targets[{target}])"
                raise ValueError(f"unknowns[{unknown}]: {also}; an image is one or the other")
            if self.galleries and (missing := np.setdiff1d(relevant, self.galleries[gallery])).size:
                absent = f"{files[missing[0]]} is missing, though relevant there (targets[{target}])"
                raise ValueError(f"galleries[{gallery}]: {absent}")

    def _optional(self, column: str) -> np.ndarray:
        """A column of `queries` that may be left out: (Q,) integers, -1 where it is."""
        return self.queries[column].to_numpy() if column in self.queries else np.full(len(self.queries), -1)

    @cached_property
    def n_relevant(self) -> np.ndarray:
        """(Q,) how many images are relevant to each query."""
        return _sizes(self.targets, self.queries["target"])

    @cached_property
    def n_unknown(self) -> np.ndarray:
        """(Q,) how many images are taken out of each query's ranking because nobody judged them."""
        return _sizes(self.unknowns, self._optional("unknown"))

    @cached_property
    def n_ranked(self) -> np.ndarray:
        """(Q,) how many images each query ranks: its gallery without the unknown, and the image itself if excluded."""
        size = _sizes(self.galleries, self.queries["gallery"]) if self.galleries else len(self.archive)
        ranked = size - self.n_unknown
        if self.exclude_self:
            position = self.queries["position"].to_numpy()
            ranked = ranked - ((position >= 0) & ~_is_member(self.unknowns, self._optional("unknown"), position))
        return ranked

    def in_gallery(self, number: int) -> "Benchmark":
        """The queries of a gallery, over its images alone."""
        queries = self.queries[self.queries["gallery"] == number].drop(columns="gallery")
        return self._over(self.galleries[number], queries, galleries=())

    def _over(self, kept: np.ndarray, queries: pd.DataFrame, **others: Any) -> "Benchmark":
        """These queries over the images at these positions alone, in what else is replaced."""
        moved, sets = _moved(self.archive, kept), {"unknowns": self.unknowns, "galleries": self.galleries} | others
        used, target = np.unique(queries["target"], return_inverse=True)
        sets["targets"] = tuple(self.targets[i] for i in used)
        for name in ("targets", "unknowns", "galleries"):
            sets[name] = tuple(moved[p][moved[p] >= 0] for p in sets[name])
        labels = self.labels.assign(position=moved[self.labels["position"]])
        queries = queries.assign(position=moved[queries["position"]], target=target)
        return replace(
            self, archive=self.archive.subset(kept), queries=queries, labels=labels[labels["position"] >= 0], **sets
        )

    def read_query(self, query: int) -> Image.Image:
        """The RGB picture of the query whose index in `queries` is `query`, inside the archive or outside."""
        row = self.queries.loc[query]
        return self.archive.read(row["position"]) if row["position"] >= 0 else self.query_archive.read(row["query"])

    def image_features(self, queries: pd.DataFrame, features: Any) -> np.ndarray:
        """(n, d) float64: the features of the images of these rows of `queries`, inside the archive or outside."""
        position = queries["position"].to_numpy()
        rows = features.aligned(self.archive)[position].astype(np.float64)
        if (outside := position < 0).any():
            rows[outside] = features.aligned(self.query_archive)[queries["query"].to_numpy()[outside]]
        return rows

    def judgements(self, query: int) -> pd.Series:
        """(N,) for the query of this index in `queries`: is each image relevant, negative or unknown, and why."""
        row, classes = self.queries.loc[query], pd.Series(self.archive.classes)
        group = self.labels.query("attribute == @row.attribute and group == @row.group")
        judged = pd.Series("elsewhere: negative", index=range(len(self.archive)), name="side")
        judged[classes.isin(classes[group["position"]])] = "same class, no label: negative"
        judged[group["position"]] = "same group, another value: negative"
        if self.galleries:
            judged[np.setdiff1d(judged.index, self.galleries[row["gallery"]])] = "another gallery: not ranked"
        judged[self.targets[row["target"]]] = "has the value asked for: RELEVANT"
        if row.get("unknown", -1) >= 0:
            judged[self.unknowns[row["unknown"]]] = "nobody judged it: unknown, left out of the ranking"
        own = "left out of its own ranking" if self.exclude_self else "negative"
        if row["position"] >= 0 and "RELEVANT" not in judged[row["position"]]:
            judged[row["position"]] = f"the query image itself: {own}"
        return judged

    def without(self, files: Iterable[str]) -> "Benchmark":
        """The benchmark over the archive without these files, such as those that can't be read.

        Queries that lose their image, or all their relevant images, go too; `warnings` counts them.

        Raises:
            ValueError: A file is in neither archive.
        """
        gone, asking = set(files), self.query_archive
        if strange := gone - set(self.archive.files) - set(asking.files if asking is not None else ()):
            raise ValueError(f"{sorted(strange)[0]!r} is no image of {self.archive.root}; files lists them")
        kept = _kept(self.archive, gone)
        moved, queries = _moved(self.archive, kept), self.queries
        has_image = moved[queries["position"]] >= 0
        if asking is not None:
            queries = queries.assign(query=_moved(asking, _kept(asking, gone))[self._optional("query")])
            has_image, asking = has_image | (queries["query"] >= 0), asking.subset(_kept(asking, gone))
        answers = np.array([(moved[positions] >= 0).sum() for positions in self.targets])
        has_answer = (answers[queries["target"]] > 0) | (self.n_relevant == 0)
        report = ValidationReport()
        answerless = has_image & ~has_answer
        for dropped, why in ((~has_image, "their image is left out"), (answerless, "every answer is left out")):
            if dropped.any():
                report.add("archive", None, f"{dropped.sum()} queries", f"dropped: {why}")
        warnings = pd.concat([self.warnings, report.table()], ignore_index=True)
        return self._over(kept, queries[has_image & has_answer], query_archive=asking, warnings=warnings)

    def counts(self, by: Sequence[str] = ("attribute", "group")) -> pd.DataFrame:
        """Labelled rows, their values, queries, and relevant images per query (min, median, max), for each group.

        Where there are unknown images, also their median number per query. by: the columns that tell groups apart.
        """
        keys = list(by)
        frame = self.queries[keys].assign(positives=self.n_relevant, unknown=self.n_unknown)
        queries, labels = frame.groupby(keys, sort=False), self.labels.groupby(keys, sort=False)
        counts = queries["positives"].agg(["size", "min", "median", "max"])
        counts.columns = ["queries", "positives min", "median", "max"]
        if self.unknowns:
            counts["unknown median"] = queries["unknown"].median()
        if self.labels.empty:  # queries that came without labels
            return pd.DataFrame({"labelled": 0, "values": ""}, counts.index).join(counts)
        return pd.DataFrame({"labelled": labels.size(), "values": labels["value"].unique().map(", ".join)}).join(counts)


def check_positions(name: str, positions: np.ndarray, size: int) -> None:
    """Raises ValueError, beginning with `name`, unless these are archive positions (n,), strictly ascending."""
    if not (isinstance(positions, np.ndarray) and positions.ndim == 1 and np.issubdtype(positions.dtype, np.integer)):
        raise ValueError(f"{name}: expected a one-dimensional array of integers, found {positions!r}")
    if len(positions) and not 0 <= positions.min() <= positions.max() < size:
        wrong = positions[(positions < 0) | (positions >= size)][0]
        raise ValueError(f"{name}: position {wrong} is outside the archive of {size} images, 0 to {size - 1}")
    if (np.diff(positions) <= 0).any():
        wrong = positions[1:][np.diff(positions) <= 0][0]
        raise ValueError(f"{name}: position {wrong} is out of order or there twice; ascending and unique is expected")


def _check_range(name: str, table: pd.DataFrame, column: str, start: int, end: int) -> None:
    values = table[column]
    if len(values) and not pd.api.types.is_integer_dtype(values):
        raise ValueError(f"{name}: column {column!r} holds {values.dtype}; expected integers")
    _refuse(name, table, column, (values < start) | (values >= end), f"an integer from {start} to {end - 1}")


def _refuse(
    name: str, table: pd.DataFrame, column: str, wrong: Sequence[bool] | np.ndarray | pd.Series, expected: str
) -> None:
    wrong = np.asarray(wrong, dtype=bool)
    if wrong.any():
        row, value = table.index[wrong].tolist()[0], table[column][wrong].tolist()[0]
        raise ValueError(f"{name}, row {row!r}: {column} is {value!r}; expected {expected}")


def _sizes(sets: Sequence[np.ndarray], index: np.ndarray | pd.Series) -> np.ndarray:
    """(Q,) the size of sets[index[i]], 0 where the index is -1."""
    return np.array([*map(len, sets), 0])[index]


def _is_member(sets: Sequence[np.ndarray], index: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """(Q,) whether positions[i] is in sets[index[i]]; never where the index is -1."""
    result = np.zeros(len(index), bool)
    for i, rows in pd.Series(index).groupby(index).indices.items():
        if i >= 0:
            result[rows] = np.isin(positions[rows], sets[i])
    return result


def _kept(archive: Archive, gone: set[str]) -> np.ndarray:
    """The positions of the images that aren't gone."""
    return np.flatnonzero([file not in gone for file in archive.files])


def _moved(archive: Archive, kept: np.ndarray) -> np.ndarray:
    """For each position the one among those kept, -1 for none, and last for position -1, which stays."""
    moved = np.full(len(archive) + 1, -1)
    moved[kept] = np.arange(len(kept))
    return moved


def label_rows(names: ImageNames, attribute: str, group: str, values: pd.Series, unknown: int = -1) -> pd.DataFrame:
    """Rows for `benchmark_of_labels` of images that are compared with each other: their values, by archive position.

    unknown: index of the set of images that are unknown to the group's queries, -1 for none.
    """
    positions = values.index.to_numpy()
    images = [names.name(names.archive.files[position]) for position in positions]
    columns = {"attribute": attribute, "image": images, "group": group, "value": values.to_numpy()}
    return pd.DataFrame(columns | {"position": positions, "unknown": unknown, "shared": group})


def benchmark_of_labels(
    archive: Archive, protocol: str, rows: pd.DataFrame, report: ValidationReport,
    texts: Sequence[tuple[str, str, str]] | None = None, unknowns: Sequence[np.ndarray] = (),
) -> Benchmark:  # fmt: skip
    """The benchmark of labels by PatternCom's rule: each row asks for every other value of its group.

    Args:
        archive, protocol: As in `Benchmark`.
        rows: Columns attribute, image, group, value, position; unknown where there are `unknowns`; and shared, the
            class that a relevant image must have in common with the query. Of an image listed twice for an attribute,
            each row asks, and the last decides what the image is relevant to.
        report: What the reader tolerated.
        texts: The (attribute, group, text) that are asked for; None for every value that a row has.
        unknowns: Sets of images that nobody judged.
    """
    asked = rows[["attribute", "group", "value"]].drop_duplicates().to_numpy() if texts is None else texts
    queries = rows.merge(pd.DataFrame(asked, columns=["attribute", "group", "text"]), on=["attribute", "group"])
    queries = queries[queries["value"] != queries["text"]].reset_index(drop=True)  # in the order of the rows
    last = rows.drop_duplicates(["attribute", "group", "image"], keep="last")
    relevant = dict(list(last.groupby(["attribute", "shared", "value"])["position"]))
    asked_for = queries.groupby(["attribute", "shared", "text"], sort=False)
    queries["target"] = asked_for.ngroup()
    # nothing is relevant where all who had the value are listed again with another
    targets = tuple(np.sort(relevant.get(key, pd.Series(dtype=np.int64)).to_numpy()) for key in asked_for.size().index)
    queries = queries[[*QUERY_COLUMNS, "unknown"] if unknowns else QUERY_COLUMNS]
    return Benchmark(archive, protocol, queries, targets, rows[LABEL_COLUMNS], report.table(), tuple(unknowns))


def group_of(cls: str) -> str:
    """The name of the group that a class forms; "all" in an archive without classes."""
    return cls or "all"
