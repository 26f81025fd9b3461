"""What is asked of an archive: composed queries, each with its relevant images, whatever format they came from."""

import pkgutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from rscir_lib.archive import Archive, read_archive

QUERIES = ["attribute", "group", "image", "value", "text", "position", "target"]
LABELS = ["attribute", "image", "group", "value", "position"]
WARNINGS = ["file", "line", "value", "problem"]


@dataclass(frozen=True)
class Benchmark:
    """Composed queries over an archive of N images. What follows is checked: an object that exists is consistent.

    queries: one row per composed query, columns attribute, group, image (as `ImageNames` names it), value (the image's
        own), text (the value asked for), position (of the image in the archive), target (index into `targets`); where
        needed also unknown (index into `unknowns`, -1: none) and query (position in `query_archive` of an image outside
        the archive, whose own `position` is -1; -1 for the others). The index names each query once.
    targets: sets of relevant images, archive positions, strictly ascending; queries share them.
    labels: the labelled rows, columns attribute, image, group, value, position; may be empty.
    warnings: the validation report, columns file, line, value, problem; what was tolerated, and how.
    unknowns: as `targets`, the images of which nobody said whether they answer. They are taken out of the ranking of
        the queries that name them (the condensed list), and none is relevant there.
    query_archive: the images of queries that lie outside the archive.
    exclude_self: whether a query's own image is taken out of its ranking (PatternCom leaves it in, as a negative); it
        is then relevant to none of its queries.

    Raises ValueError naming table, row or set, the value found and what is expected.
    """

    archive: Archive
    protocol: str
    queries: pd.DataFrame
    targets: tuple[np.ndarray, ...]
    labels: pd.DataFrame
    warnings: pd.DataFrame
    unknowns: tuple[np.ndarray, ...] = ()
    query_archive: Archive | None = None
    exclude_self: bool = False

    def __post_init__(self) -> None:
        for name, columns in (("queries", QUERIES), ("labels", LABELS), ("warnings", WARNINGS)):
            if missing := [column for column in columns if column not in getattr(self, name)]:
                raise ValueError(f"{name}: no column {missing[0]!r}; it needs {', '.join(columns)}")
        if (twice := self.queries.index.duplicated()).any():
            raise ValueError(f"queries: two rows of index {self.queries.index[twice].tolist()[0]!r}; give each its own")
        size, outside = len(self.archive), len(self.query_archive) if self.query_archive is not None else 0
        for name in ("targets", "unknowns"):
            for i, positions in enumerate(getattr(self, name)):
                check_positions(f"{name}[{i}]", positions, size)
        _check_range("labels", self.labels, "position", 0, size)
        _check_range("queries", self.queries, "position", -1 if outside else 0, size)
        _check_range("queries", self.queries, "target", 0, len(self.targets))
        for column, end in (("unknown", len(self.unknowns)), ("query", outside)):
            if column in self.queries:
                _check_range("queries", self.queries, column, -1, end)
        homeless = (self.queries["position"] < 0) == (self._index("query") < 0)
        _refuse("queries", self.queries, "position", homeless, "either an archive position, or -1 and a `query`")
        for column in ("attribute", "text"):
            blank = [not (isinstance(value, str) and value.strip()) for value in self.queries[column]]
            _refuse("queries", self.queries, column, blank, "a word")
        self._check_sides()

    def _check_sides(self) -> None:
        """Relevant, unknown and, where it is excluded, the query image itself: no image is two of them."""
        sides = pd.DataFrame({"target": self.queries["target"], "unknown": self._index("unknown")})
        for target, unknown in sides[sides["unknown"] >= 0].drop_duplicates().itertuples(index=False):
            both = np.intersect1d(self.targets[target], self.unknowns[unknown], assume_unique=True)
            if both.size:
                raise ValueError(
                    f"unknowns[{unknown}]: {self.archive.files[both[0]]} is relevant too (targets[{target}]); "
                    "an image is one or the other"
                )
        if self.exclude_self:
            own = _member(self.targets, self.queries["target"].to_numpy(), self.queries["position"].to_numpy())
            _refuse(
                "queries", self.queries, "image", own, "an image that is not its own answer, as exclude_self is set"
            )

    def _index(self, column: str) -> np.ndarray:
        """A column of `queries` that may be left out: (Q,) integers, -1 where it is."""
        return self.queries[column].to_numpy() if column in self.queries else np.full(len(self.queries), -1)

    @cached_property
    def n_relevant(self) -> np.ndarray:
        """(Q,) how many images are relevant to each query."""
        return _sizes(self.targets, self.queries["target"].to_numpy())

    @cached_property
    def n_unknown(self) -> np.ndarray:
        """(Q,) how many images are taken out of each query's ranking because nobody judged them."""
        return _sizes(self.unknowns, self._index("unknown"))

    @cached_property
    def n_ranked(self) -> np.ndarray:
        """(Q,) how many images each query ranks: the archive, less the unknown, less the image itself if excluded."""
        ranked = len(self.archive) - self.n_unknown
        if self.exclude_self:
            position = self.queries["position"].to_numpy()
            ranked = ranked - ((position >= 0) & ~_member(self.unknowns, self._index("unknown"), position))
        return ranked

    def read_query(self, query: int) -> Image.Image:
        """The RGB picture of the query whose index in `queries` is `query`, wherever it lies."""
        row = self.queries.loc[query]
        return self.archive.read(row["position"]) if row["position"] >= 0 else self.query_archive.read(row["query"])

    def sides(self, query: int) -> pd.Series:
        """(N,) on which side each image is for the query whose index in `queries` is `query`, and why."""
        row, classes = self.queries.loc[query], pd.Series(self.archive.classes)
        group = self.labels.query("attribute == @row.attribute and group == @row.group")
        sides = pd.Series("elsewhere: negative", index=range(len(self.archive)), name="side")
        sides[classes.isin(classes[group["position"]])] = "same class, no label: negative"
        sides[group["position"]] = "same group, another value: negative"
        sides[self.targets[row["target"]]] = "has the value asked for: RELEVANT"
        if row.get("unknown", -1) >= 0:
            sides[self.unknowns[row["unknown"]]] = "nobody said: unknown, left out of the ranking"
        own = "left out of its own ranking" if self.exclude_self else "negative"
        if row["position"] >= 0 and "RELEVANT" not in sides[row["position"]]:
            sides[row["position"]] = f"the query image itself: {own}"
        return sides

    def without(self, files: Iterable[str]) -> "Benchmark":
        """The benchmark over the archive less these files (those that can't be read, say).

        Queries whose image is gone, and queries all of whose answers are gone, go too; the report says how many.
        Raises ValueError for a file that is in neither archive.
        """
        gone = set(files)
        queries_of = self.query_archive
        if strange := gone - set(self.archive.files) - set(queries_of.files if queries_of is not None else ()):
            raise ValueError(f"{sorted(strange)[0]!r} is no image of {self.archive.root}; files lists them")
        kept, moved = _without(self.archive, gone)
        targets, unknowns = (
            tuple(moved[p][moved[p] >= 0] for p in positions) for positions in (self.targets, self.unknowns)
        )
        labels = self.labels.assign(position=moved[self.labels["position"]])
        position, target = (self.queries[column].to_numpy() for column in ("position", "target"))
        there = (position < 0) | (moved[position] >= 0)
        queries = self.queries.assign(position=np.where(position < 0, -1, moved[position]))
        if queries_of is not None:
            queries_of, moved_query = _without(queries_of, gone)
            query = self._index("query")
            there &= (query < 0) | (moved_query[query] >= 0)
            queries["query"] = np.where(query < 0, -1, moved_query[query])
        answered = (_sizes(targets, target) > 0) | (self.n_relevant == 0)
        report = Report()
        for left_out, why in ((~there, "their image is left out"), (there & ~answered, "every answer is left out")):
            if left_out.any():
                report.add("archive", None, f"{left_out.sum()} queries", f"dropped: {why}")
        return replace(
            self,
            archive=kept,
            queries=queries[there & answered],
            targets=targets,
            labels=labels[labels["position"] >= 0],
            warnings=pd.concat([self.warnings, report.table()], ignore_index=True),
            unknowns=unknowns,
            query_archive=queries_of,
        )

    def composition(self, by: Sequence[str] = ("attribute", "group")) -> pd.DataFrame:
        """Per attribute and group: labelled rows, values, composed queries, positives a query (min, median, max).

        And, where a benchmark has unknown images, how many of them a query leaves out (median). by: the columns that
        the queries are counted by, such as ("attribute",) alone.
        """
        keys = list(by)
        counts = self.queries[keys].assign(positives=self.n_relevant, unknown=self.n_unknown)
        queries, labels = counts.groupby(keys, sort=False), self.labels.groupby(keys, sort=False)
        columns = {
            "queries": queries.size(),
            "positives min": queries["positives"].min(),
            "median": queries["positives"].median(),
            "max": queries["positives"].max(),
        }
        if self.unknowns:
            columns["unknown median"] = queries["unknown"].median()
        told = {"labelled": labels.size(), "values": labels["value"].unique().map(", ".join)}
        if self.labels.empty:  # queries that came without labels
            told = {"labelled": 0, "values": ""}
        return pd.DataFrame(told | columns).reindex((queries if self.labels.empty else labels).size().index)


def check_positions(name: str, positions: np.ndarray, size: int) -> None:
    """Raises ValueError, beginning with `name`, unless they are archive positions (n,), strictly ascending."""
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


def _refuse(name: str, table: pd.DataFrame, column: str, wrong: Sequence[bool], expected: str) -> None:
    wrong = np.asarray(wrong, dtype=bool)
    if wrong.any():
        row, value = table.index[wrong].tolist()[0], table[column][wrong].tolist()[0]
        raise ValueError(f"{name}, row {row!r}: {column} is {value!r}; expected {expected}")


def _sizes(sets: Sequence[np.ndarray], of: np.ndarray) -> np.ndarray:
    """The size of each set that `of` (Q,) names, 0 for -1."""
    return np.array([len(positions) for positions in sets] + [0])[of]


def _member(sets: Sequence[np.ndarray], of: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """(Q,) whether positions[i] is in the set that of[i] names; set -1 is empty."""
    result = np.zeros(len(of), bool)
    for i, rows in pd.Series(of).groupby(of).indices.items():
        if i >= 0:
            result[rows] = np.isin(positions[rows], sets[i])
    return result


def _without(archive: Archive, gone: set[str]) -> tuple[Archive, np.ndarray]:
    """The archive less these files; for each old position the new one, -1 for those that are gone."""
    kept = [i for i, file in enumerate(archive.files) if file not in gone]
    moved = np.full(len(archive), -1)
    moved[kept] = np.arange(len(kept))
    return archive.subset(kept), moved


class ImageNames:
    """What label files may call an image: the end of its path, as much of it as tells it from all others.

    `a.jpg`, `class/a.jpg` and `images/class/a.jpg` are the same image while no other ends so; `./a.jpg` is the one in
    the root itself; without suffix (`a`, `class/a`) where `suffixless`. Names are told apart in the whole archive under
    the root, also when `listing` restricts it.
    """

    def __init__(self, archive: Archive, listing: str | Path | None = None, suffixless: bool = False) -> None:
        self._root, self._ends = archive.root, {}
        self._position = {file: position for position, file in enumerate(archive.files)}
        self.whole = read_archive(archive.root) if listing else archive
        for file in dict.fromkeys((*self.whole.files, *archive.files)):
            for form in {file, str(Path(file).with_suffix(""))} if suffixless else {file}:
                self._ends["./" + form] = [file]
                parts = form.split("/")
                for start in range(len(parts)):
                    self._ends.setdefault("/".join(parts[start:]), []).append(file)

    def __contains__(self, said: str) -> bool:
        return said in self._ends

    def find(self, said: str, where: str, hint: str = "") -> str:
        """The file of the image called so. Raises ValueError, which says `where`, when there is none or several."""
        found = self._ends.get(said, [])
        if not found:
            raise ValueError(
                f"{where}: image {said!r} is not in the archive{hint}; correct the name, or add it to {self._root}"
            )
        if len(found) > 1:
            paths = " or ".join(repr(file if "/" in file else "./" + file) for file in found[:3])
            raise ValueError(f"{where}: the archive holds several images named {said!r}; say which: {paths}")
        return found[0]

    def position(self, file: str) -> int:
        """The archive position of a file that `find` gave; -1 where the listing leaves it out."""
        return self._position.get(file, -1)

    def name(self, file: str) -> str:
        """What the tables call a file: its name, or its path where another image has that name too."""
        name = file.rsplit("/", 1)[-1]
        return name if len(self._ends[name]) == 1 else file


class Report:
    """Collects what a reader tolerates."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int | None, str, str]] = []

    def add(self, file: str, line: int | None, value: str, problem: str) -> None:
        self.rows.append((file, line, value, problem))

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows, columns=WARNINGS).astype({"line": "Int64"})


class Questions:
    """Collects queries by PatternCom's rule: a labelled image with every other value of its group."""

    def __init__(self, archive: Archive) -> None:
        self._archive, self._names = archive, ImageNames(archive)
        self.queries: list[tuple] = []
        self.labels: list[tuple] = []
        self.targets: list[np.ndarray] = []

    def __bool__(self) -> bool:
        return bool(self.queries)

    def ask(self, attribute: str, group: str, values: pd.Series, texts: Sequence[str], unknown: int = -1) -> None:
        """Pairs images with those of `texts` that aren't their value; relevant to a text are the images that have it.

        values: the value of each labelled image of the group, the index its archive position, ascending. unknown: index
        of the images that are unknown to these queries.
        """
        target = {text: len(self.targets) + i for i, text in enumerate(texts)}
        self.targets.extend(values.index[values == text].to_numpy() for text in texts)
        for position, value in values.items():
            image = self._names.name(self._archive.files[position])
            self.labels.append((attribute, image, group, value, position))
            for text in texts:
                if text != value:
                    self.queries.append((attribute, group, image, value, text, position, target[text], unknown))

    def benchmark(self, protocol: str, report: Report, unknowns: Sequence[np.ndarray] = ()) -> Benchmark:
        """What was asked."""
        return Benchmark(
            self._archive,
            protocol,
            pd.DataFrame(self.queries, columns=[*QUERIES, "unknown"]).drop(columns=[] if unknowns else "unknown"),
            tuple(self.targets),
            pd.DataFrame(self.labels, columns=LABELS),
            report.table(),
            tuple(unknowns),
        )


def group_of(cls: str) -> str:
    """The group of images that a class is; one of all where an archive has no classes."""
    return cls or "all"


def check_protocol(protocol: str, own: str) -> None:
    """Raises ValueError unless `protocol` is the default or this benchmark's one."""
    if protocol not in ("released", own):
        raise ValueError(f"protocol {protocol!r}: this benchmark knows {own!r} only; leave PROTOCOL at its default")


# what lies under a dataset root -> its reader, by name: a format imports what it needs, not the other way round
READERS: dict[tuple[str, ...], str] = {
    ("PatternCom",): "rscir_lib.benchmarks.patterncom.read_patterncom",
    ("triplets.csv",): "rscir_lib.benchmarks.triplets.read_triplets",
    ("triplets.json",): "rscir_lib.benchmarks.triplets.read_triplets",
    ("xview2_cir.csv",): "rscir_lib.benchmarks.triplets.read_triplets",
    ("multilabels.tsv", "captions.json"): "rscir_lib.benchmarks.ucmcom.read_ucmcom",
    ("multilabels.tsv",): "rscir_lib.benchmarks.multilabels.read_multilabels",
}


def read_benchmark(root: str | Path, listing: str | Path | None = None, protocol: str = "released") -> Benchmark:
    """The benchmark that a dataset root holds: that of the first of `READERS` whose files and folders are all there.

    A benchmark of another format is one more reader `(root, listing, protocol) -> Benchmark`, and one more line there.
    Raises FileNotFoundError when there is none.
    """
    folder = Path(root).expanduser()
    for files, reader in READERS.items():
        if all((folder / file).exists() for file in files):
            return pkgutil.resolve_name(reader)(root, listing=listing, protocol=protocol)
    known = "; ".join(" and ".join(files) for files in READERS)
    raise FileNotFoundError(
        f"{root}: no benchmark here. Expected one of: {known}; `make fetch DATASET_ROOT=...` gets PatternCom, and "
        "lines of `image,attribute,value` in PatternCom/<attribute>.csv make one of your own"
    )
